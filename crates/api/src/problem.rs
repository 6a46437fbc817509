//! Problems (RFC 9457): all refusals of the API, in one closed set.
//!
//! The crates below say which *kind* of failure occurred; [`ProblemKind::status`] alone turns a kind into an HTTP status. A
//! [`Problem`] becomes a response without a body; the outermost layer writes the body, because only that layer has the
//! request's id.

use std::{fmt::Display, time::Duration};

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use domain::violation::{self, Violation};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;

use crate::dto::open_lists::ProblemCodes;

/// The media type of every problem.
pub(crate) const MEDIA_TYPE: &str = "application/problem+json";

/// How many fields one problem names at most.
pub(crate) const MOST_ERRORS: usize = 100;

/// The `Retry-After` of a refusal that sets no time of its own.
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(2);

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $code:literal, $status:ident, $title:literal: $example:literal;)*) => {
        /// The kinds of refusal. Think before you add a kind: clients depend on the codes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum ProblemKind { $($(#[$doc])* $kind,)* }

        impl ProblemKind {
            /// All kinds.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$kind,)*];

            /// The member `code`, for programs.
            pub(crate) fn code(self) -> &'static str {
                match self { $(Self::$kind => $code,)* }
            }

            /// The HTTP status: the only place that maps a kind to a status.
            pub(crate) fn status(self) -> StatusCode {
                match self { $(Self::$kind => StatusCode::$status,)* }
            }

            /// The member `title`: always the same text for a kind.
            pub(crate) fn title(self) -> &'static str {
                match self { $(Self::$kind => $title,)* }
            }

            /// A `detail` of this kind, for the OpenAPI document.
            pub(crate) fn example(self) -> &'static str {
                match self { $(Self::$kind => $example,)* }
            }
        }
    };
}

