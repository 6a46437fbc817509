//! Errors of the onboarding of apps.

use std::time::Duration;

use broker::BrokerError;
use chrono::{DateTime, SecondsFormat, Utc};
use domain::{quota, retry::Delay, violation::Violation};
use store::StoreError;
use wechat::{
    Cause,
    codes::{self, Action, Endpoint},
};

use crate::no_token;

/// Why a request about an app is refused.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppError {
    /// The appid is registered already, perhaps by another tenant.
    #[error("this appid is registered already: an appid belongs to one tenant")]
    Taken,
    /// The tenant has no such app.
    #[error("there is no such app")]
    NotFound,
    /// The app has changed since the caller read it.
    #[error("the app has changed in the meantime: read the app again")]
    Changed,
    /// Fields that are wrong.
    #[error("{} fields are wrong", .0.len())]
    Invalid(Vec<Violation>),
    /// WeChat gives no token for this app and secret.
    #[error("{advice}")]
    Wechat {
        /// WeChat's code.
        errcode: i64,
        /// WeChat's text.
        errmsg: String,
        /// WeChat's request id.
        rid: Option<String>,
        /// What the refusal means and what to do.
        advice: String,
        /// Whether WeChat refuses data of the app's owner: the AppSecret, the IP list, the account. Only the owner can
        /// repair that.
        by_its_owner: bool,
    },
    /// WeChat grants the app no more of these calls for a while.
    #[error("{detail}")]
    WechatQuota {
        /// WeChat's code: 45009 for the day, 45011 for the minute.
        errcode: i64,
        /// WeChat's text.
        errmsg: String,
        /// WeChat's request id.
        rid: Option<String>,
        /// The span for which WeChat counts.
        span: QuotaSpan,
        /// When to try again.
        retry_after: Duration,
        /// What is used up, until when, and what to do.
        detail: String,
    },
    /// WeChat does not answer now.
    #[error("WeChat does not answer: {detail}")]
    WechatUnavailable {
        /// When to try again.
        retry_after: Duration,
        /// What happened.
        detail: String,
    },
    /// The gateway itself refuses, to stay within WeChat's limits for the app.
    #[error("{detail}")]
    TooOften {
        /// When to try again.
        retry_after: Duration,
        /// What is used up.
        detail: String,
    },
    /// The database does not answer.
    #[error("{0}")]
    Unavailable(String),
    /// The database gives an answer that it should not give, or a secret does not open.
    #[error("{0}")]
    Broken(String),
}

/// The span for which WeChat counts calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaSpan {
    /// A minute.
    Minute,
    /// A day, by the time of Shanghai.
    Day,
}

impl From<StoreError> for AppError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Taken(_) => Self::Taken,
            StoreError::NotFound(_) => Self::NotFound,
            StoreError::Changed(_) => Self::Changed,
            StoreError::Unavailable(_) | StoreError::Answered => {
                Self::Unavailable(error.to_string())
            }
            StoreError::Broken(_) | StoreError::Settings(_) => Self::Broken(error.to_string()),
        }
    }
}

/// Why there is no token, as an error for the caller.
pub(crate) fn refusal(error: &BrokerError, now: DateTime<Utc>) -> AppError {
    match error {
        BrokerError::UnknownApp => AppError::NotFound,
        _ if error.is_own_limit() => AppError::TooOften {
            retry_after: no_token::retry_after(error, now),
            detail: error.to_string(),
        },
        BrokerError::FetchesSpent { cause, retry_at } => {
            quota_refusal(cause, "token fetches", now, Some(*retry_at)).unwrap_or_else(|| {
                AppError::WechatUnavailable {
                    retry_after: no_token::retry_after(error, now),
                    detail: error.to_string(),
                }
            })
        }
        BrokerError::Blocked { cause, .. } if cause.errcode.is_some() => AppError::Wechat {
            errcode: cause.errcode.unwrap_or_default(),
            errmsg: cause.errmsg.clone(),
            rid: cause.rid.clone(),
            advice: error.advice().unwrap_or_default(),
            by_its_owner: true,
        },
        _ => AppError::WechatUnavailable {
            retry_after: no_token::retry_after(error, now),
            detail: error.to_string(),
        },
    }
}

/// WeChat's refusal of calls that WeChat counts. `what` names the calls. `None`: WeChat refuses for another reason.
/// `retry_at`: when the gateway asks again, which may be before the end of the day.
pub(crate) fn quota_refusal(
    cause: &Cause,
    what: &str,
    now: DateTime<Utc>,
    retry_at: Option<DateTime<Utc>>,
) -> Option<AppError> {
    let errcode = cause.errcode?;
    let (span, over_at) = match codes::action(errcode, Endpoint::Token)? {
        Action::QuotaSpent => (QuotaSpan::Day, quota::reset_at(now)),
        Action::Later(delay @ Delay::NextMinute) => {
            let next_minute = delay.next_try(now, 1, 0.0);
            (QuotaSpan::Minute, retry_at.unwrap_or(next_minute))
        }
        _ => return None,
    };
    let over = over_at.to_rfc3339_opts(SecondsFormat::Secs, true);
    let detail = match span {
        QuotaSpan::Day => format!(
            "WeChat says that the app's {what} of today are used up ({cause}): WeChat permits new ones at {over}; find \
             the other system that makes such calls, or clear the quota in WeChat's console"
        ),
        QuotaSpan::Minute => format!(
            "WeChat says that the app's {what} of this minute are used up ({cause}): send the request again after {over}"
        ),
    };
    Some(AppError::WechatQuota {
        errcode,
        errmsg: cause.errmsg.clone(),
        rid: cause.rid.clone(),
        span,
        retry_after: (retry_at.unwrap_or(over_at) - now)
            .to_std()
            .unwrap_or_default(),
        detail,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(errcode: i64, retry_at: Option<&str>) -> Option<(QuotaSpan, u64, String)> {
        let cause = Cause {
            errcode: Some(errcode),
            errmsg: "reach max api daily quota limit".into(),
            rid: Some("6a1f".into()),
        };
        let now = "2026-03-01T12:00:30Z".parse().unwrap();
        let retry_at = retry_at.map(|at| at.parse().unwrap());
        match quota_refusal(&cause, "token fetches", now, retry_at)? {
            AppError::WechatQuota {
                span,
                retry_after,
                detail,
                ..
            } => Some((span, retry_after.as_secs(), detail)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_spent_quota_of_token_calls_says_what_wechat_says_and_when_it_is_over() {
        let (span, wait, detail) = refused(45009, Some("2026-03-01T12:30:30Z")).unwrap();
        assert_eq!((span, wait), (QuotaSpan::Day, 1800));
        for words in [
            "45009",
            "reach max api daily quota limit",
            "6a1f",
            "2026-03-01T16:00:00Z",
        ] {
            assert!(detail.contains(words), "{detail}");
        }
        let (span, wait, detail) = refused(45011, Some("2026-03-01T12:01:10Z")).unwrap();
        assert_eq!((span, wait), (QuotaSpan::Minute, 40));
        assert!(detail.contains("2026-03-01T12:01:10Z"), "{detail}");
        assert_eq!(refused(45009, None).unwrap().1, 4 * 3600 - 30);
        assert_eq!(refused(40125, None), None);
    }
}
