//! The token endpoint: OAuth 2.0 client credentials (RFC 6749 §4.4), and what is published about it.

use std::sync::Arc;

use domain::{
    id::KeyId,
    scope::{ScopeSet, UnknownScope},
    secret::{AccessToken, ClientSecret},
};
use serde_json::{Value, json};
use store::Credential;

use crate::{AuthError, OauthError, Tenancy, client_secret, standing};

const WRONG: &str = "the client secret is wrong, or does not belong to this client_id";

/// An access token, just issued.
#[derive(Debug)]
pub struct IssuedToken {
    /// The token itself.
    pub access_token: AccessToken,
    /// How many seconds it is good for.
    pub expires_in: u64,
    /// What it may do.
    pub scope: ScopeSet,
}

impl Tenancy {
    /// Issues an access token to the key that `secret` proves. `client_id` may be left out, for the secret names
    /// its key; `scope` narrows what the token may do, and left out it may do all that the key may.
    pub async fn issue_token(
        &self,
        client_id: Option<&str>,
        secret: &ClientSecret,
        scope: Option<&str>,
    ) -> Result<IssuedToken, OauthError> {
        let (key, credential) = self.proven(client_id, secret).await?;
        let inner = &*self.0;
        let now = inner.coord.clock().now();
        let scope = narrow(credential.key.scopes, scope)?;
        let signed = inner
            .tokens
            .sign(&inner.ring, key, credential.key.tenant, scope, now);
        let access_token = signed.map_err(|error| {
            tracing::error!(%error, "cannot sign an access token");
            OauthError::Unavailable
        })?;
        let expires_in = inner.options.token_ttl.as_secs();
        Ok(IssuedToken {
            access_token: AccessToken::new(access_token),
            expires_in,
            scope,
        })
    }

    /// The key that `secret` proves, if it may come in now.
    pub(crate) async fn proven(
        &self,
        client_id: Option<&str>,
        secret: &ClientSecret,
    ) -> Result<(KeyId, Arc<Credential>), OauthError> {
        let inner = &*self.0;
        if secret.expose().is_empty() {
            return Err(OauthError::InvalidRequest("client_secret is missing"));
        }
        let key = client_secret::key_of(secret).ok_or(OauthError::InvalidClient(
            "the client secret is mistyped or cut off: it begins with wxg_ and has 69 characters",
        ))?;
        if client_id.is_some_and(|id| id != key.to_string()) {
            return Err(OauthError::InvalidClient(WRONG));
        }
        let credential = inner
            .standings
            .get(key)
            .await
            .map_err(|_| OauthError::Unavailable)?;
        let credential = credential.ok_or(OauthError::InvalidClient(WRONG))?;
        if !client_secret::matches(&inner.master_key, secret, &credential.secret_hash) {
            return Err(OauthError::InvalidClient(WRONG));
        }
        let now = inner.coord.clock().now();
        standing::check(&credential, now).map_err(refusal)?;
        Ok((key, credential))
    }

    /// The keys that tokens can be verified with, as a JWK set.
    pub fn jwks(&self) -> Value {
        self.0.ring.keys().jwks().clone()
    }

    /// What the token endpoint can do (RFC 8414).
    pub fn metadata(&self) -> Value {
        let issuer = &self.0.options.issuer;
        json!({
            "issuer": issuer,
            "token_endpoint": format!("{issuer}/oauth/token"),
            "jwks_uri": format!("{issuer}/.well-known/jwks.json"),
            "scopes_supported": ScopeSet::all().iter().map(domain::scope::Scope::as_str).collect::<Vec<_>>(),
            "response_types_supported": [],
            "grant_types_supported": ["client_credentials"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            "service_documentation": format!("{issuer}/docs"),
        })
    }
}

fn narrow(of_key: ScopeSet, asked: Option<&str>) -> Result<ScopeSet, OauthError> {
    let asked = asked.unwrap_or_default();
    let wanted: ScopeSet = asked
        .parse()
        .map_err(|error: UnknownScope| OauthError::InvalidScope(error.to_string()))?;
    if wanted.is_empty() {
        return Ok(of_key);
    }
    if of_key.includes(wanted) {
        return Ok(wanted);
    }
    Err(OauthError::InvalidScope(format!(
        "this key does not have all of `{wanted}`; it has: {of_key}"
    )))
}

fn refusal(error: AuthError) -> OauthError {
    match error {
        AuthError::Suspended => {
            OauthError::InvalidClient("the tenant is suspended: ask the operator of the gateway")
        }
        AuthError::Unavailable => OauthError::Unavailable,
        _ => OauthError::InvalidClient("the key was revoked or has expired: ask for a new key"),
    }
}
