//! The checks of every request: authentication of the token, and the rate limit of the caller.

use std::time::Duration;

use coord::{Decision, RateLimit};

use crate::{AuthError, Caller, Tenancy, addresses::AuthCounter, key_status, token::Tokens};

/// The smallest burst: a tenant with a low rate may still send ten requests at once.
const LEAST_BURST: u32 = 10;

impl Tenancy {
    /// The caller that sends `bearer`, the token after `Bearer` in the `Authorization` header; empty: the request has
    /// no token.
    pub async fn authenticate(&self, bearer: &str) -> Result<Caller, AuthError> {
        self.believe(&self.0.tokens, bearer).await
    }

    /// The caller of the console session `session`, a token from [`Tenancy::sign_in`]; empty: the request has no
    /// session.
    pub async fn authenticate_session(&self, session: &str) -> Result<Caller, AuthError> {
        self.believe(&self.0.sessions, session).await
    }

    async fn believe(&self, tokens: &Tokens, token: &str) -> Result<Caller, AuthError> {
        match self.identify(tokens, token).await {
            Err(error) => Err(self.count_bad_token(error).await),
            identified => identified,
        }
    }

    /// Counts a bad token against the address of the request. Returns the error to answer: `error`, or
    /// [`AuthError::TooOften`] after too many bad tokens.
    pub(crate) async fn count_bad_token(&self, error: AuthError) -> AuthError {
        if matches!(error, AuthError::Unavailable | AuthError::TooOften(_)) {
            return error;
        }
        let counted = self.count_failure(AuthCounter::Token).await;
        counted.err().map_or(error, AuthError::TooOften)
    }

    async fn identify(&self, tokens: &Tokens, token: &str) -> Result<Caller, AuthError> {
        let inner = &*self.0;
        if token.is_empty() {
            return Err(AuthError::Missing);
        }
        let now = inner.coord.clock().now();
        let token = tokens.verify(&inner.ring, token, now).await?;
        let credential = inner
            .standings
            .get(token.key)
            .await?
            .ok_or(AuthError::Revoked)?;
        key_status::check(&credential, now)?;
        let scopes = token.scopes.intersection(credential.key.scopes);
        Ok(Caller::of(&credential, scopes))
    }

    /// Counts a request of `caller` against the tenant's requests per second; each operator key has a separate count.
    /// The requests of one second may come at once. While the shared count is unavailable, this replica counts alone.
    pub async fn admit(&self, caller: &Caller) -> Decision {
        let rate = caller.limits.requests_per_second;
        let quota = RateLimit::new(rate, Duration::from_secs(1), rate.max(LEAST_BURST));
        let key = match caller.tenant {
            Some(tenant) => format!("requests/{tenant}"),
            None => format!("requests/{}", caller.key),
        };
        self.count(&key, quota).await
    }
}

/// The decision where even the in-process count fails, which does not happen.
pub(crate) const OPEN: Decision = Decision {
    allowed: true,
    limit: LEAST_BURST,
    remaining: LEAST_BURST,
    reset_after: Duration::ZERO,
    retry_after: Duration::ZERO,
};
