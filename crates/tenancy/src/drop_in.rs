//! Authentication of clients that use the gateway as if the gateway were WeChat.

use domain::{
    app::AppId,
    secret::{AccessToken, ClientSecret},
};

use crate::{
    AuthError, Caller, OauthError, Tenancy, TenancyError, addresses::AuthCounter, key_status,
};

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
        inner.drop_in.sign(&inner.ring, caller.key, appid, now)
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
        let Some(verified) = inner.drop_in.verify(&inner.ring, token, now).await? else {
            // The issue time is not verified, so the token may be forged: the token counts as a bad one.
            let counted = self.count_failure(AuthCounter::Token).await;
            return Err(counted
                .err()
                .map_or(AuthError::Unavailable, AuthError::TooOften));
        };
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
}
