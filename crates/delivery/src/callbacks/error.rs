//! Why a callback is not accepted.

use std::time::Duration;

use store::StoreError;
use wechat::callback::CallbackCheckError;

/// Why a callback is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallbackError {
    /// The callback does not prove that it comes from WeChat, or concerns no tenant. Only the log says which: a
    /// stranger must not learn which apps there are, nor which check failed.
    #[error("the callback is refused: {0}")]
    Refused(CallbackRefusal),
    /// More callbacks than WeChat ever sends: for this app from this address, for unknown apps, or verified ones for
    /// one tenant. WeChat repeats its own callbacks.
    #[error("too many callbacks from this address, or for all apps of one tenant")]
    TooMany {
        /// When to come again.
        retry_after: Duration,
    },
    /// The database does not answer, or more callbacks wait than it can take. WeChat will repeat the callback.
    #[error("{0}")]
    Unavailable(String),
    /// The database gives an answer that it should not give, or a secret does not open.
    #[error("{0}")]
    Broken(String),
}

/// Why a callback is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallbackRefusal {
    /// No tenant has this app.
    #[error("there is no such app")]
    UnknownApp,
    /// The tenant has not set the app's Token.
    #[error("the app has no callback_token: set callback_token with PATCH /v1/apps/{{appid}}")]
    NoToken,
    /// The callback was signed too long ago, or in the future.
    #[error(
        "the signature is {0} s away from the gateway's time: check the gateway's clock; if the clock is right, an \
        attacker repeats an old callback"
    )]
    Stale(i64),
    /// The event happened long before the callback was signed, or after.
    #[error(
        "the time of the event is {0} s away from the time of the signature: an attacker repeats an old callback with another timestamp and nonce"
    )]
    Untimely(i64),
    /// The signature could be that of an older callback, with timestamp and nonce swapped.
    #[error(
        "the signature may belong to a callback of another time: choose the safe mode in WeChat's console, which \
        excludes this case"
    )]
    Ambiguous,
    /// The signature came with another body before.
    #[error(
        "the signature came with another body before, so an attacker has read a plain callback: choose the safe mode in WeChat's console"
    )]
    Reused,
    /// The callback is not WeChat's for this app.
    #[error(transparent)]
    Push(#[from] CallbackCheckError),
}

impl CallbackRefusal {
    /// The kind in one word, for metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::UnknownApp => "unknown_app",
            Self::NoToken => "no_token",
            Self::Stale(_) => "stale",
            Self::Untimely(_) => "untimely",
            Self::Ambiguous => "ambiguous",
            Self::Reused => "reused",
            Self::Push(refusal) => refusal.as_str(),
        }
    }
}

impl From<StoreError> for CallbackError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => Self::Unavailable(error.to_string()),
            _ => Self::Broken(error.to_string()),
        }
    }
}

impl From<CallbackRefusal> for CallbackError {
    fn from(refusal: CallbackRefusal) -> Self {
        Self::Refused(refusal)
    }
}
