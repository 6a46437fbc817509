//! Why something about identity did not work.

use std::time::Duration;

use domain::{scope::ScopeSet, seal::OpenError, violation::Violation};
use store::{MOST_KEYS, NewKeyError, StoreError};

/// Why a tenant or key could not be made, read or changed, or why tenancy could not start.
#[derive(Debug, thiserror::Error)]
pub enum TenancyError {
    /// Fields of the request break rules.
    #[error("{}", sentence(.0))]
    Invalid(Vec<Violation>),
    /// A caller would hand out scopes that it does not have itself.
    #[error("a key cannot be given scopes that its maker does not have: {0}")]
    Escalation(ScopeSet),
    /// The tenant has as many keys in force as it may have.
    #[error(
        "the tenant has {MOST_KEYS} keys in force, as many as it may have: revoke one that is not needed any more"
    )]
    TooManyKeys,
    /// The key that asks for another was revoked meanwhile.
    #[error("{}", AuthError::Revoked)]
    MakerRevoked,
    /// There is no such thing here.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// The configured master key does not open what this database seals.
    #[error("what this database seals does not open: {0}")]
    MasterKey(#[from] OpenError),
    /// The cryptographic library refused.
    #[error("the key that signs access tokens cannot be used ({0})")]
    Crypto(String),
    /// The database did not do it.
    #[error(transparent)]
    Store(StoreError),
}

/// What a caller may make of a [`TenancyError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TenancyErrorKind {
    /// The request must change.
    Invalid,
    /// The caller may not do this.
    Forbidden,
    /// It cannot be as things stand.
    Conflict,
    /// There is nothing there, or nothing that the caller may see.
    NotFound,
    /// Trying again may help.
    Unavailable,
    /// Only an operator can help.
    Broken,
}

impl TenancyError {
    /// The kind of failure.
    pub fn kind(&self) -> TenancyErrorKind {
        match self {
            Self::Invalid(_) => TenancyErrorKind::Invalid,
            Self::Escalation(_) | Self::MakerRevoked => TenancyErrorKind::Forbidden,
            Self::TooManyKeys => TenancyErrorKind::Conflict,
            Self::NotFound(_) => TenancyErrorKind::NotFound,
            Self::Store(StoreError::Unavailable(_)) => TenancyErrorKind::Unavailable,
            Self::Store(_) | Self::MasterKey(_) | Self::Crypto(_) => TenancyErrorKind::Broken,
        }
    }
}

impl From<StoreError> for TenancyError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound(what) => Self::NotFound(what),
            other => Self::Store(other),
        }
    }
}

impl From<NewKeyError> for TenancyError {
    fn from(error: NewKeyError) -> Self {
        match error {
            NewKeyError::Full => Self::TooManyKeys,
            NewKeyError::MakerRevoked => Self::MakerRevoked,
            NewKeyError::Store(error) => error.into(),
        }
    }
}

impl From<jsonwebtoken::errors::Error> for TenancyError {
    fn from(error: jsonwebtoken::errors::Error) -> Self {
        Self::Crypto(error.to_string())
    }
}

fn sentence(violations: &[Violation]) -> String {
    let each = violations
        .iter()
        .map(|violation| format!("{}: {}", violation.pointer, violation.detail));
    each.collect::<Vec<_>>().join("; ")
}

/// Why a bearer token is not accepted. All but [`AuthError::Missing`], [`AuthError::TooOften`] and
/// [`AuthError::Unavailable`] are `invalid_token` of RFC 6750 §3.1.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum AuthError {
    /// There is none.
    #[error("send `Authorization: Bearer TOKEN`, with a token from POST /oauth/token")]
    Missing,
    /// Not a token that this gateway signed for itself, or changed on the way.
    #[error("this is no access token of this gateway: get one from POST /oauth/token")]
    Malformed,
    /// Its time is over, or has not come.
    #[error("the access token has expired: get a new one from POST /oauth/token")]
    Expired,
    /// Its key was revoked, has expired or is gone.
    #[error("the key of this access token was revoked or has expired: ask for a new key")]
    Revoked,
    /// Its tenant is suspended.
    #[error("the tenant of this access token is suspended: ask the operator of the gateway")]
    Suspended,
    /// Too many tokens from the same address were no good.
    #[error(
        "too many requests from this address had no good access token: wait as long as Retry-After says"
    )]
    TooOften(Duration),
    /// The database has been away for too long to tell.
    #[error("the gateway cannot check credentials just now: try again in a moment")]
    Unavailable,
}

/// Why no access token is issued, in the terms of RFC 6749 §5.2.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum OauthError {
    /// The client is unknown, its secret is wrong, or it may not come in any more.
    #[error("{0}")]
    InvalidClient(&'static str),
    /// A scope that does not exist, or that the key does not have.
    #[error("{0}")]
    InvalidScope(String),
    /// Something that must be there is missing.
    #[error("{0}")]
    InvalidRequest(&'static str),
    /// Too many requests from the same address, or too many that failed.
    #[error(
        "too many requests for tokens from this address, or too many that failed: wait as long as Retry-After says, and keep an access token until it expires"
    )]
    TooOften(Duration),
    /// The credentials cannot be checked just now.
    #[error("the gateway cannot check credentials just now: try again in a moment")]
    Unavailable,
}

impl OauthError {
    /// The `error` of the answer. RFC 6749 §5.2 has no word for an outage nor for haste; the one
    /// for an outage is that of §4.1.2.1.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidClient(_) => "invalid_client",
            Self::InvalidScope(_) => "invalid_scope",
            Self::InvalidRequest(_) => "invalid_request",
            Self::TooOften(_) => "rate_limited",
            Self::Unavailable => "temporarily_unavailable",
        }
    }

    /// The `error_description` of the answer, in the characters that RFC 6749 allows there.
    pub fn description(&self) -> String {
        let legal = |c: char| matches!(c, ' ' | '!' | '#'..='[' | ']'..='~');
        self.to_string().chars().filter(|c| legal(*c)).collect()
    }
}
