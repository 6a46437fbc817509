//! Access tokens: JWTs by RFC 9068, signed with Ed25519 and with nothing else. Sessions of the console are tokens of
//! the same making and of a kind of their own.
//!
//! Time is checked here and not by `jsonwebtoken`, which reads the machine's clock.

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

/// How far the clocks of replicas may differ.
const LEEWAY_SECONDS: i64 = 30;
/// Ours have about 600 bytes. Longer ones are not worth a hash.
const LONGEST: usize = 4096;
const REMEMBERED: u64 = 100_000;

/// What tokens are for. Those of one kind open no door of the other: type and audience differ.
#[derive(Clone, Copy)]
pub(crate) enum TokenKind {
    /// Access tokens, which open `/v1`.
    Access,
    /// Sessions, which open the pages of the console.
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

/// Signs and believes the tokens of one kind.
pub(crate) struct Tokens {
    kind: TokenKind,
    issuer: String,
    audience: String,
    ttl: Duration,
    validation: Validation,
    /// Tokens that were verified, by their SHA-256: a signature costs a hundred times a look-up.
    verified: Cache<[u8; 32], Arc<Verified>>,
}

/// What a verified token says.
pub(crate) struct Verified {
    /// The key that signed it.
    kid: String,
    /// Its key.
    pub(crate) key: KeyId,
    /// What it may do, if its key still may.
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
        // `exp` is required by `Claims`: `Validation` would not find it, since serde_json keeps the text of each number.
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

    /// What `token` says, if this gateway signed it for itself and its time is now.
    pub(crate) async fn verify(
        &self,
        ring: &KeyRing,
        token: &str,
        now: DateTime<Utc>,
    ) -> Result<Arc<Verified>, AuthError> {
        if token.len() > LONGEST {
            return Err(AuthError::Malformed);
        }
        ring.keep_up(now).await;
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
