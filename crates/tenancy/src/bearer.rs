//! What every request goes through: its token becomes a caller, and the caller keeps to its rate.

use std::time::Duration;

use coord::{Decision, Quota};

use crate::{AuthError, Caller, Tenancy, addresses::Door, standing, token::Tokens};

/// A tenant with a small rate may still send a handful of requests at once.
const LEAST_BURST: u32 = 10;

impl Tenancy {
    /// Who sends `bearer`, the token that follows `Bearer` in the `Authorization` header; empty: there is none.
    pub async fn authenticate(&self, bearer: &str) -> Result<Caller, AuthError> {
        self.believe(&self.0.tokens, bearer).await
    }

    /// Who looks at the console with `session`, the token that [`Tenancy::sign_in`] gave; empty: there is none.
    pub async fn authenticate_session(&self, session: &str) -> Result<Caller, AuthError> {
        self.believe(&self.0.sessions, session).await
    }

    async fn believe(&self, tokens: &Tokens, token: &str) -> Result<Caller, AuthError> {
        match self.identify(tokens, token).await {
            Err(error) => Err(self.count_bad_token(error).await),
            identified => identified,
        }
    }

    /// Counts a token that is no good against the address that sent it. Returns what is said of it: where there were
    /// too many, that.
    pub(crate) async fn count_bad_token(&self, error: AuthError) -> AuthError {
        if matches!(error, AuthError::Unavailable | AuthError::TooOften(_)) {
            return error;
        }
        let counted = self.has_failed(Door::Token).await;
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
        standing::check(&credential, now)?;
        let scopes = token.scopes.intersection(credential.key.scopes);
        Ok(Caller::of(&credential, scopes))
    }

    /// Counts a request of `caller` against its tenant's requests per second; an operator's key has its own count.
    /// One second's worth may come at once. While the shared count is away, this replica counts for itself.
    pub async fn admit(&self, caller: &Caller) -> Decision {
        let rate = caller.limits.requests_per_second;
        let quota = Quota::new(rate, Duration::from_secs(1), rate.max(LEAST_BURST));
        let key = match caller.tenant {
            Some(tenant) => format!("requests/{tenant}"),
            None => format!("requests/{}", caller.key),
        };
        self.count(&key, quota).await
    }
}

/// What is said when nothing can count: counting in process does not fail.
pub(crate) const OPEN: Decision = Decision {
    allowed: true,
    limit: LEAST_BURST,
    remaining: LEAST_BURST,
    reset_after: Duration::ZERO,
    retry_after: Duration::ZERO,
};
