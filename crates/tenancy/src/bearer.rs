//! Authentication: the token of every request.

use crate::{AuthError, Caller, Tenancy, addresses::AuthCounter, key_status, token::Tokens};

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
}
