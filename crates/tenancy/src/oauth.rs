//! The token endpoint: OAuth 2.0 client credentials (RFC 6749 §4.4), and the published metadata.

use std::{sync::Arc, time::Duration};

use coord::RateLimit;
use domain::{
    id::KeyId,
    scope::{ScopeSet, UnknownScope},
    secret::{AccessToken, ClientSecret},
};
use serde_json::{Value, json};
use store::{Actor, Credential, Key, Origin, SigningKey};

use crate::{
    AuthError, OauthError, Tenancy, TenancyError, addresses::AuthCounter, client_secret,
    key_status, token::Tokens,
};

const WRONG: &str = "the client secret is wrong, or does not belong to this client_id";

/// A new access token or console session.
#[derive(Debug)]
pub struct IssuedToken {
    /// The token.
    pub access_token: AccessToken,
    /// The token's lifetime in seconds.
    pub expires_in: u64,
    /// The token's scopes.
    pub scope: ScopeSet,
}

impl Tenancy {
    /// Issues an access token to the key that `secret` proves. `client_id` is optional, because the secret names the
    /// key. `scope` narrows the token's scopes; without `scope` the token has all scopes of the key.
    ///
    /// An address with too many failures is refused for a while. The audit log records failures of a key that exists.
    pub async fn issue_token(
        &self,
        client_id: Option<&str>,
        secret: &ClientSecret,
        scope: Option<&str>,
    ) -> Result<IssuedToken, OauthError> {
        let (_, credential) = self.proven(client_id, secret).await?;
        let scope = narrow(credential.key.scopes, scope)?;
        self.signed(&self.0.tokens, &credential.key, scope)
    }

    /// Starts a console session for the key that `secret` proves. The session has the scopes that the key and
    /// `readable` share, and is accepted by the console only. Failures count as those of [`Tenancy::issue_token`] do.
    pub async fn sign_in(
        &self,
        secret: &ClientSecret,
        readable: ScopeSet,
    ) -> Result<IssuedToken, OauthError> {
        let (_, credential) = self.proven(None, secret).await?;
        let scope = credential.key.scopes.intersection(readable);
        if scope.is_empty() {
            return Err(OauthError::InvalidScope(format!(
                "this key has no scope for reading: use a key with a scope of {readable}"
            )));
        }
        self.signed(&self.0.sessions, &credential.key, scope)
    }

    fn signed(
        &self,
        tokens: &Tokens,
        key: &Key,
        scope: ScopeSet,
    ) -> Result<IssuedToken, OauthError> {
        let inner = &*self.0;
        let now = inner.coord.clock().now();
        let signed = tokens.sign(&inner.ring, key.id, key.tenant, scope, now);
        let access_token = signed.map_err(|error| {
            tracing::error!(%error, "cannot sign a token");
            OauthError::Unavailable
        })?;
        let expires_in = inner.options.token_ttl.as_secs();
        Ok(IssuedToken {
            access_token: AccessToken::new(access_token),
            expires_in,
            scope,
        })
    }

    /// The key that `secret` proves, if the key is in force. An address with too many failures is refused for a while,
    /// and the audit log records failures of a key that exists.
    pub(crate) async fn proven(
        &self,
        client_id: Option<&str>,
        secret: &ClientSecret,
    ) -> Result<(KeyId, Arc<Credential>), OauthError> {
        let claimed = client_secret::key_of(secret);
        self.admit_attempt(claimed)
            .await
            .map_err(OauthError::TooOften)?;
        self.0.ring.look(self.0.coord.clock().now()).await;
        match self.check_secret(client_id, secret).await {
            Ok(proven) => {
                self.record_success(proven.0).await;
                Ok(proven)
            }
            Err(OauthError::InvalidClient(why)) => {
                self.count_failure(AuthCounter::Secret)
                    .await
                    .map_err(OauthError::TooOften)?;
                let named = client_id.and_then(|id| id.parse().ok());
                if let Some(key) = claimed.or(named) {
                    self.note_failure(key, why).await;
                }
                Err(OauthError::InvalidClient(why))
            }
            Err(error) => Err(error),
        }
    }

    /// Records a failure in the audit log, a few a minute for each key: an attack must not fill the log.
    async fn note_failure(&self, key: KeyId, why: &str) {
        let inner = &*self.0;
        let lines = RateLimit::new(10, Duration::from_mins(1), 10);
        let Ok(Some(credential)) = inner.standings.get(key).await else {
            return;
        };
        if !self
            .count(&format!("failure-lines/{key}"), lines)
            .await
            .allowed
        {
            return;
        }
        let tenant = credential.key.tenant;
        let actor = tenant.map_or(Actor::Operator(key), |_| Actor::Key(key));
        let origin = Origin {
            actor,
            ..self.1.clone()
        };
        let line = origin.was_refused("token.issue", &key, &why);
        let now = inner.coord.clock().now();
        let written = match tenant {
            Some(tenant) => inner.store.tenant(tenant).append_audit(line, now).await,
            None => inner.store.platform().append_audit(line, now).await,
        };
        if let Err(error) = written {
            tracing::error!(%key, %error, "a failed authentication is not in the audit log");
        }
    }

    async fn check_secret(
        &self,
        client_id: Option<&str>,
        secret: &ClientSecret,
    ) -> Result<(KeyId, Arc<Credential>), OauthError> {
        let inner = &*self.0;
        if secret.expose().is_empty() {
            return Err(OauthError::InvalidRequest("client_secret is missing"));
        }
        let key = client_secret::key_of(secret).ok_or(OauthError::InvalidClient(
            "the client secret is mistyped or cut off: a client secret begins with wxg_ and has 69 characters",
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
        if !client_secret::matches(&inner.pepper, secret, &credential.secret_hash) {
            return Err(OauthError::InvalidClient(WRONG));
        }
        let now = inner.coord.clock().now();
        key_status::check(&credential, now).map_err(refusal)?;
        Ok((key, credential))
    }

    /// The public keys that verify tokens, as a JWK set.
    pub async fn jwks(&self) -> Value {
        self.0.ring.look(self.0.coord.clock().now()).await;
        self.0.ring.keys().jwks().clone()
    }

    /// Creates a successor of the key that signs access tokens: published at once, signing ten minutes later. Issued
    /// tokens stay valid until they expire.
    pub async fn rotate_signing_key(&self) -> Result<SigningKey, TenancyError> {
        let now = self.0.coord.clock().now();
        self.0.ring.rotate(&self.1, now).await
    }

    /// Replaces all keys that sign access tokens by a new key, at once: for stolen keys, with which a thief can sign
    /// tokens. Every replica refuses all tokens issued before within 5 seconds, and their holders fetch new tokens.
    pub async fn replace_signing_keys(&self) -> Result<SigningKey, TenancyError> {
        let now = self.0.coord.clock().now();
        self.0.ring.replace(&self.1, now).await
    }

    /// The keys that sign or verify, newest first.
    pub async fn signing_keys(&self) -> Result<Vec<SigningKey>, TenancyError> {
        let now = self.0.coord.clock().now();
        Ok(self.0.store.platform().signing_keys(now).await?)
    }

    /// The metadata of the token endpoint (RFC 8414).
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
        "this key does not have all of `{wanted}`; the key has: {of_key}"
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
