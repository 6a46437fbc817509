//! Fetches of access tokens from WeChat.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use domain::{
    app::{AppId, TokenMode},
    quota,
    secret::AppSecret,
};
use wechat::{FetchedToken, TokenError};

use crate::{
    AppCredentials, BrokerError, BrokerEvent, CredentialsError, Proof, SecretCheck,
    fetcher::Fetcher,
    goal::{Goal, Reason, RefusedToken},
    ledger::Ledger,
    memory::Memory,
    suspicion::{Suspicion, is_foreign},
    token::{HeldToken, Token},
};

/// How long the refresh of a legacy token is postponed while Redis does not answer.
const LATER_TOGETHER: Duration = Duration::from_secs(30);

/// One fetch for one app: one or two calls of WeChat.
pub(crate) struct Fetch<'a> {
    fetcher: &'a Fetcher,
    appid: &'a AppId,
    memory: &'a Arc<Memory>,
    ledger: Ledger,
    /// Whether the ledger of the other replicas is known.
    sees_others: bool,
    /// The ledger as the other replicas see it.
    shown: Ledger,
    /// Whether WeChat may have carried out the last call although the answer was lost.
    is_lost: bool,
}

impl<'a> Fetch<'a> {
    /// Reads the ledger of the day and starts the fetch.
    pub(crate) async fn begin(
        fetcher: &'a Fetcher,
        appid: &'a AppId,
        memory: &'a Arc<Memory>,
    ) -> Self {
        let now = fetcher.coord.clock().now();
        let others = fetcher.shared.ledger(appid).await;
        let sees_others = others.is_ok();
        let others = others.ok().flatten().unwrap_or_default();
        let ledger = memory.ledger().merge(others, now);
        Self {
            fetcher,
            appid,
            memory,
            ledger,
            sees_others,
            shown: ledger,
            is_lost: false,
        }
    }

    /// Fetches a token that meets the goal. `alone`: the other replicas could not be asked.
    pub(crate) async fn bring(
        mut self,
        goal: &Goal,
        alone: bool,
    ) -> Result<HeldToken, BrokerError> {
        self.sees_others &= !alone;
        let AppCredentials { secret, mode } = self.credentials().await?;
        match (&goal.reason, mode) {
            // A legacy fetch ends the token that the other replicas use, five minutes later. So without Redis each
            // replica uses the token in memory, and fetches only after the end of that token: a few repairs are better
            // than no sending. In stable mode all replicas get the same token.
            (Reason::Ending(held), TokenMode::Legacy) if alone => Ok(HeldToken {
                refresh_at: self.fetcher.coord.clock().now() + LATER_TOGETHER,
                ..held.clone()
            }),
            (Reason::Dead(_), mode) => self.repair(goal, &secret, mode).await,
            (Reason::Asked(_), mode) => self.replace(goal, &secret, mode).await,
            (Reason::Missing | Reason::Ending(_), mode) => {
                self.ask(goal, &secret, mode, false).await
            }
        }
    }

    /// Proves a secret by fetching a token with that secret.
    pub(crate) async fn prove(
        mut self,
        secret: &AppSecret,
        mode: TokenMode,
    ) -> Result<Proof, BrokerError> {
        let goal = Goal {
            beyond: self.memory.newest(),
            reason: Reason::Missing,
        };
        let held = self.ask(&goal, secret, mode, false).await?;
        Ok(Proof {
            held,
            ledger: self.ledger,
        })
    }

    /// Counts the call of a trial in the ledger, and turns the token of the trial into a proof.
    pub(crate) async fn of_trial(mut self, trial: SecretCheck) -> Proof {
        let SecretCheck { fetched, asked_at } = trial;
        self.ledger = self.ledger.at(asked_at);
        // WeChat has answered the call already, so a spent budget stops the next call, not this one.
        let _ = self.ledger.spend(TokenMode::Stable, false);
        self.save().await;
        let goal = Goal {
            beyond: self.memory.newest(),
            reason: Reason::Missing,
        };
        let token = number(&goal, fetched, asked_at);
        tracing::info!(appid = %self.appid, generation = token.generation, "WeChat has accepted an AppSecret");
        Proof {
            held: HeldToken::new(token, TokenMode::Stable, asked_at),
            ledger: self.ledger,
        }
    }

