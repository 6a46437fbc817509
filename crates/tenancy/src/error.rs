//! The errors of this crate.

use std::time::Duration;

use domain::{scope::ScopeSet, seal::OpenError, violation::Violation};
use store::{MAX_KEYS, NewKeyError, StoreError};

/// Why creating, reading or changing a tenant or key failed, or why [`Tenancy::start`](crate::Tenancy::start) failed.
#[derive(Debug, thiserror::Error)]
pub enum TenancyError {
    /// Fields of the request break rules.
    #[error("{}", sentence(.0))]
    Invalid(Vec<Violation>),
    /// The caller asked for a key with scopes that the caller does not have.
    #[error("a key cannot have scopes that the creating key does not have: {0}")]
    Escalation(ScopeSet),
    /// The tenant has reached the maximum of keys in force.
    #[error(
        "the tenant has {MAX_KEYS} active keys, the most that a tenant may have: revoke a key that is not needed any more"
    )]
    TooManyKeys,
    /// The key that creates another key was revoked during the request.
    #[error("{}", AuthError::Revoked)]
    MakerRevoked,
    /// The named object does not exist, or not for this tenant.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// The configured master key does not open what this database seals.
    #[error("a sealed value of this database cannot be decrypted: {0}")]
    MasterKey(#[from] OpenError),
    /// The cryptographic library returned an error.
    #[error("the key that signs access tokens cannot be used ({0})")]
    Crypto(String),
    /// The database failed.
    #[error(transparent)]
    Store(StoreError),
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

/// Why the gateway refuses a bearer token. All but [`AuthError::Missing`], [`AuthError::TooOften`] and
/// [`AuthError::Unavailable`] are `invalid_token` of RFC 6750 §3.1.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum AuthError {
    /// The request has no token.
    #[error("send `Authorization: Bearer TOKEN`, with a token from POST /oauth/token")]
    Missing,
    /// This gateway did not sign the token for this use, or the token was altered.
    #[error(
        "the token is not an access token of this gateway: get an access token from POST /oauth/token"
    )]
    Malformed,
    /// The token has expired, or is not valid yet.
    #[error("the access token has expired: get a new access token from POST /oauth/token")]
    Expired,
    /// The token's key was revoked, has expired or does not exist.
    #[error("the key of this access token was revoked or has expired: ask for a new key")]
    Revoked,
    /// The token's tenant is suspended.
    #[error("the tenant of this access token is suspended: ask the operator of the gateway")]
    Suspended,
    /// The address sent too many bad tokens; the address may try again after this time.
    #[error(
        "too many requests from this address had no valid access token: wait as long as Retry-After says"
    )]
    TooOften(Duration),
    /// The database has been down for so long that the last known standing does not count any more.
    #[error("the gateway cannot check credentials at the moment: try again later")]
    Unavailable,
}

/// Why the gateway issues no access token, in the terms of RFC 6749 §5.2.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum OauthError {
    /// The client is unknown, revoked, expired or suspended, or the client secret is wrong.
    #[error("{0}")]
    InvalidClient(&'static str),
    /// A scope does not exist, or the key does not have the scope.
    #[error("{0}")]
    InvalidScope(String),
    /// A required parameter is missing.
    #[error("{0}")]
    InvalidRequest(&'static str),
    /// The address sent too many requests, or too many that failed; the address may try again after this time.
    #[error(
        "too many requests for tokens from this address, or too many that failed: wait as long as Retry-After says, and keep an access token until it expires"
    )]
    TooOften(Duration),
    /// The gateway cannot check credentials at the moment.
    #[error("the gateway cannot check credentials at the moment: try again later")]
    Unavailable,
}

impl OauthError {
    /// The `error` of the answer. RFC 6749 §5.2 has no code for an outage or for a rate limit; the code for an outage
    /// is the one of §4.1.2.1.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidClient(_) => "invalid_client",
            Self::InvalidScope(_) => "invalid_scope",
            Self::InvalidRequest(_) => "invalid_request",
            Self::TooOften(_) => "rate_limited",
            Self::Unavailable => "temporarily_unavailable",
        }
    }

    /// The `error_description` of the answer, with only the characters that RFC 6749 allows there.
    pub fn description(&self) -> String {
        let legal = |c: char| matches!(c, ' ' | '!' | '#'..='[' | ']'..='~');
        self.to_string().chars().filter(|c| legal(*c)).collect()
    }
}
