//! Why the onboarding desk turns somebody away.

use std::time::Duration;

use broker::BrokerError;
use chrono::{DateTime, Utc};
use domain::violation::Violation;
use store::StoreError;

use crate::no_token;

/// Why the desk refuses.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppError {
    /// The appid is registered already, perhaps by another tenant.
    #[error("this appid is registered already: an appid belongs to one tenant")]
    Taken,
    /// The tenant has no such app.
    #[error("there is no such app")]
    NotFound,
    /// It is no longer what the caller knew.
    #[error("the app was changed meanwhile: read it again")]
    Changed,
    /// Fields that are wrong.
    #[error("{} fields are wrong", .0.len())]
    Invalid(Vec<Violation>),
    /// WeChat gives no token for this app and secret.
    #[error("{advice}")]
    Wechat {
        /// Its code.
        errcode: i64,
        /// Its words.
        errmsg: String,
        /// Its request id.
        rid: Option<String>,
        /// What that means and what to do.
        advice: String,
        /// Whether it refuses what the app's owner gave: the AppSecret, the IP list, the account. Only the owner can repair that.
        by_its_owner: bool,
    },
    /// WeChat does not answer now.
    #[error("WeChat does not answer: {detail}")]
    WechatUnavailable {
        /// When to try again.
        retry_after: Duration,
        /// What happened.
        detail: String,
    },
    /// The gateway itself holds back, to stay within what WeChat grants the app.
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
    /// The database answers what it should not, or a secret does not open.
    #[error("{0}")]
    Broken(String),
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

/// Why there is no token, for whoever asked for it.
pub(crate) fn refusal(error: &BrokerError, now: DateTime<Utc>) -> AppError {
    match error {
        BrokerError::UnknownApp => AppError::NotFound,
        _ if error.is_own_limit() => AppError::TooOften {
            retry_after: no_token::retry_after(error, now),
            detail: error.to_string(),
        },
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