    /// Replaces a token that WeChat refuses.
    async fn repair(
        &mut self,
        goal: &Goal,
        secret: &AppSecret,
        mode: TokenMode,
    ) -> Result<HeldToken, BrokerError> {
        let foreign = match &goal.reason {
            Reason::Dead(refused) => refused.as_ref(),
            _ => None,
        }
        .filter(|refused| is_foreign(refused, &self.ledger));
        if mode == TokenMode::Stable {
            // WeChat usually has a new token already, so a normal call comes before a forced refresh.
            let held = self.ask(goal, secret, mode, false).await?;
            if !goal.is_unwanted(&held.token.value) {
                self.blame(foreign).await;
                return Ok(held);
            }
        }
        let now = self.fetcher.coord.clock().now();
        self.ledger
            .repair(now, mode == TokenMode::Stable)
            .map_err(|retry_at| {
                let detail = "WeChat refuses the present access token and allows no new one yet; \
                              check whether another system fetches tokens with the same AppSecret";
                BrokerError::Later {
                    retry_at,
                    detail: detail.to_owned(),
                }
            })?;
        let held = self.force(goal, secret, mode).await?;
        if mode == TokenMode::Legacy {
            self.blame(foreign).await;
        }
        Ok(held)
    }

    /// Replaces a token on request, within WeChat's limits.
    async fn replace(
        &mut self,
        goal: &Goal,
        secret: &AppSecret,
        mode: TokenMode,
    ) -> Result<HeldToken, BrokerError> {
        let now = self.fetcher.coord.clock().now();
        let forced = mode == TokenMode::Stable && matches!(goal.reason, Reason::Asked(Some(_)));
        let reset_at = quota::reset_at(now);
        let is_day_spent = forced && self.ledger.has_spent_forced();
        let refused = |again| BrokerError::TooSoon {
            retry_at: if is_day_spent { reset_at } else { again },
        };
        self.ledger.may_repair(now, forced).map_err(refused)?;
        if mode == TokenMode::Stable {
            let held = self.ask(goal, secret, mode, false).await?;
            if !goal.is_unwanted(&held.token.value) {
                self.ledger.repair(now, false).map_err(refused)?;
                self.save().await;
                return Ok(held);
            }
        }
        self.ledger.repair(now, forced).map_err(refused)?;
        self.force(goal, secret, mode).await
    }

    /// Fetches a token that ends the one before. After a failure the booked repair is refunded, so that the next fetch
    /// waits for its backoff only.
    async fn force(
        &mut self,
        goal: &Goal,
        secret: &AppSecret,
        mode: TokenMode,
    ) -> Result<HeldToken, BrokerError> {
        let forced = mode == TokenMode::Stable;
        let asked = self.ask(goal, secret, mode, forced).await;
        // WeChat keeps its own interval between forced refreshes, and may have made one whose answer was lost.
        if asked.is_err() && !(forced && self.is_lost) {
            // Without the ledger of the other replicas the forced refresh stays counted, to be on the safe side.
            self.ledger.refund_repair(forced && self.sees_others);
            self.save().await;
        }
        let held = asked?;
        if goal.is_unwanted(&held.token.value) {
            return Err(
                self.later("WeChat returned the token that the forced refresh was to replace")
            );
        }
        Ok(held)
    }

    /// Reports that another system replaced the token. Without Redis another replica may have been the cause, so the
    /// death is judged when Redis answers again.
    async fn blame(&mut self, refused: Option<&RefusedToken>) {
        let Some(refused) = refused else { return };
        if self.sees_others {
            let seen = self.ledger.count_foreign(refused.at);
            self.fetcher.blame(self.appid, seen);
            self.save().await;
        } else {
            self.memory.suspect(Suspicion::of(refused));
            self.fetcher.deferred.defer(self.appid, self.memory);
            tracing::warn!(
                appid = %self.appid,
                "an access token ended early while Redis did not answer: the gateway checks whether another system replaced \
                 the token when Redis answers"
            );
            self.fetcher.tell(self.appid, BrokerEvent::DiedYoung);
        }
    }

