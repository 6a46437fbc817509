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
use domain::{
    app::AppId,
    id::KeyId,
    secret::{AccessToken, ClientSecret},
};
use jsonwebtoken::{Algorithm, Header, Validation};
use moka::sync::Cache;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    AuthError, Caller, OauthError, Tenancy, TenancyError, TenancyOptions, addresses::AuthCounter,
    key_status,
};

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

struct VerifiedDropIn {
    /// The name of the signing key.
    kid: String,
    key: KeyId,
    appid: AppId,
    expires: i64,
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
}

impl Tenancy {
    /// The caller that `secret` proves, if the key is in force.
    pub async fn prove(&self, secret: &ClientSecret) -> Result<Caller, OauthError> {
        let (_, credential) = self.proven(None, secret).await?;
        Ok(Caller::of(&credential, credential.key.scopes))
    }

    /// A token with which `caller` acts as the app until a little more than 7200 s from now. This function does not
    /// check that the app belongs to the caller's tenant; the code that calls this function must.
    pub fn issue_drop_in_token(
        &self,
        caller: &Caller,
        appid: &AppId,
    ) -> Result<AccessToken, TenancyError> {
        let inner = &*self.0;
        let now = inner.coord.clock().now();
        let keys = inner.ring.keys();
        let signing = keys.signing(now)?;
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(TYPE.to_owned());
        header.kid = Some(signing.kid.clone());
        let claims = DropInClaims {
            sub: caller.key.to_string(),
            aud: inner.drop_in.audience.clone(),
            exp: (now + LIFE).timestamp(),
            iat: now.timestamp(),
            jti: format!("{:016x}", rand::random::<u64>()),
            appid: appid.to_string(),
        };
        let token = jsonwebtoken::encode(&header, &claims, &signing.key)?;
        Ok(AccessToken::new(token))
    }

    /// The caller that sends `token`, and the app that the token is for.
    ///
    /// A token that was issued a moment ago and whose signing key is unknown to this replica is
    /// [`AuthError::Unavailable`], not [`AuthError::Malformed`]: on the second, clients fetch another token at once,
    /// for ever. An address that sends too many bad tokens, including tokens of this sort, gets
    /// [`AuthError::TooOften`].
    pub async fn authenticate_drop_in(&self, token: &str) -> Result<(Caller, AppId), AuthError> {
        match self.identify_drop_in(token).await {
            Err(error) => Err(self.count_bad_token(error).await),
            identified => identified,
        }
    }

    async fn identify_drop_in(&self, token: &str) -> Result<(Caller, AppId), AuthError> {
        let inner = &*self.0;
        if token.is_empty() {
            return Err(AuthError::Missing);
        }
        let now = inner.coord.clock().now();
        inner.ring.reload_if_stale(now).await;
        let verified = self.verify_drop_in(token, now).await?;
        if now.timestamp() >= verified.expires {
            return Err(AuthError::Expired);
        }
        let credential = inner
            .standings
            .get(verified.key)
            .await?
            .ok_or(AuthError::Revoked)?;
        key_status::check(&credential, now)?;
        let caller = Caller::of(&credential, credential.key.scopes);
        Ok((caller, verified.appid.clone()))
    }

    async fn verify_drop_in(
        &self,
        token: &str,
        now: DateTime<Utc>,
    ) -> Result<Arc<VerifiedDropIn>, AuthError> {
        let inner = &*self.0;
        if token.len() > LONGEST {
            return Err(AuthError::Malformed);
        }
        let digest: [u8; 32] = Sha256::digest(token).into();
        if let Some(verified) = inner.drop_in.verified.get(&digest)
            && inner.ring.keys().verifies(&verified.kid)
        {
            return Ok(verified);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| AuthError::Malformed)?;
        if header.alg != Algorithm::EdDSA || header.typ.as_deref() != Some(TYPE) {
            return Err(AuthError::Malformed);
        }
        let kid = header.kid.ok_or(AuthError::Malformed)?;
        let Some(key) = inner.ring.verifying(&kid, now).await else {
            if !is_young(token, now) {
                return Err(AuthError::Malformed);
            }
            // The issue time is not verified, so the token may be forged: the token counts as a bad one.
            let counted = self.count_failure(AuthCounter::Token).await;
            return Err(counted
                .err()
                .map_or(AuthError::Unavailable, AuthError::TooOften));
        };
        let claims = jsonwebtoken::decode::<DropInClaims>(token, &key, &inner.drop_in.validation)
            .map_err(|_| AuthError::Malformed)?
            .claims;
        let verified = Arc::new(VerifiedDropIn {
            kid,
            key: claims.sub.parse().map_err(|_| AuthError::Malformed)?,
            appid: AppId::parse(claims.appid).map_err(|_| AuthError::Malformed)?,
            expires: claims.exp,
        });
        inner.drop_in.verified.insert(digest, Arc::clone(&verified));
        Ok(verified)
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