kinds! {
    /// The gateway cannot parse the request: JSON, query, headers.
    InvalidRequest = "invalid_request", BAD_REQUEST, "The request cannot be understood":
        "the body is not JSON: expected `,` or `}` at line 3 column 5";
    /// The credential is missing or not valid.
    Unauthorized = "unauthorized", UNAUTHORIZED, "The credential is missing or not valid":
        "fetch an access token at POST /oauth/token and send the token as `Authorization: Bearer …`";
    /// The credential is valid, but lacks the scope.
    InsufficientScope = "insufficient_scope", FORBIDDEN, "The credential does not permit this":
        "this request needs the scope `messages:send`: use a key that has this scope";
    /// The callback does not prove that WeChat sent it, or is for no app of this gateway. The answer does not say which
    /// of the two, so that a stranger learns nothing.
    BadSignature = "bad_signature", FORBIDDEN, "The callback is not accepted":
        "the callback has no valid signature of WeChat for an app of this gateway: see the gateway's log for the reason";
    /// The resource does not exist, or belongs to another tenant.
    NotFound = "not_found", NOT_FOUND, "The resource does not exist":
        "there is no such message: check the id, and that the key belongs to the right tenant";
    /// The path exists, the method does not.
    MethodNotAllowed = "invalid_request", METHOD_NOT_ALLOWED, "The method is not allowed here":
        "the method PUT is not allowed here: use one of the methods in `Allow`";
    /// The body did not arrive in time.
    TooSlow = "invalid_request", REQUEST_TIMEOUT, "The body did not arrive in time":
        "the body did not arrive in time: send the request again, over a better connection or with a smaller body";
    /// The resource exists already, or another request creates the resource at this moment.
    Conflict = "conflict", CONFLICT, "The request conflicts with the present state":
        "the appid is registered already: ask its owner to remove the app first";
    /// The resource has changed since the caller read it.
    Changed = "conflict", PRECONDITION_FAILED, "The resource has changed in the meantime":
        "the resource has changed since the version in `If-Match`: read the resource again, and send the change with \
        the new ETag";
    /// The body is over the limit.
    PayloadTooLarge = "payload_too_large", PAYLOAD_TOO_LARGE, "The body is too large":
        "the body may have at most 1048576 bytes: send a smaller body";
    /// The endpoint does not read bodies of this media type.
    UnsupportedMediaType = "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE, "The body's type is not supported":
        "send JSON with `Content-Type: application/json`";
    /// The gateway can read the request, but fields break their rules.
    ValidationFailed = "validation_failed", UNPROCESSABLE_ENTITY, "Fields of the body are not valid":
        "correct the fields named in `errors` and send the request again";
    /// The idempotency key was used with another body.
    IdempotencyKeyReused = "idempotency_key_reused", UNPROCESSABLE_ENTITY, "The idempotency key was used for another request":
        "use a new Idempotency-Key for a new request; repeat a request with exactly the same body";
    /// The tenant sends more requests a second than its limit.
    RateLimited = "rate_limited", TOO_MANY_REQUESTS, "Too many requests":
        "wait as long as Retry-After says, then send the request again";
    /// The daily quota of the app or of the tenant is used up.
    QuotaExhausted = "quota_exhausted", TOO_MANY_REQUESTS, "The daily quota is used up":
        "the app's daily quota is used up until 2026-03-02T16:00:00.000Z: send the message then, or give the message a \
        longer ttl";
    /// A defect of the gateway.
    Internal = "internal", INTERNAL_SERVER_ERROR, "An internal error of the gateway":
        "please report this error with the request's id; sending the request again may help";
    /// WeChat refuses the app for a reason that the app's owner can repair: the AppSecret, the IP list, the account.
    AppRejected = "wechat_rejected", UNPROCESSABLE_ENTITY, "WeChat refuses the app":
        "the AppSecret is wrong or was reset: set the current one with PUT /v1/apps/{appid}/secret";
    /// WeChat refuses a call that the request needs, and the request itself is correct.
    WechatRejected = "wechat_rejected", BAD_GATEWAY, "WeChat refuses a call of the gateway":
        "WeChat does not list the app's templates now: sync again later";
    /// WeChat does not answer.
    WechatUnavailable = "wechat_unavailable", SERVICE_UNAVAILABLE, "WeChat does not answer":
        "WeChat does not answer at the moment: send the request again after Retry-After";
    /// The gateway has no capacity now, or the database is unavailable.
    Overloaded = "overloaded", SERVICE_UNAVAILABLE, "The gateway cannot accept the request now":
        "the gateway cannot accept the request at the moment: send the request again after Retry-After";
}

/// A refusal before it becomes a response. `detail` always says what the client can do next.
#[derive(Clone, Debug)]
pub(crate) struct Problem(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    kind: ProblemKind,
    detail: String,
    errors: Vec<Violation>,
    wechat: Option<WechatAnswer>,
    retry_after: Option<Duration>,
    headers: HeaderMap,
    cause: Option<String>,
}

/// WeChat's answer, word by word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct WechatAnswer {
    /// WeChat's error code.
    #[schema(example = 40125)]
    pub(crate) errcode: i64,
    /// WeChat's error message.
    #[schema(example = "invalid appsecret")]
    pub(crate) errmsg: String,
    /// WeChat's request id, for WeChat's support.
    pub(crate) rid: Option<String>,
}

