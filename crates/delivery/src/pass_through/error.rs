//! Why a call has no answer.

use wechat::ForwardError;

use crate::apps::AppError;

/// Why a call was not passed through, or has no answer.
#[derive(Debug, thiserror::Error)]
pub enum PassThroughError {
    /// The app is not the tenant's, or has no token.
    #[error(transparent)]
    App(AppError),
    /// WeChat refuses fresh tokens too, and has done nothing.
    #[error("WeChat refuses the app's access token, and a fresh access token too")]
    TokenRefused,
    /// WeChat refuses the call because of a credential although the app's token is valid, and has done nothing.
    #[error("WeChat accepts the app's access token and refuses another credential of the call")]
    CredentialRefused,
    /// WeChat refuses the app's AppSecret.
    #[error("WeChat refuses the AppSecret that the gateway has for the app")]
    SecretRefused,
    /// The AppSecret cannot be read now.
    #[error("the AppSecret of the app cannot be read at the moment")]
    NoSecret,
    /// The maximum number of calls is in progress.
    #[error("too many forwarded calls are in progress")]
    Full,
    /// The call did not reach WeChat, or the outcome is unknown.
    #[error(transparent)]
    Forward(ForwardError),
}
