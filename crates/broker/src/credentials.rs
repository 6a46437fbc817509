//! Where the broker learns an app's secret.

use async_trait::async_trait;
use domain::{
    app::{AppId, TokenMode},
    secret::AppSecret,
};

/// What it takes to fetch an app's tokens.
#[derive(Clone, Debug)]
pub struct AppCredentials {
    /// The AppSecret.
    pub secret: AppSecret,
    /// The endpoint to ask.
    pub mode: TokenMode,
}

/// Knows the apps' secrets. Asked right before a fetch and never in between, so a changed secret is used at once.
#[async_trait]
pub trait Credentials: Send + Sync {
    /// The credentials of `appid`.
    async fn credentials(&self, appid: &AppId) -> Result<AppCredentials, CredentialsError>;
}

/// Why there are no credentials.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// No such app is registered.
    #[error("no such app is registered")]
    UnknownApp,
    /// They cannot be read now.
    #[error("the app's secret cannot be read: {0}")]
    Unavailable(String),
}
