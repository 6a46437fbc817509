//! Tokens for clients that use the gateway as if the gateway were WeChat: such a client has one credential, the
//! `AppSecret`, and uses the token that the gateway returns as WeChat's access token.
//!
//! These tokens are a kind of their own. Each names one app. Type and audience differ from the tokens of `/v1`, so
//! neither kind is accepted in place of the other. Drop-in tokens live longer than the 7200 s of WeChat's tokens, so
//! that a client that renews in time never meets an expired one. With a public URL of up to 80 characters a token has
//! less than 512 characters, the space that WeChat asks callers to reserve: so only the audience names the issuer. The
//! scopes of the key are looked up at each use.

use std::{sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use domain::{app::AppId, id::KeyId, secret::AccessToken};
use jsonwebtoken::{Algorithm, Header, Validation};
use moka::sync::Cache;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{AuthError, TenancyError, TenancyOptions, signing::KeyRing};

const TYPE: &str = "wechat+jwt";
/// The lifetime of a token. Callers see 7200 s; the rest allows for clock differences and for requests in transit.
const LIFE: Duration = Duration::from_mins(120 + 5);
/// How long after the issue of a token, in seconds, an unknown signing key does not make the token malformed.
const YOUNG_SECONDS: i64 = 120;
const LONGEST: usize = 2048;
const REMEMBERED: u64 = 100_000;

/// The state for signing and verifying the tokens of the drop-in surface.
pub(crate) struct DropInTokens {
    audience: String,
    validation: Validation,
    /// Verified tokens, by SHA-256.
    verified: Cache<[u8; 32], Arc<VerifiedDropIn>>,
}

/// The content of a verified token.
pub(crate) struct VerifiedDropIn {
    /// The name of the signing key.
    kid: String,
    pub(crate) key: KeyId,
    pub(crate) appid: AppId,
    pub(crate) expires: i64,
}

#[derive(Serialize, Deserialize)]
struct DropInClaims {
    sub: String,
    aud: String,
    exp: i64,
    iat: i64,
    jti: String,
    appid: String,
}

impl DropInTokens {
    pub(crate) fn new(options: &TenancyOptions) -> Self {
        let audience = format!("{}/cgi-bin", options.audience);
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_audience(&[&audience]);
        // `DropInClaims` requires `exp`: `Validation` would not find `exp`, since serde_json keeps the text of each number.
        validation.set_required_spec_claims(&["sub", "aud"]);
        validation.validate_exp = false;
        validation.validate_nbf = false;
        Self {
            audience,
            validation,
            verified: Cache::builder()
                .max_capacity(REMEMBERED)
                .time_to_live(LIFE)
                .build(),
        }
    }

    /// Signs a token with which `key` acts as the app.
    pub(crate) fn sign(
        &self,
        ring: &KeyRing,
        key: KeyId,
        appid: &AppId,
        now: DateTime<Utc>,
    ) -> Result<AccessToken, TenancyError> {
        let keys = ring.keys();
        let signing = keys.signing(now)?;
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(TYPE.to_owned());
        header.kid = Some(signing.kid.clone());
        let claims = DropInClaims {
            sub: key.to_string(),
            aud: self.audience.clone(),
            exp: (now + LIFE).timestamp(),
            iat: now.timestamp(),
            jti: format!("{:016x}", rand::random::<u64>()),
            appid: appid.to_string(),
        };
        let token = jsonwebtoken::encode(&header, &claims, &signing.key)?;
        Ok(AccessToken::new(token))
    }

    /// The content of `token`, whose lifetime may have ended. `None`: this replica does not know the signing key, and
    /// the token claims to have been issued a moment ago.
    pub(crate) async fn verify(
        &self,
        ring: &KeyRing,
        token: &str,
        now: DateTime<Utc>,
    ) -> Result<Option<Arc<VerifiedDropIn>>, AuthError> {
        if token.len() > LONGEST {
            return Err(AuthError::Malformed);
        }
        let digest: [u8; 32] = Sha256::digest(token).into();
        if let Some(verified) = self.verified.get(&digest)
            && ring.keys().verifies(&verified.kid)
        {
            return Ok(Some(verified));
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| AuthError::Malformed)?;
        if header.alg != Algorithm::EdDSA || header.typ.as_deref() != Some(TYPE) {
            return Err(AuthError::Malformed);
        }
        let kid = header.kid.ok_or(AuthError::Malformed)?;
        let Some(key) = ring.verifying(&kid, now).await else {
            return if is_young(token, now) {
                Ok(None)
            } else {
                Err(AuthError::Malformed)
            };
        };
        let claims = jsonwebtoken::decode::<DropInClaims>(token, &key, &self.validation)
            .map_err(|_| AuthError::Malformed)?
            .claims;
        let verified = Arc::new(VerifiedDropIn {
            kid,
            key: claims.sub.parse().map_err(|_| AuthError::Malformed)?,
            appid: AppId::parse(claims.appid).map_err(|_| AuthError::Malformed)?,
            expires: claims.exp,
        });
        self.verified.insert(digest, Arc::clone(&verified));
        Ok(Some(verified))
    }
}

/// Whether the token claims to have been issued a moment ago. The claim is not verified, so no access may depend on the
/// claim.
fn is_young(token: &str, now: DateTime<Utc>) -> bool {
    let claims = token.split('.').nth(1);
    let claims = claims.and_then(|part| BASE64_URL_SAFE_NO_PAD.decode(part).ok());
    let claims = claims.and_then(|json| serde_json::from_slice::<DropInClaims>(&json).ok());
    claims.is_some_and(|claims| (now.timestamp() - claims.iat).abs() < YOUNG_SECONDS)
}