impl Problem {
    /// A problem of a kind; `detail` says what the client can do next.
    pub(crate) fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            detail: detail.into(),
            errors: Vec::new(),
            wechat: None,
            retry_after: None,
            headers: HeaderMap::new(),
            cause: None,
        }))
    }

    /// The gateway cannot parse the request.
    pub(crate) fn invalid_request(detail: impl Into<String>) -> Self {
        Self::new(ProblemKind::InvalidRequest, detail)
    }

    /// No `what` with this id exists, or another tenant owns the `what`. The answer does not say which of the two.
    pub(crate) fn not_found(what: &str) -> Self {
        Self::new(
            ProblemKind::NotFound,
            format!(
                "there is no such {what}: check the id, and that the key belongs to the right tenant"
            ),
        )
    }

    /// Fields break the rules in `errors`.
    pub(crate) fn validation_failed(errors: Vec<Violation>) -> Self {
        let mut problem = Self::new(
            ProblemKind::ValidationFailed,
            ProblemKind::ValidationFailed.example(),
        );
        problem.0.errors = violation::first(errors, MOST_ERRORS);
        problem
    }

    /// One field breaks its rule.
    pub(crate) fn field(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::validation_failed(vec![Violation::new(pointer, detail)])
    }

    /// A defect. The gateway logs the cause and never sends the cause to the client.
    pub(crate) fn internal(cause: impl Display) -> Self {
        Self::new(ProblemKind::Internal, ProblemKind::Internal.example()).caused_by(cause)
    }

    /// The gateway cannot handle the request now. The gateway logs the cause and never sends the cause to the client.
    pub(crate) fn unavailable(cause: impl Display) -> Self {
        Self::new(ProblemKind::Overloaded, ProblemKind::Overloaded.example()).caused_by(cause)
    }

    /// The problem for a bare error response of a library.
    pub(crate) fn from_status(status: StatusCode) -> Self {
        let kind = ProblemKind::ALL
            .iter()
            .copied()
            .find(|kind| kind.status() == status);
        let kind = kind.unwrap_or(if status.is_server_error() {
            ProblemKind::Internal
        } else {
            ProblemKind::InvalidRequest
        });
        match kind {
            ProblemKind::NotFound => {
                Self::new(kind, "this path does not exist: see /docs for all paths")
            }
            ProblemKind::InvalidRequest => {
                Self::new(kind, "see /docs for what this endpoint reads")
            }
            kind => Self::new(kind, kind.example()),
        }
    }

    /// The fields that break their rules.
    pub(crate) fn into_errors(self) -> Vec<Violation> {
        self.0.errors
    }

    /// Adds WeChat's answer.
    pub(crate) fn with_wechat(mut self, wechat: WechatAnswer) -> Self {
        self.0.wechat = Some(wechat);
        self
    }

    /// Sets the time after which the client may try again.
    pub(crate) fn retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// Adds a header, unless the value is no valid header value.
    pub(crate) fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.0.headers.insert(name, value);
        }
        self
    }

    /// Adds the cause, for the log alone.
    pub(crate) fn caused_by(mut self, cause: impl Display) -> Self {
        self.0.cause = Some(cause.to_string());
        self
    }

    /// The kind.
    pub(crate) fn kind(&self) -> ProblemKind {
        self.0.kind
    }

    /// The cause, for the log alone.
    pub(crate) fn cause(&self) -> Option<&str> {
        self.0.cause.as_deref()
    }

    /// The seconds for `Retry-After`, which every 429 and 503 has.
    fn retry_after_seconds(&self) -> Option<u64> {
        let wanted = matches!(
            self.0.kind.status(),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
        );
        wanted.then(|| seconds_up(self.0.retry_after.unwrap_or(DEFAULT_RETRY_AFTER)).max(1))
    }

    /// The members of the problem, as the client gets them.
    pub(crate) fn body(&self, instance: Option<String>) -> ProblemBody {
        let Inner {
            kind,
            detail,
            errors,
            wechat,
            ..
        } = &*self.0;
        ProblemBody {
            r#type: format!("urn:wxgate:problem:{}", kind.code()),
            title: kind.title(),
            status: kind.status().as_u16(),
            detail: detail.clone(),
            instance,
            code: kind.code(),
            errors: errors.iter().map(FieldError::from).collect(),
            wechat: wechat.clone(),
        }
    }

    /// The JSON text of [`Problem::body`].
    pub(crate) fn json(&self, request_id: &str) -> Bytes {
        serde_json::to_vec(&self.body(Some(format!("urn:request:{request_id}"))))
            .unwrap_or_default()
            .into()
    }
}

