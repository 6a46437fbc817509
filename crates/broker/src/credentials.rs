//! The source of an app's AppSecret.

use async_trait::async_trait;
use domain::{
    app::{AppId, TokenMode},
    secret::AppSecret,
};

/// What a fetch of an app's token needs.
#[derive(Clone, Debug)]
pub struct AppCredentials {
    /// The AppSecret.
    pub secret: AppSecret,
    /// The kind of token, and so the endpoint.
    pub mode: TokenMode,
}

/// The source of AppSecrets. A fetch reads the credentials just before the call, so a changed secret is used at once.
#[async_trait]
pub trait Credentials: Send + Sync {
    /// Returns the credentials of `appid`.
    async fn credentials(&self, appid: &AppId) -> Result<AppCredentials, CredentialsError>;
}

/// Why there are no credentials.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// No such app is registered.
    #[error("the app is not registered")]
    UnknownApp,
    /// The credentials cannot be read now.
    #[error("the app's secret cannot be read: {0}")]
    Unavailable(String),
}
