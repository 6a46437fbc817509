//! What a missing token means for a message and its app.

use std::time::Duration;

use broker::BrokerError;
use chrono::{DateTime, Utc};
use domain::{
    retry::Delay,
    verdict::{FailureCode, Verdict},
};
use wechat::Cause;

/// The verdict on a message of the app. Nothing has been sent.
pub(crate) fn verdict(error: &BrokerError, now: DateTime<Utc>) -> Verdict {
    let wait = retry_after(error, now);
    match error {
        BrokerError::Blocked { reason, .. } => Verdict::AppBlocked {
            reason: *reason,
            pause: wait,
        },
        BrokerError::Later { .. }
        | BrokerError::TooSoon { .. }
        | BrokerError::FetchesSpent { .. }
        | BrokerError::Bug { .. } => Verdict::Later(Delay::After(wait)),
        BrokerError::UnknownApp => Verdict::Rejected(FailureCode::Refused),
    }
}

/// Why the app is paused, in one word.
pub(crate) fn reason(error: &BrokerError) -> &'static str {
    match error {
        BrokerError::Blocked { reason, .. } => reason.as_str(),
        BrokerError::FetchesSpent { .. } => "token_fetches_spent",
        BrokerError::TooSoon { .. } => "too_soon",
        BrokerError::Later { .. } | BrokerError::Bug { .. } | BrokerError::UnknownApp => "no_token",
    }
}

/// WeChat's own answer, if there was one.
pub(crate) fn cause(error: &BrokerError) -> Option<&Cause> {
    match error {
        BrokerError::Blocked { cause, .. }
        | BrokerError::FetchesSpent { cause, .. }
        | BrokerError::Bug { cause, .. } => Some(cause),
        BrokerError::Later { .. } | BrokerError::TooSoon { .. } | BrokerError::UnknownApp => None,
    }
}

/// How long to wait before the broker asks WeChat again.
pub(crate) fn retry_after(error: &BrokerError, now: DateTime<Utc>) -> Duration {
    error
        .retry_at()
        .and_then(|at| (at - now).to_std().ok())
        .unwrap_or(Duration::from_secs(1))
}