/// Whole seconds, rounded up: a client that waits that long does not return too early.
pub(crate) fn seconds_up(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.0.kind.status().into_response();
        response.headers_mut().extend(self.0.headers.clone());
        if let Some(seconds) = self.retry_after_seconds() {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, seconds.into());
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// A refusal (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemBody {
    /// The URI of the kind of problem: `urn:wxgate:problem:` and the code.
    #[schema(example = "urn:wxgate:problem:not_found")]
    r#type: String,
    /// The kind of problem in words.
    title: &'static str,
    /// The HTTP status.
    #[schema(example = 404)]
    status: u16,
    /// What happened this time and what to do next.
    detail: String,
    /// The URI of this occurrence: `urn:request:` and the value of `X-Request-Id`.
    #[schema(example = "urn:request:5f0c7a2b9d3e4f61")]
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
    #[schema(value_type = ProblemCodes)]
    code: &'static str,
    /// The fields that break their rules.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    errors: Vec<FieldError>,
    /// WeChat's answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    wechat: Option<WechatAnswer>,
}

/// One field that breaks its rule.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FieldError {
    /// JSON pointer (RFC 6901) into the body.
    #[schema(example = "/data/thing1/value")]
    pointer: String,
    /// The rule, as a sentence that says which value is right.
    #[schema(example = "must have at most 20 characters")]
    detail: String,
}

impl From<&Violation> for FieldError {
    fn from(violation: &Violation) -> Self {
        Self {
            pointer: violation.pointer.clone(),
            detail: violation.detail.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTRACT: [(&str, u16); 16] = [
        ("invalid_request", 400),
        ("unauthorized", 401),
        ("insufficient_scope", 403),
        ("not_found", 404),
        ("conflict", 409),
        ("payload_too_large", 413),
        ("unsupported_media_type", 415),
        ("validation_failed", 422),
        ("idempotency_key_reused", 422),
        ("rate_limited", 429),
        ("quota_exhausted", 429),
        ("internal", 500),
        ("wechat_rejected", 422),
        ("wechat_rejected", 502),
        ("wechat_unavailable", 503),
        ("overloaded", 503),
    ];
    // Kinds outside the contract's table: other statuses of the same codes, and the kind that only WeChat gets.
    const BESIDES: [ProblemKind; 4] = [
        ProblemKind::MethodNotAllowed,
        ProblemKind::TooSlow,
        ProblemKind::Changed,
        ProblemKind::BadSignature,
    ];

    #[test]
    fn codes_and_statuses_are_those_of_the_contract() {
        let rows = ProblemKind::ALL
            .iter()
            .filter(|kind| !BESIDES.contains(kind));
        let rows: Vec<(&str, u16)> = rows
            .map(|kind| (kind.code(), kind.status().as_u16()))
            .collect();
        assert_eq!(rows, CONTRACT);
        for kind in [ProblemKind::MethodNotAllowed, ProblemKind::TooSlow] {
            assert_eq!(kind.code(), "invalid_request");
        }
        assert_eq!(ProblemKind::Changed.code(), "conflict");
    }

    #[test]
    fn every_429_and_503_says_when_to_come_back() {
        for kind in ProblemKind::ALL {
            let response = Problem::new(*kind, "x").into_response();
            let wanted = matches!(kind.status().as_u16(), 429 | 503);
            assert_eq!(
                response.headers().contains_key(header::RETRY_AFTER),
                wanted,
                "{kind:?}"
            );
        }
        let response = Problem::unavailable("x")
            .retry_after(Duration::from_millis(1))
            .into_response();
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    }

    #[test]
    fn a_cause_is_never_told() {
        let problem = Problem::internal("password=hunter2");
        let body = String::from_utf8(problem.json("r1").to_vec()).unwrap();
        assert!(
            !body.contains("hunter2") && body.contains("\"instance\":\"urn:request:r1\""),
            "{body}"
        );
    }
}
