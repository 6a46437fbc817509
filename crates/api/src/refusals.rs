//! The refusals of the crates below, as problems. Every match is exhaustive, so that a new refusal does not compile
//! until this module words the refusal.

use chrono::{DateTime, Utc};
use delivery::{
    AppError, ChangeError, DeliveryError, GrantError, QuotaSpan, SubmitError, WebhookError,
};
use domain::{
    lifecycle::{ImpossibleEvent, Status},
    violation::Violation,
};
use store::StoreError;
use tenancy::{AuthError, TenancyError};

use crate::{
    dto::time::Timestamp,
    problem::{Problem, ProblemKind, WechatAnswer},
    tags::changed,
};

impl From<Vec<Violation>> for Problem {
    fn from(errors: Vec<Violation>) -> Self {
        Self::validation_failed(errors)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => Self::unavailable(error),
            StoreError::NotFound(what) => Self::not_found(what),
            StoreError::Answered => Self::new(ProblemKind::Conflict, error.to_string()),
            StoreError::Changed(_) => changed(),
            StoreError::Taken(_) | StoreError::Broken(_) | StoreError::Settings(_) => {
                Self::internal(error)
            }
        }
    }
}

impl From<TenancyError> for Problem {
    fn from(error: TenancyError) -> Self {
        match error {
            TenancyError::Invalid(errors) => Self::validation_failed(errors),
            TenancyError::Escalation(scopes) => {
                let detail = format!(
                    "a key cannot grant scopes that the key itself does not have: leave out `{scopes}`, or use a key \
                    that has these scopes"
                );
                Self::new(ProblemKind::InsufficientScope, detail)
            }
            TenancyError::TooManyKeys => Self::new(ProblemKind::Conflict, error.to_string()),
            TenancyError::MakerRevoked => AuthError::Revoked.into(),
            TenancyError::NotFound(what) => Self::not_found(what),
            TenancyError::Store(error) => error.into(),
            TenancyError::MasterKey(_) | TenancyError::Crypto(_) => Self::internal(error),
        }
    }
}

impl From<DeliveryError> for Problem {
    fn from(error: DeliveryError) -> Self {
        match error {
            DeliveryError::NotFound(what) => Self::not_found(what),
            DeliveryError::Store(error) => error.into(),
        }
    }
}

impl From<GrantError> for Problem {
    fn from(error: GrantError) -> Self {
        match error {
            GrantError::KeyReused => Self::new(
                ProblemKind::IdempotencyKeyReused,
                ProblemKind::IdempotencyKeyReused.example(),
            ),
            GrantError::Delivery(error) => error.into(),
        }
    }
}

impl From<WebhookError> for Problem {
    fn from(error: WebhookError) -> Self {
        match error {
            WebhookError::NotFound(what) => Self::not_found(what),
            WebhookError::Invalid(errors) => Self::validation_failed(errors),
            WebhookError::TooMany | WebhookError::Disabled => {
                Self::new(ProblemKind::Conflict, error.to_string())
            }
            WebhookError::Store(error) => error.into(),
        }
    }
}

impl From<AppError> for Problem {
    fn from(error: AppError) -> Self {
        match error {
            AppError::Taken => Self::new(
                ProblemKind::Conflict,
                "the appid is registered already: GET /v1/apps shows whether the app is yours; if not, ask its owner \
                to remove the app",
            ),
            AppError::NotFound => Self::not_found("app"),
            AppError::Changed => changed(),
            AppError::Invalid(errors) => Self::validation_failed(errors),
            AppError::Wechat {
                errcode,
                errmsg,
                rid,
                advice,
                by_its_owner,
            } => {
                let kind = if by_its_owner {
                    ProblemKind::AppRejected
                } else {
                    ProblemKind::WechatRejected
                };
                Self::new(kind, advice).with_wechat(WechatAnswer {
                    errcode,
                    errmsg,
                    rid,
                })
            }
            AppError::WechatQuota {
                errcode,
                errmsg,
                rid,
                span,
                retry_after,
                detail,
            } => {
                let kind = match span {
                    QuotaSpan::Day => ProblemKind::QuotaExhausted,
                    QuotaSpan::Minute => ProblemKind::RateLimited,
                };
                let said = WechatAnswer {
                    errcode,
                    errmsg,
                    rid,
                };
                Self::new(kind, detail)
                    .with_wechat(said)
                    .retry_after(retry_after)
            }
            AppError::WechatUnavailable {
                retry_after,
                detail,
            } => {
                let words = ProblemKind::WechatUnavailable.example();
                Self::new(ProblemKind::WechatUnavailable, words)
                    .retry_after(retry_after)
                    .caused_by(detail)
            }
            AppError::TooOften {
                retry_after,
                detail,
            } => {
                let words = format!("{detail}: send the request again after Retry-After");
                Self::new(ProblemKind::RateLimited, words).retry_after(retry_after)
            }
            AppError::Unavailable(cause) => Self::unavailable(cause),
            AppError::Broken(cause) => Self::internal(cause),
        }
    }
}

