//! The options of the tenancy.

use std::time::Duration;

/// The claims and lifetime of access tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenancyOptions {
    /// The `iss` of tokens: the gateway's public URL, without a slash at the end.
    pub issuer: String,
    /// The `aud` of tokens.
    pub audience: String,
    /// The lifetime of a token.
    pub token_ttl: Duration,
}

impl TenancyOptions {
    /// The options of a gateway with the public URL `public_url`: issuer and audience are that URL, the lifetime is 15
    /// minutes.
    pub fn at(public_url: &str) -> Self {
        let url = public_url.trim_end_matches('/').to_owned();
        Self {
            issuer: url.clone(),
            audience: url,
            token_ttl: Duration::from_mins(15),
        }
    }
}
