//! Why an app has no token, in words for the app's owner.

use broker::BrokerError;
use chrono::{DateTime, Utc};

use crate::no_token;

/// Why a fetch brought no token.
#[derive(Clone, Debug)]
pub struct TokenFailure {
    /// A word for programs.
    pub reason: &'static str,
    /// What to do about the failure.
    pub detail: String,
    /// When the gateway asks WeChat again.
    pub retry_at: Option<DateTime<Utc>>,
}

impl TokenFailure {
    /// A text for the app's owner. Technical details of the calls to WeChat stay in the gateway's log.
    pub(crate) fn of(error: &BrokerError) -> Self {
        let detail = match error {
            BrokerError::Blocked { .. }
            | BrokerError::FetchesSpent { .. }
            | BrokerError::TooSoon { .. }
            | BrokerError::UnknownApp => error.to_string(),
            BrokerError::Later { .. } => {
                "WeChat returned no token: the gateway tries again automatically".to_owned()
            }
            BrokerError::Bug { .. } => {
                "WeChat did not understand a request of the gateway: please report this error with the appid"
                    .to_owned()
            }
        };
        Self {
            reason: no_token::reason(error),
            detail,
            retry_at: error.retry_at(),
        }
    }
}
