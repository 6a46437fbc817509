//! The problems that an operation may answer with, each by its kind.
//!
//! A handler names sets of kinds among its responses. There each kind stands under its own name, so that sets can be
//! put together, until [`gather`] makes one response of all kinds with one status: what is documented for an operation
//! are the codes that this operation answers with, and no others. Tests hold every problem they meet against that.

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

use super::{header, rate_limit, request_id};
use crate::problem::{Kind, MEDIA_TYPE, Problem, WechatAnswer};

/// Sets of kinds for the responses of handlers.
macro_rules! sets {
    ($($(#[$doc:meta])* $name:ident: $($kind:ident)*;)*) => {$(
        $(#[$doc])*
        pub(crate) struct $name;

        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<Response>> {
                [$(Kind::$kind),*].into_iter().map(noted).collect()
            }
        }
    )*};
}

sets! {
    /// Of everything.
    Always: Internal;
    /// Of everything behind the guard.
    Guarded: Unauthorized InsufficientScope RateLimited Internal Overloaded;
    /// Of what is asked whether it can work.
    Unready: Overloaded;
    /// Of what WeChat signs.
    Signed: BadSignature;
    /// Of what is open to floods, or may fail a number of times only for each address.
    Often: RateLimited;
    /// Of what reads a body that is no JSON.
    Pushed: InvalidRequest TooSlow PayloadTooLarge;
    /// Of what has an id in its path.
    Missing: NotFound;
    /// Of what reads a query.
    Query: InvalidRequest;
    /// Of what reads a JSON body.
    Body: InvalidRequest TooSlow PayloadTooLarge UnsupportedMediaType ValidationFailed;
    /// Of what may not fit though nothing of it is in the body.
    Unfit: ValidationFailed;
    /// Of what may be there already, be made at this moment, or have gone too far.
    Conflict: Conflict;
    /// Of what counts as a message of the day.
    Counted: QuotaExhausted;
    /// Of what asks WeChat.
    Wechat: AppRejected WechatRejected WechatUnavailable QuotaExhausted;
}

/// A kind among the responses of an operation.
fn noted(kind: Kind) -> (String, RefOr<Response>) {
    (name(&[kind]), Ref::from_response_name(name(&[kind])).into())
}

/// Adds a kind to those that an operation may answer with.
pub(super) fn note(operation: &mut Operation, kind: Kind) {
    operation.responses.responses.extend([noted(kind)]);
}

/// Makes one response for each status of the kinds that are noted in an operation.
pub(super) fn gather(operation: &mut Operation, components: &mut Components) {
    let responses = &mut operation.responses.responses;
    let mut of_status: BTreeMap<u16, Vec<Kind>> = BTreeMap::new();
    for kind in Kind::ALL {
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

/// Adds the response of each kind by itself: [`gather`] may find none that some kind is alone in.
pub(super) fn describe(components: &mut Components) {
    for kind in Kind::ALL {
        add(components, &[*kind]);
    }
}

fn add(components: &mut Components, kinds: &[Kind]) {
    let responses = &mut components.responses;
    responses
        .entry(name(kinds))
        .or_insert_with(|| response(kinds).into());
}

/// What the response of these kinds is called, such as `ValidationFailedOrIdempotencyKeyReused`.
fn name(kinds: &[Kind]) -> String {
    let names: Vec<String> = kinds.iter().map(|kind| format!("{kind:?}")).collect();
    names.join("Or")
}

/// The response of these kinds, which have one status.
fn response(kinds: &[Kind]) -> Response {
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
    let lacks_scope = kinds.contains(&Kind::InsufficientScope);
    if is(StatusCode::TOO_MANY_REQUESTS) || lacks_scope {
        headers.extend(rate_limit());
    }
    if kinds.contains(&Kind::Unauthorized) || lacks_scope {
        let about = "What the credential lacks (RFC 6750).";
        headers.insert("WWW-Authenticate".into(), header(about));
    }
    response
}

fn example(kind: Kind) -> Example {
    let problem = match kind {
        Kind::ValidationFailed => Problem::validation_failed(vec![Violation::new(
            "/data/thing1/value",
            "must have at most 20 characters",
        )]),
        Kind::AppRejected | Kind::WechatRejected => {
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

    /// The codes that are documented for an operation's status.
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