/// The problem for a message that was not accepted, at `now`.
pub(crate) fn submit_refusal(error: SubmitError, now: DateTime<Utc>) -> Problem {
    match error {
        SubmitError::NoSuchApp => Problem::not_found("app"),
        SubmitError::Violations(errors) => Problem::validation_failed(errors),
        SubmitError::QuotaExhausted { reset_at } => {
            let reset = Timestamp(reset_at);
            let detail = format!(
                "the app's daily quota is used up until {reset}: send the message then, or give the message a longer ttl"
            );
            Problem::new(ProblemKind::QuotaExhausted, detail)
                .retry_after((reset_at - now).to_std().unwrap_or_default())
        }
        SubmitError::TenantQuotaExhausted { limit, reset_at } => {
            let reset = Timestamp(reset_at);
            let detail = format!(
                "the tenant's limit of {limit} messages a day is used up, independent of the quotas of its apps: send \
                 after {reset}, or ask the operator for a higher `messages_per_day`"
            );
            Problem::new(ProblemKind::QuotaExhausted, detail)
                .retry_after((reset_at - now).to_std().unwrap_or_default())
        }
        SubmitError::KeyReused => Problem::new(
            ProblemKind::IdempotencyKeyReused,
            ProblemKind::IdempotencyKeyReused.example(),
        ),
        SubmitError::Overloaded { retry_after } => {
            Problem::unavailable("too many messages wait for intake").retry_after(retry_after)
        }
        SubmitError::Unavailable(cause) => Problem::unavailable(cause),
        SubmitError::Broken(cause) => Problem::internal(cause),
    }
}

/// The problem for a message that was not canceled or not retried, at `now`.
pub(crate) fn change_refusal(error: ChangeError, now: DateTime<Utc>) -> Problem {
    match error {
        ChangeError::NotFound => Problem::not_found("message"),
        ChangeError::Refused(refusal) => Problem::new(
            ProblemKind::Conflict,
            format!("{refusal}: {}", advice(refusal)),
        ),
        ChangeError::Emptied => Problem::new(
            ProblemKind::Conflict,
            "the content of the message has been deleted, because the message is old: send a new message",
        ),
        ChangeError::Submit(error) => submit_refusal(error, now),
    }
}

