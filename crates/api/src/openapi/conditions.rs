//! What request headers bring along, whatever the operation: `Idempotency-Key`, `If-Match`, `If-None-Match`.

use utoipa::openapi::{Ref, RefOr, Response, ResponseBuilder, path::Operation};

use super::{header, name};

/// Adds the answers and headers that follow from the headers that the operation reads.
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
            "`true`: the request had been made before, and this is what was answered then.",
        );
        for status in [400, 409, 422] {
            refuse(operation, status);
        }
    }
    if known || unchanged {
        on_success(
            operation,
            "ETag",
            "Names this state of it: for `If-Match` and `If-None-Match`.",
        );
    }
    if unchanged {
        refuse(operation, 400);
        refuse(operation, 412);
    }
    if known {
        let mut response = ResponseBuilder::new()
            .description("It is what the caller has already.")
            .build();
        let about = "The same as before.";
        response.headers.insert("ETag".into(), header(about));
        let responses = &mut operation.responses.responses;
        responses.insert("304".into(), RefOr::T(response));
    }
}

/// Adds a header to the answers that say that it is done.
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

fn refuse(operation: &mut Operation, status: u16) {
    let responses = &mut operation.responses.responses;
    responses
        .entry(status.to_string())
        .or_insert_with(|| Ref::from_response_name(name(status)).into());
}