    /// Makes one call. The ledger counts the call beforehand, so that a crash cannot hide the call.
    async fn ask(
        &mut self,
        goal: &Goal,
        secret: &AppSecret,
        mode: TokenMode,
        force: bool,
    ) -> Result<HeldToken, BrokerError> {
        let Fetcher { coord, client, .. } = self.fetcher;
        let asked_at = coord.clock().now();
        self.ledger = self.ledger.at(asked_at);
        let is_repair = matches!(goal.reason, Reason::Dead(_));
        self.ledger.spend(mode, is_repair).map_err(|spent| {
            tracing::warn!(appid = %self.appid, ?spent, "the gateway does not fetch an access token");
            BrokerError::spent(spent, asked_at)
        })?;
        if force || mode == TokenMode::Legacy {
            self.ledger.replace(asked_at);
        }
        self.save().await;
        let outcome = match mode {
            TokenMode::Stable => client.fetch_stable_token(self.appid, secret, force).await,
            TokenMode::Legacy => client.fetch_legacy_token(self.appid, secret).await,
        };
        self.fetcher.metrics.fetched(mode, force, &outcome);
        self.is_lost = matches!(outcome, Err(TokenError::Unclear(_)));
        let fetched = match outcome {
            Ok(fetched) => fetched,
            Err(error) => return Err(self.failed(error, mode).await),
        };
        if fetched.expires_in.is_zero() {
            self.is_lost = true;
            return Err(self.later("WeChat returned a token that has ended"));
        }
        let token = number(goal, fetched, asked_at);
        tracing::info!(
            appid = %self.appid,
            generation = token.generation,
            force,
            expires_at = %token.expires_at,
            "fetched an access token"
        );
        Ok(HeldToken::new(token, mode, asked_at))
    }

    /// Converts the error of a call. Refunds a call that did not reach WeChat.
    async fn failed(&mut self, error: TokenError, mode: TokenMode) -> BrokerError {
        tracing::warn!(appid = %self.appid, %error, "no access token for an app");
        if error.is_unseen() {
            self.ledger.refund_fetch(mode);
            self.save().await;
        }
        let now = self.fetcher.coord.clock().now();
        BrokerError::refused(error, now, self.memory.next_try())
    }

    /// Writes the ledger to the shared cell, and reports budgets that have become low to the log and the observer.
    async fn save(&mut self) {
        let now = self.fetcher.coord.clock().now();
        let shown = std::mem::replace(&mut self.shown, self.ledger).at(now);
        for (kind, budget) in self.ledger.budgets().worse_than(&shown.budgets()) {
            tracing::warn!(
                appid = %self.appid,
                budget = kind.as_str(),
                used = budget.used,
                limit = budget.limit,
                "a budget of token fetches runs low: find the program that fetches so often before the budget is used up"
            );
            self.fetcher
                .tell(self.appid, BrokerEvent::BudgetLow { kind, budget });
        }
        self.memory.keep_ledger(self.ledger, now);
        // A ledger that was not read before must not be overwritten.
        let added = if self.sees_others {
            self.fetcher
                .shared
                .add_to_ledger(self.appid, self.ledger)
                .await
                .ok()
        } else {
            None
        };
        match added {
            Some(together) => self.ledger = together,
            None => self.fetcher.deferred.defer(self.appid, self.memory),
        }
    }

    async fn credentials(&self) -> Result<AppCredentials, BrokerError> {
        self.fetcher
            .credentials
            .credentials(self.appid)
            .await
            .map_err(|error| match error {
                CredentialsError::UnknownApp => BrokerError::UnknownApp,
                CredentialsError::Unavailable(_) => self.later(error.to_string()),
            })
    }

    fn later(&self, detail: impl Into<String>) -> BrokerError {
        self.fetcher.later(self.memory, detail)
    }
}

/// Gives a fetched token a place in the order of the app's tokens, the generation.
fn number(goal: &Goal, fetched: FetchedToken, asked_at: DateTime<Utc>) -> Token {
    let FetchedToken { token, expires_in } = fetched;
    let generation = match &goal.reason {
        // The same token again, with another end.
        Reason::Ending(held) if held.token.value.expose() == token.expose() => {
            held.token.generation
        }
        _ => goal
            .beyond
            .saturating_add(1)
            .max(asked_at.timestamp_millis().unsigned_abs()),
    };
    Token {
        value: token.into(),
        generation,
        expires_at: asked_at + expires_in,
    }
}
