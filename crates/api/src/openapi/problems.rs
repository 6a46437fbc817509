//! The problems that an operation may answer with, each by its kind.
//!
//! A handler names sets of kinds among its responses. There each kind stands under its own name, so that sets can be
//! combined. [`gather`] then makes one response of all kinds with one status: an operation documents exactly the codes
//! that this operation answers with, and no others. Tests compare every problem that occurs with the document.

use std::collections::BTreeMap;

use domain::violation::Violation;
use http::StatusCode;
use utoipa::{
    IntoResponses,
    openapi::{
        Components, Content, Ref, RefOr, Response, ResponseBuilder,
        example::{Example, ExampleBuilder},
        path::Operation,
    },
};

use super::headers::{header, rate_limit, request_id};
use crate::problem::{MEDIA_TYPE, Problem, ProblemKind, WechatAnswer};

/// Sets of kinds for the responses of handlers.
macro_rules! sets {
    ($($(#[$doc:meta])* $name:ident: $($kind:ident)*;)*) => {$(
        $(#[$doc])*
        pub(crate) struct $name;

        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<Response>> {
                [$(ProblemKind::$kind),*].into_iter().map(noted).collect()
            }
        }
    )*};
}

sets! {
    /// For every operation.
    Always: Internal;
    /// For every operation behind the guard.
    Guarded: Unauthorized InsufficientScope RateLimited Internal Overloaded;
    /// For operations that report whether the gateway can work.
    Unready: Overloaded;
    /// For requests that WeChat signs.
    Signed: BadSignature;
    /// For operations that are open to floods, or that limit the failures of each address.
    Often: RateLimited;
    /// For operations that read a body other than JSON.
    Pushed: InvalidRequest TooSlow PayloadTooLarge;
    /// For operations with an id in the path.
    Missing: NotFound;
    /// For operations that read a query.
    Query: InvalidRequest;
    /// For operations that read a JSON body.
    Body: InvalidRequest TooSlow PayloadTooLarge UnsupportedMediaType ValidationFailed;
    /// For operations without a body that may break rules by their stored content.
    Unfit: ValidationFailed;
    /// For operations on a resource that may exist already, be in creation at this moment, or have the wrong status.
    Conflict: Conflict;
    /// For operations that count as a message of the day.
    Counted: QuotaExhausted;
    /// For operations that call WeChat.
    Wechat: AppRejected WechatRejected WechatUnavailable QuotaExhausted;
}

/// The entry of a kind among the responses of an operation.
fn noted(kind: ProblemKind) -> (String, RefOr<Response>) {
    (name(&[kind]), Ref::from_response_name(name(&[kind])).into())
}

/// Adds a kind to the responses of an operation.
pub(super) fn note(operation: &mut Operation, kind: ProblemKind) {
    operation.responses.responses.extend([noted(kind)]);
}

/// Replaces the kinds of an operation by one response for each status.
pub(super) fn gather(operation: &mut Operation, components: &mut Components) {
    let responses = &mut operation.responses.responses;
    let mut of_status: BTreeMap<u16, Vec<ProblemKind>> = BTreeMap::new();
    for kind in ProblemKind::ALL {
        if responses.remove(&name(&[*kind])).is_some() {
            let status = kind.status().as_u16();
            of_status.entry(status).or_default().push(*kind);
        }
    }
    for (status, kinds) in of_status {
        let reference = Ref::from_response_name(name(&kinds));
        responses.insert(status.to_string(), reference.into());
        add(components, &kinds);
    }
}

/// Adds the response of each kind alone: [`gather`] may find no operation where a kind is the only one of its status.
pub(super) fn describe(components: &mut Components) {
    for kind in ProblemKind::ALL {
        add(components, &[*kind]);
    }
}

fn add(components: &mut Components, kinds: &[ProblemKind]) {
    let responses = &mut components.responses;
    responses
        .entry(name(kinds))
        .or_insert_with(|| response(kinds).into());
}

/// The name of the response of these kinds, such as `ValidationFailedOrIdempotencyKeyReused`.
fn name(kinds: &[ProblemKind]) -> String {
    let names: Vec<String> = kinds.iter().map(|kind| format!("{kind:?}")).collect();
    names.join("Or")
}

/// The response of these kinds, which share one status.
fn response(kinds: &[ProblemKind]) -> Response {
    let titles: Vec<String> = kinds
        .iter()
        .map(|kind| format!("`{}`: {}.", kind.code(), kind.title()))
        .collect();
    let examples = kinds.iter().map(|kind| (kind.code(), example(*kind)));
    let content = Content::builder()
        .schema(Some(Ref::from_schema_name("Problem")))
        .examples_from_iter(examples)
        .build();
    let mut response = ResponseBuilder::new()
        .description(titles.join(" "))
        .content(MEDIA_TYPE, content)
        .build();
    let headers = &mut response.headers;
    headers.insert("X-Request-Id".into(), request_id());
    let is = |status| kinds.iter().any(|kind| kind.status() == status);
    if is(StatusCode::TOO_MANY_REQUESTS) || is(StatusCode::SERVICE_UNAVAILABLE) {
        let about = "Seconds to wait before the request is sent again.";
        headers.insert("Retry-After".into(), header(about));
    }
    let lacks_scope = kinds.contains(&ProblemKind::InsufficientScope);
    if is(StatusCode::TOO_MANY_REQUESTS) || lacks_scope {
        headers.extend(rate_limit());
    }
    if kinds.contains(&ProblemKind::Unauthorized) || lacks_scope {
        let about = "What the credential lacks (RFC 6750).";
        headers.insert("WWW-Authenticate".into(), header(about));
    }
    response
}

fn example(kind: ProblemKind) -> Example {
    let problem = match kind {
        ProblemKind::ValidationFailed => Problem::validation_failed(vec![Violation::new(
            "/data/thing1/value",
            "must have at most 20 characters",
        )]),
        ProblemKind::AppRejected | ProblemKind::WechatRejected => {
            Problem::new(kind, kind.example()).with_wechat(WechatAnswer {
                errcode: 40125,
                errmsg: "invalid appsecret".into(),
                rid: Some("6a1f2e3d-0b4c5d6e-7f809102".into()),
            })
        }
        kind => Problem::new(kind, kind.example()),
    };
    let body = problem.body(Some("urn:request:5f0c7a2b9d3e4f61".into()));
    ExampleBuilder::new()
        .summary(kind.title())
        .value(serde_json::to_value(body).ok())
        .build()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    /// The documented codes of an operation's status.
    fn codes(path: &str, method: &str, status: u16) -> Vec<String> {
        let document = serde_json::to_value(crate::openapi()).unwrap();
        let response = &document["paths"][path][method]["responses"][status.to_string()];
        let place = response["$ref"]
            .as_str()
            .and_then(|text| text.strip_prefix('#'));
        let response = place.map_or(&Value::Null, |place| document.pointer(place).unwrap());
        let examples = response["content"][super::MEDIA_TYPE]["examples"].as_object();
        examples
            .into_iter()
            .flat_map(|all| all.keys().cloned())
            .collect()
    }

    #[test]
    fn an_operation_has_its_own_codes_alone() {
        let (apps, messages) = ("/v1/apps", "/v1/apps/{appid}/messages");
        let callbacks = "/callbacks/{appid}";
        for (path, method, status, expected) in [
            (
                messages,
                "post",
                422,
                &["idempotency_key_reused", "validation_failed"][..],
            ),
            (messages, "post", 429, &["quota_exhausted", "rate_limited"]),
            (messages, "post", 503, &["overloaded"]),
            (messages, "get", 429, &["rate_limited"]),
            (apps, "post", 503, &["overloaded", "wechat_unavailable"]),
            (apps, "post", 429, &["quota_exhausted", "rate_limited"]),
            (apps, "post", 403, &["insufficient_scope"]),
            (callbacks, "post", 403, &["bad_signature"]),
            ("/v1/apps/{appid}", "patch", 422, &["validation_failed"]),
        ] {
            assert_eq!(
                codes(path, method, status),
                expected,
                "{method} {path} {status}"
            );
        }
    }

    #[test]
    fn every_key_of_a_response_is_a_status() {
        let document = serde_json::to_value(crate::openapi()).unwrap();
        let items = document["paths"].as_object().unwrap().values();
        for operation in items.flat_map(|item| item.as_object().unwrap().values()) {
            for status in operation["responses"].as_object().unwrap().keys() {
                assert!(
                    status.parse::<u16>().is_ok(),
                    "{}: {status}",
                    operation["operationId"]
                );
            }
        }
    }
}
