//! The answers and headers that follow from request headers in any operation: `Idempotency-Key`, `If-Match`,
//! `If-None-Match`.

use utoipa::openapi::{RefOr, Response, ResponseBuilder, path::Operation};

use super::{headers::header, problems::note};
use crate::problem::ProblemKind;

/// Adds the answers and headers that follow from the request headers of the operation.
pub(super) fn describe(operation: &mut Operation) {
    let reads = |name: &str| {
        operation
            .parameters
            .iter()
            .flatten()
            .any(|parameter| matches!(parameter, RefOr::T(parameter) if parameter.name == name))
    };
    let (keyed, known, unchanged) = (
        reads("Idempotency-Key"),
        reads("If-None-Match"),
        reads("If-Match"),
    );
    if keyed {
        on_success(
            operation,
            "Idempotent-Replayed",
            "`true`: the same request was made before, and this is the stored answer.",
        );
        note(operation, ProblemKind::InvalidRequest);
        note(operation, ProblemKind::IdempotencyKeyReused);
        // The first request may still be running. Messages, batches and grants wait for the first request if possible.
        note(operation, ProblemKind::Conflict);
    }
    if known || unchanged {
        on_success(
            operation,
            "ETag",
            "The version of the resource, for `If-Match` and `If-None-Match`.",
        );
    }
    if unchanged {
        note(operation, ProblemKind::InvalidRequest);
        note(operation, ProblemKind::Changed);
    }
    if known {
        let mut response = ResponseBuilder::new()
            .description("The resource has not changed: the caller has the current version.")
            .build();
        let about = "The version of the resource, the same as before.";
        response.headers.insert("ETag".into(), header(about));
        let responses = &mut operation.responses.responses;
        responses.insert("304".into(), RefOr::T(response));
    }
}

/// Adds a header to the successful answers.
fn on_success(operation: &mut Operation, named: &str, about: &str) {
    let done = operation
        .responses
        .responses
        .iter_mut()
        .filter(|(status, _)| status.starts_with('2'));
    for (_, response) in done {
        if let RefOr::T(Response { headers, .. }) = response {
            headers
                .entry(named.to_owned())
                .or_insert_with(|| header(about));
        }
    }
}