/// What the client can do with a message in the status that `refusal` names.
fn advice(ImpossibleEvent { status, .. }: ImpossibleEvent) -> &'static str {
    match status {
        Status::Scheduled | Status::Queued => {
            "the gateway will send the message; POST …/cancel cancels the message"
        }
        Status::Sending => {
            "WeChat may have the message already; read the message again in a moment"
        }
        Status::Sent | Status::Delivered => {
            "WeChat has the message; send a new message if you want another one"
        }
        Status::Undelivered
        | Status::Failed
        | Status::Expired
        | Status::Canceled
        | Status::Uncertain => {
            "the message has ended and will not be sent; POST …/retry sends the message again"
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::response::IntoResponse;
    use domain::scope::{Scope, ScopeSet};
    use http::header;

    use super::*;

    /// The status, the code and `Retry-After`.
    fn answer(problem: impl Into<Problem>) -> (u16, &'static str, Option<u64>) {
        let problem = problem.into();
        let code = problem.kind().code();
        let response = problem.into_response();
        let wait = response
            .headers()
            .get(header::RETRY_AFTER)
            .map(|value| value.to_str().unwrap().parse().unwrap());
        (response.status().as_u16(), code, wait)
    }

    #[test]
    fn what_the_database_refuses() {
        assert_eq!(
            answer(StoreError::Unavailable("gone".into())),
            (503, "overloaded", Some(2))
        );
        assert_eq!(
            answer(StoreError::NotFound("app")),
            (404, "not_found", None)
        );
        assert_eq!(
            answer(StoreError::Broken("schema".into())),
            (500, "internal", None)
        );
    }

    #[test]
    fn what_tenancy_refuses() {
        let escalation = TenancyError::Escalation(ScopeSet::from_iter([Scope::AppsWrite]));
        assert_eq!(answer(escalation), (403, "insufficient_scope", None));
        assert_eq!(
            answer(TenancyError::Invalid(Vec::new())),
            (422, "validation_failed", None)
        );
        assert_eq!(answer(TenancyError::TooManyKeys), (409, "conflict", None));
        assert_eq!(
            answer(TenancyError::MakerRevoked),
            (401, "unauthorized", None)
        );
        assert_eq!(
            answer(TenancyError::Store(StoreError::Unavailable("gone".into()))),
            (503, "overloaded", Some(2))
        );
        for refused in [
            AuthError::Missing,
            AuthError::Malformed,
            AuthError::Expired,
            AuthError::Revoked,
            AuthError::Suspended,
        ] {
            assert_eq!(answer(refused), (401, "unauthorized", None));
            let challenge =
                Problem::from(refused).into_response().headers()[header::WWW_AUTHENTICATE].clone();
            let named = challenge
                .to_str()
                .unwrap()
                .contains("error=\"invalid_token\"");
            assert_eq!(named, refused != AuthError::Missing, "{challenge:?}");
        }
        assert_eq!(answer(AuthError::Unavailable), (503, "overloaded", Some(2)));
    }

    #[test]
    fn what_the_onboarding_desk_refuses() {
        let wechat = |by_its_owner| AppError::Wechat {
            errcode: 40125,
            errmsg: "invalid appsecret".into(),
            rid: None,
            advice: "set it".into(),
            by_its_owner,
        };
        let down = AppError::WechatUnavailable {
            retry_after: Duration::from_secs(30),
            detail: "connection refused".into(),
        };
        let spaced = AppError::TooOften {
            retry_after: Duration::from_millis(29_001),
            detail: "the token was replaced a moment ago".into(),
        };
        assert_eq!(answer(spaced), (429, "rate_limited", Some(30)));
        assert_eq!(answer(AppError::Taken), (409, "conflict", None));
        assert_eq!(answer(AppError::NotFound), (404, "not_found", None));
        assert_eq!(
            answer(AppError::Invalid(Vec::new())),
            (422, "validation_failed", None)
        );
        assert_eq!(answer(wechat(true)), (422, "wechat_rejected", None));
        assert_eq!(answer(wechat(false)), (502, "wechat_rejected", None));
        assert_eq!(answer(down), (503, "wechat_unavailable", Some(30)));
        assert_eq!(
            answer(AppError::Unavailable("gone".into())),
            (503, "overloaded", Some(2))
        );
    }

    #[test]
    fn what_intake_refuses() {
        let now = DateTime::UNIX_EPOCH;
        let answer = |error| answer(submit_refusal(error, now));
        let spent = SubmitError::QuotaExhausted {
            reset_at: now + Duration::from_millis(90_500),
        };
        let full = SubmitError::Overloaded {
            retry_after: Duration::from_secs(1),
        };
        assert_eq!(answer(SubmitError::NoSuchApp), (404, "not_found", None));
        assert_eq!(
            answer(SubmitError::Violations(Vec::new())),
            (422, "validation_failed", None)
        );
        assert_eq!(answer(spent), (429, "quota_exhausted", Some(91)));
        let used_up = SubmitError::TenantQuotaExhausted {
            limit: 7,
            reset_at: now + Duration::from_mins(1),
        };
        assert_eq!(answer(used_up), (429, "quota_exhausted", Some(60)));
        assert_eq!(
            answer(SubmitError::KeyReused),
            (422, "idempotency_key_reused", None)
        );
        assert_eq!(answer(full), (503, "overloaded", Some(1)));
        assert_eq!(
            answer(SubmitError::Unavailable("gone".into())),
            (503, "overloaded", Some(2))
        );
    }

    #[test]
    fn what_cannot_be_changed_is_told_with_its_status() {
        let now = DateTime::UNIX_EPOCH;
        for status in Status::ALL {
            let refusal = ImpossibleEvent {
                status,
                attempted: "be canceled",
            };
            let problem = change_refusal(ChangeError::Refused(refusal), now);
            let body = serde_json::to_value(problem.body(None)).unwrap();
            let detail = body["detail"].as_str().unwrap();
            assert!(detail.contains(status.as_str()), "{detail}");
            assert_eq!(body["code"], "conflict");
        }
        let missing = change_refusal(ChangeError::NotFound, now);
        assert_eq!(answer(missing), (404, "not_found", None));
    }
}
