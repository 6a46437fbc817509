//! Asking WeChat.

use std::time::Duration;

use domain::{
    app::{AppId, TokenMode},
    secret::AppSecret,
};
use wechat::FetchedToken;

use crate::{
    AppCredentials, BrokerError, CredentialsError,
    broker::Inner,
    ledger::Ledger,
    memory::{Goal, Held, Memory, Reason},
    token::Token,
};

/// How long a legacy token's refresh is put off while replicas cannot agree.
const LATER_TOGETHER: Duration = Duration::from_secs(30);

/// One turn at WeChat for one app.
pub(crate) struct Fetch<'a> {
    inner: &'a Inner,
    appid: &'a AppId,
    memory: &'a Memory,
    ledger: Ledger,
}

impl<'a> Fetch<'a> {
    /// Opens the day's account.
    pub(crate) async fn begin(inner: &'a Inner, appid: &'a AppId, memory: &'a Memory) -> Self {
        let now = inner.coord.clock().now();
        let others = inner.shared.ledger(appid).await.unwrap_or_default();
        Self {
            inner,
            appid,
            memory,
            ledger: memory.ledger().merge(others, now),
        }
    }

    /// Brings what is wanted. `alone` means that the other replicas could not be asked.
    pub(crate) async fn bring(mut self, goal: &Goal, alone: bool) -> Result<Held, BrokerError> {
        let AppCredentials { secret, mode } = self.credentials().await?;
        match (&goal.reason, mode) {
            // A legacy fetch kills the token that the other replicas use, five minutes on. So without Redis each
            // lives on what is in its memory, and fetches only when that has ended: better a few repairs than no
            // sending. Stable mode has no such trouble, because all get the same token.
            (Reason::Ending(held), TokenMode::Legacy) if alone => Ok(Held {
                refresh_at: self.inner.coord.clock().now() + LATER_TOGETHER,
                ..held.clone()
            }),
            (Reason::Dead(_), mode) => self.repair(goal, &secret, mode).await,
            (Reason::Missing | Reason::Ending(_), mode) => {
                self.ask(goal, &secret, mode, false).await
            }
        }
    }

    /// Proves a secret by asking for a token with it.
    pub(crate) async fn prove(
        mut self,
        secret: &AppSecret,
        mode: TokenMode,
    ) -> Result<(Held, Ledger), BrokerError> {
        let there = self
            .inner
            .shared
            .token(self.appid)
            .await
            .map_or(0, |held| held.token.generation);
        let goal = Goal {
            beyond: self.memory.newest().max(there),
            reason: Reason::Missing,
        };
        let held = self.ask(&goal, secret, mode, false).await?;
        Ok((held, self.ledger))
    }

    /// Replaces a token that WeChat refuses.
    async fn repair(
        &mut self,
        goal: &Goal,
        secret: &AppSecret,
        mode: TokenMode,
    ) -> Result<Held, BrokerError> {
        if mode == TokenMode::Stable {
            // Mostly WeChat has a new one already: then nothing needs to be forced.
            let held = self.ask(goal, secret, mode, false).await?;
            if !goal.is_dead(&held.token.value) {
                return Ok(held);
            }
        }
        let force = mode == TokenMode::Stable;
        let now = self.inner.coord.clock().now();
        self.ledger.repair(now, force).map_err(|retry_at| {
            let detail = "WeChat refuses the present token and allows no new one yet; \
                          look for another system that fetches tokens with the same AppSecret";
            BrokerError::Later {
                retry_at,
                detail: detail.to_owned(),
            }
        })?;
        let held = self.ask(goal, secret, mode, force).await?;
        if goal.is_dead(&held.token.value) {
            return Err(self.later("WeChat insists on the token that it refuses"));
        }
        Ok(held)
    }

    /// One call. It is counted before it is made, so that a crash cannot hide it.
    async fn ask(
        &mut self,
        goal: &Goal,
        secret: &AppSecret,
        mode: TokenMode,
        force: bool,
    ) -> Result<Held, BrokerError> {
        let Inner {
            coord,
            shared,
            client,
            metrics,
            ..
        } = self.inner;
        self.ledger = self.ledger.at(coord.clock().now());
        self.ledger.spend();
        self.memory.set_ledger(self.ledger);
        shared.put_ledger(self.appid, self.ledger).await;
        let asked_at = coord.clock().now();
        let outcome = match mode {
            TokenMode::Stable => client.fetch_stable_token(self.appid, secret, force).await,
            TokenMode::Legacy => client.fetch_legacy_token(self.appid, secret).await,
        };
        metrics.fetched(mode, force, &outcome);
        let FetchedToken { token, expires_in } = outcome.map_err(|error| {
            tracing::warn!(appid = %self.appid, %error, "no access token");
            BrokerError::refused(error, coord.clock().now(), self.memory.next_try())
        })?;
        if expires_in.is_zero() {
            return Err(self.later("WeChat returned a token that has ended"));
        }
        let generation = match &goal.reason {
            // The same one again, with another end.
            Reason::Ending(held) if held.token.value.expose() == token.expose() => {
                held.token.generation
            }
            _ => goal
                .beyond
                .saturating_add(1)
                .max(asked_at.timestamp_millis().unsigned_abs()),
        };
        tracing::info!(appid = %self.appid, generation, force, ?expires_in, "fetched an access token");
        let token = Token {
            value: token.into(),
            generation,
            expires_at: asked_at + expires_in,
        };
        Ok(Held::new(token, mode, asked_at))
    }

    async fn credentials(&self) -> Result<AppCredentials, BrokerError> {
        self.inner
            .credentials
            .credentials(self.appid)
            .await
            .map_err(|error| match error {
                CredentialsError::UnknownApp => BrokerError::UnknownApp,
                CredentialsError::Unavailable(_) => self.later(error.to_string()),
            })
    }

    fn later(&self, detail: impl Into<String>) -> BrokerError {
        self.inner.later(self.memory, detail)
    }
}
