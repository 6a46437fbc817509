//! Access tokens: JWTs by RFC 9068, signed with Ed25519 only. Console sessions are JWTs of another kind, made the same
//! way.
//!
//! This module checks times itself, because `jsonwebtoken` reads the machine's clock.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use domain::{
    id::{KeyId, TenantId},
    scope::ScopeSet,
};
use jsonwebtoken::{Algorithm, Header, Validation};
use moka::sync::Cache;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{AuthError, TenancyError, TenancyOptions, signing::KeyRing};

/// The greatest difference between the clocks of replicas, in seconds.
const LEEWAY_SECONDS: i64 = 30;
/// The greatest length of a token in bytes. The gateway's tokens have about 600; longer ones are refused without
/// hashing.
const LONGEST: usize = 4096;
const REMEMBERED: u64 = 100_000;

/// The use of a token. Type and audience differ, so no token of one kind is accepted as the other.
#[derive(Clone, Copy)]
pub(crate) enum TokenKind {
    /// Access tokens, accepted by `/v1`.
    Access,
    /// Sessions, accepted by the console.
    Session,
}

impl TokenKind {
    fn media_type(self) -> &'static str {
        match self {
            // RFC 9068 §2.1.
            Self::Access => "at+jwt",
            Self::Session => "session+jwt",
        }
    }

    fn audience(self, options: &TenancyOptions) -> String {
        match self {
            Self::Access => options.audience.clone(),
            Self::Session => format!("{}/console", options.audience),
        }
    }
}

/// Signs and verifies the tokens of one kind.
pub(crate) struct Tokens {
    kind: TokenKind,
    issuer: String,
    audience: String,
    ttl: Duration,
    validation: Validation,
    /// Verified tokens, by SHA-256: a signature check costs a hundred times as much as a look-up.
    verified: Cache<[u8; 32], Arc<Verified>>,
}

/// The content of a verified token.
pub(crate) struct Verified {
    /// The name of the signing key.
    kid: String,
    /// The token's API key.
    pub(crate) key: KeyId,
    /// The token's scopes, valid as far as the API key still has these scopes.
    pub(crate) scopes: ScopeSet,
    expires: i64,
    not_before: Option<i64>,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    client_id: String,
    aud: String,
    exp: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nbf: Option<i64>,
    iat: i64,
    jti: String,
    scope: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
}

impl Tokens {
    pub(crate) fn new(kind: TokenKind, options: &TenancyOptions) -> Self {
        let audience = kind.audience(options);
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_issuer(&[&options.issuer]);
        validation.set_audience(&[&audience]);
        // `Claims` requires `exp`: `Validation` would not find `exp`, since serde_json keeps the text of each number.
        validation.set_required_spec_claims(&["iss", "sub", "aud"]);
        validation.validate_exp = false;
        validation.validate_nbf = false;
        Self {
            kind,
            issuer: options.issuer.clone(),
            audience,
            ttl: options.token_ttl,
            validation,
            verified: Cache::builder()
                .max_capacity(REMEMBERED)
                .time_to_live(options.token_ttl)
                .build(),
        }
    }

    /// Signs a token for `key` of `tenant`.
    pub(crate) fn sign(
        &self,
        ring: &KeyRing,
        key: KeyId,
        tenant: Option<TenantId>,
        scopes: ScopeSet,
        now: DateTime<Utc>,
    ) -> Result<String, TenancyError> {
        let keys = ring.keys();
        let signing = keys.signing(now)?;
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(self.kind.media_type().to_owned());
        header.kid = Some(signing.kid.clone());
        let client = key.to_string();
        let claims = Claims {
            iss: self.issuer.clone(),
            sub: client.clone(),
            client_id: client,
            aud: self.audience.clone(),
            exp: (now + self.ttl).timestamp(),
            nbf: None,
            iat: now.timestamp(),
            jti: format!("{:032x}", rand::random::<u128>()),
            scope: scopes.to_string(),
            tenant: tenant.map(|tenant| tenant.to_string()),
        };
        Ok(jsonwebtoken::encode(&header, &claims, &signing.key)?)
    }

    /// The content of `token`, if this gateway signed the token for this use and `now` is within the token's lifetime.
    pub(crate) async fn verify(
        &self,
        ring: &KeyRing,
        token: &str,
        now: DateTime<Utc>,
    ) -> Result<Arc<Verified>, AuthError> {
        if token.len() > LONGEST {
            return Err(AuthError::Malformed);
        }
        ring.reload_if_stale(now).await;
        let digest: [u8; 32] = Sha256::digest(token).into();
        if let Some(verified) = self.verified.get(&digest)
            && ring.keys().verifies(&verified.kid)
        {
            return verified.in_time(now);
        }
        let verified = Arc::new(self.check_signature(ring, token, now).await?);
        self.verified.insert(digest, Arc::clone(&verified));
        verified.in_time(now)
    }

    async fn check_signature(
        &self,
        ring: &KeyRing,
        token: &str,
        now: DateTime<Utc>,
    ) -> Result<Verified, AuthError> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| AuthError::Malformed)?;
        let typ = header.typ.unwrap_or_default().to_ascii_lowercase();
        let typ = typ.trim_start_matches("application/");
        if header.alg != Algorithm::EdDSA || typ != self.kind.media_type() {
            return Err(AuthError::Malformed);
        }
        let kid = header.kid.ok_or(AuthError::Malformed)?;
        let key = ring
            .verifying(&kid, now)
            .await
            .ok_or(AuthError::Malformed)?;
        let claims = jsonwebtoken::decode::<Claims>(token, &key, &self.validation);
        let claims = claims.map_err(|_| AuthError::Malformed)?.claims;
        Ok(Verified {
            kid,
            key: claims.sub.parse().map_err(|_| AuthError::Malformed)?,
            scopes: claims.scope.parse().map_err(|_| AuthError::Malformed)?,
            expires: claims.exp,
            not_before: claims.nbf,
        })
    }
}

impl Verified {
    fn in_time(self: Arc<Self>, now: DateTime<Utc>) -> Result<Arc<Self>, AuthError> {
        let now = now.timestamp();
        let early = self
            .not_before
            .is_some_and(|from| now < from.saturating_sub(LEEWAY_SECONDS));
        let late = now >= self.expires.saturating_add(LEEWAY_SECONDS);
        if early || late {
            Err(AuthError::Expired)
        } else {
            Ok(self)
        }
    }
}
