//! The memory of one app on this replica, and the answer to each caller: decisions without IO under one lock.

use std::{
    sync::{
        PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use domain::app::TokenMode;
use futures::future::{BoxFuture, Shared};

use crate::{
    BrokerError, ForeignRefresh, LiveToken, TokenState,
    goal::{Goal, Reason, RefusedToken},
    health::Checks,
    ledger::{Ledger, REPAIR_INTERVAL},
    suspicion::Suspicion,
    token::{HeldToken, Token},
};

/// A fetch in progress. Every waiting caller holds a clone; the fetch continues without callers.
pub(crate) type SharedFetch = Shared<BoxFuture<'static, Result<Token, BrokerError>>>;

/// How long an app is remembered after the last use: longer than a token lives.
const IDLE: Duration = Duration::from_hours(3);
/// How long after a use an app counts as in use. Shorter than any refresh margin, so that an app in use with a token
/// near the end is an app with a failing refresh.
const IN_USE: Duration = Duration::from_mins(1);
/// How many token deaths of an app may wait for judgement while Redis is away; repairs are 30 s apart.
const SUSPICIONS: usize = 20;
/// The precision of the time of the last use, in seconds, so that most uses write nothing.
const USE_GRAIN: i64 = 15;

/// The answer to a caller.
pub(crate) enum TokenReply {
    /// A token, at once.
    Token(Token),
    /// The remembered failure, at once.
    Failed(BrokerError),
    /// The fetch to wait for.
    Wait(SharedFetch),
}

/// The memory of one app.
pub(crate) struct Memory {
    state: RwLock<AppTokenState>,
    /// When the app was last used, in seconds since 1970.
    used_at: AtomicI64,
    /// The results of token checks.
    pub(crate) checks: Checks,
}

#[derive(Default)]
struct AppTokenState {
    held: Option<HeldToken>,
    /// The highest generation that WeChat is known to refuse, until a later token is held.
    dead: Option<(u64, Option<RefusedToken>)>,
    /// The highest generation seen.
    newest: u64,
    /// The answer to every caller until `retry_at`.
    failure: Option<BrokerError>,
    failures_in_a_row: u32,
    flight: Option<SharedFetch>,
    /// When a caller last requested another token, and why that request failed.
    asked: Option<(DateTime<Utc>, Option<BrokerError>)>,
    /// Whether the fetch in progress ends the token in use at once; no caller uses the token meanwhile.
    ends_present: bool,
    ledger: Ledger,
    /// Deaths of tokens that wait for the ledger of the other replicas.
    suspicions: Vec<Suspicion>,
}

impl Memory {
    /// Creates an empty memory.
    pub(crate) fn new(now: DateTime<Utc>) -> Self {
        Self {
            state: RwLock::default(),
            used_at: AtomicI64::new(now.timestamp()),
            checks: Checks::default(),
        }
    }

    /// Creates a memory that starts with a token.
    pub(crate) fn of(held: HeldToken, ledger: Ledger, now: DateTime<Utc>) -> Self {
        let memory = Self::new(now);
        memory.learn(Some(held), Some(ledger), now);
        memory
    }

    /// The token, if alive and not yet due for a refresh. The hot path.
    pub(crate) fn fresh(&self, now: DateTime<Utc>) -> Option<Token> {
        self.touch(now);
        let state = self.read();
        state
            .held
            .as_ref()
            .filter(|held| held.refresh_at > now && held.is_alive(now))
            .map(|held| held.token.clone())
    }

    /// Records a use.
    pub(crate) fn touch(&self, now: DateTime<Utc>) {
        let now = now.timestamp();
        if now - self.used_at.load(Ordering::Relaxed) >= USE_GRAIN {
            self.used_at.store(now, Ordering::Relaxed);
        }
    }

    /// Answers a caller that wants a token, later than `refused` if given. `launch` starts a fetch, and is called at
    /// most once: only without a fetch in progress and when WeChat may be called.
    pub(crate) fn enter(
        &self,
        now: DateTime<Utc>,
        refused: Option<u64>,
        launch: impl FnOnce(Goal) -> SharedFetch,
    ) -> TokenReply {
        let mut state = self.write();
        if let Some(generation) = refused
            && state.retire(generation, now)
        {
            // The calls that a budget keeps for repairs are meant for this fetch.
            state.failure.take_if(|failure| failure.is_saving());
        }
        let failure = state.present_failure(now);
        if let Some(held) = state.held.clone().filter(|held| held.is_alive(now)) {
            let token = held.token.clone();
            if held.refresh_at <= now && state.flight.is_none() && failure.is_none() {
                // WeChat keeps the last two legacy tokens. After a fetch whose answer was lost, the next fetch ends the
                // present token.
                state.ends_present = held.mode == TokenMode::Legacy
                    && state.ledger.has_replaced_since(held.fetched_at);
                state.flight = Some(launch(Goal {
                    beyond: token.generation,
                    reason: Reason::Ending(held),
                }));
            }
            return match &state.flight {
                Some(flight) if state.ends_present => TokenReply::Wait(flight.clone()),
                _ => TokenReply::Token(token),
            };
        }
        if let Some(failure) = failure {
            return TokenReply::Failed(failure);
        }
        let goal = state.goal();
        TokenReply::Wait(state.flight.get_or_insert_with(|| launch(goal)).clone())
    }

    /// Answers a caller that wants a token later than `beyond` although the present token is good, or although WeChat
    /// is not to be called during a pause. A fetch in progress serves the caller too.
    pub(crate) fn request_refresh(
        &self,
        now: DateTime<Utc>,
        beyond: u64,
        launch: impl FnOnce(Goal) -> SharedFetch,
    ) -> TokenReply {
        let mut state = self.write();
        let held = state.held.clone().filter(|held| held.is_alive(now));
        if let Some(HeldToken { token, .. }) =
            held.as_ref().filter(|held| held.token.generation > beyond)
        {
            return TokenReply::Token(token.clone());
        }
        if let Some(failure) = state.failed_asking(now) {
            return TokenReply::Failed(failure);
        }
        let mut goal = state.goal();
        if held.is_some() || state.present_failure(now).is_some() {
            let dead = state.dead.as_ref().and_then(|(_, dead)| dead.as_ref());
            let present = held.as_ref().or(dead.map(|dead| &dead.held));
            goal.reason = Reason::Asked(present.map(|held| held.token.value.clone()));
        }
        if state.flight.is_none() {
            state.asked = Some((now, None));
        }
        TokenReply::Wait(state.flight.get_or_insert_with(|| launch(goal)).clone())
    }

    /// Ends a fetch and keeps the result. A failure of a fetch that was only `asked` for changes nothing but the answer
    /// to the next such requests.
    pub(crate) fn land(
        &self,
        landed: Result<HeldToken, BrokerError>,
        asked: bool,
    ) -> Result<Token, BrokerError> {
        let mut state = self.write();
        state.flight = None;
        state.ends_present = false;
        match landed {
            Ok(held) => {
                let token = held.token.clone();
                state.adopt(held);
                Ok(token)
            }
            Err(error) => {
                if let Some((_, why)) = &mut state.asked
                    && !error.is_own_limit()
                {
                    *why = Some(error.clone());
                }
                if !asked {
                    state.failures_in_a_row = state.failures_in_a_row.saturating_add(1);
                    state.failure = error.retry_at().is_some().then(|| error.clone());
                }
                Err(error)
            }
        }
    }

    /// Merges the token and the ledger of other replicas.
    pub(crate) fn learn(
        &self,
        held: Option<HeldToken>,
        ledger: Option<Ledger>,
        now: DateTime<Utc>,
    ) {
        let mut state = self.write();
        if let Some(held) = held.filter(|held| held.token.generation > state.newest) {
            state.adopt(held);
        }
        if let Some(ledger) = ledger {
            state.ledger = state.ledger.merge(ledger, now);
        }
    }

    /// Forgets failures, because the app may have been repaired.
    pub(crate) fn clear_failures(&self) {
        let mut state = self.write();
        state.failure = None;
        state.failures_in_a_row = 0;
        state.asked = None;
    }

    /// The token, if alive.
    pub(crate) fn held(&self, now: DateTime<Utc>) -> Option<HeldToken> {
        self.read().held.clone().filter(|held| held.is_alive(now))
    }

    /// The highest generation seen.
    pub(crate) fn newest(&self) -> u64 {
        self.read().newest
    }

    /// The number of the next fetch in a series of failures, for the backoff.
    pub(crate) fn next_try(&self) -> u32 {
        self.read().failures_in_a_row.saturating_add(1)
    }

    pub(crate) fn ledger(&self) -> Ledger {
        self.read().ledger
    }

    /// Merges the ledger of a fetch.
    pub(crate) fn keep_ledger(&self, ledger: Ledger, now: DateTime<Utc>) {
        let mut state = self.write();
        state.ledger = state.ledger.merge(ledger, now);
    }

    /// Records a death that is judged when the ledger of the other replicas can be read.
    pub(crate) fn suspect(&self, suspicion: Suspicion) {
        let mut state = self.write();
        if state.suspicions.len() < SUSPICIONS {
            state.suspicions.push(suspicion);
        }
    }

    /// Whether deaths wait for judgement.
    pub(crate) fn suspects(&self) -> bool {
        !self.read().suspicions.is_empty()
    }

    /// Judges the deaths that are due, after the ledger of the other replicas was merged. Counts the deaths without
    /// another explanation.
    pub(crate) fn judge(&self, now: DateTime<Utc>) -> Vec<ForeignRefresh> {
        let state = &mut *self.write();
        let due: Vec<_> = state
            .suspicions
            .extract_if(.., |suspicion| suspicion.is_due(now))
            .collect();
        state.ledger = state.ledger.at(now);
        let ledger = &mut state.ledger;
        due.into_iter()
            .filter_map(|suspicion| suspicion.judge(ledger))
            .collect()
    }

    /// Whether a fetch is in progress.
    pub(crate) fn is_fetching(&self) -> bool {
        self.read().flight.is_some()
    }

    /// Whether the app was used within the last minute.
    pub(crate) fn is_in_use(&self, now: DateTime<Utc>) -> bool {
        !self.is_unused_for(IN_USE, now)
    }

    /// Whether the memory may be dropped: long unused, no live token, no fetch, no death to judge, no pause.
    pub(crate) fn is_idle(&self, now: DateTime<Utc>) -> bool {
        self.is_unused_for(IDLE, now) && {
            let state = self.read();
            state.flight.is_none()
                && state.suspicions.is_empty()
                && !state.held.as_ref().is_some_and(|held| held.is_alive(now))
                && state.present_failure(now).is_none()
        }
    }

    /// The state for the API and the console.
    pub(crate) fn state(&self, now: DateTime<Utc>) -> TokenState {
        let state = self.read();
        let held = state.held.as_ref().filter(|held| held.is_alive(now));
        let ledger = state.ledger.at(now);
        TokenState {
            token: held.map(LiveToken::from),
            is_fetching: state.flight.is_some(),
            fetches_today: ledger.fetches(),
            forced_today: ledger.forced(),
            budgets: ledger.budgets(),
            foreign_refresh: ledger.foreign(now),
            failure: state.failure.clone(),
        }
    }

    fn is_unused_for(&self, span: Duration, now: DateTime<Utc>) -> bool {
        let unused = now.timestamp() - self.used_at.load(Ordering::Relaxed);
        // The last use may be up to `USE_GRAIN` later than recorded.
        u64::try_from(unused - USE_GRAIN).is_ok_and(|unused| unused >= span.as_secs())
    }

    fn read(&self) -> RwLockReadGuard<'_, AppTokenState> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, AppTokenState> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AppTokenState {
    /// The failure that every caller gets now.
    fn present_failure(&self, now: DateTime<Utc>) -> Option<BrokerError> {
        self.failure
            .clone()
            .filter(|failure| failure.retry_at().is_some_and(|retry_at| retry_at > now))
    }

    /// The failure that a request for another token gets now: the reason of the last failed request, for at most 30 s.
    fn failed_asking(&self, now: DateTime<Utc>) -> Option<BrokerError> {
        let (at, why) = self.asked.as_ref()?;
        let why = why.clone()?;
        let until = why.retry_at()?.min(*at + REPAIR_INTERVAL);
        (now < until).then_some(why)
    }

    /// Takes the token of `generation` and older tokens out of use, and returns whether one was in use. A later token
    /// stays.
    fn retire(&mut self, generation: u64, now: DateTime<Utc>) -> bool {
        self.newest = self.newest.max(generation);
        let in_use = self
            .held
            .take_if(|held| held.token.generation <= generation);
        let was_in_use = in_use.is_some();
        let is_news = self
            .dead
            .as_ref()
            .is_none_or(|(dead, _)| *dead < generation);
        if was_in_use || self.held.is_none() && is_news {
            let refused = in_use
                .filter(|held| held.token.generation == generation)
                .map(|held| RefusedToken { held, at: now });
            self.dead = Some((generation, refused));
        }
        was_in_use
    }

    fn goal(&self) -> Goal {
        let reason = self.dead.as_ref().map_or(Reason::Missing, |(_, refused)| {
            Reason::Dead(refused.clone())
        });
        Goal {
            beyond: self.newest,
            reason,
        }
    }

    /// Holds a token, unless WeChat refused the token during the fetch or a later one is there.
    fn adopt(&mut self, held: HeldToken) {
        let Token {
            generation, value, ..
        } = &held.token;
        self.failure = None;
        self.failures_in_a_row = 0;
        self.asked = None;
        let buried = self.dead.as_ref().is_some_and(|(dead, refused)| {
            generation <= dead
                || refused
                    .as_ref()
                    .is_some_and(|refused| refused.held.token.value.expose() == value.expose())
        });
        if !buried
            && self
                .held
                .as_ref()
                .is_none_or(|held| held.token.generation <= *generation)
        {
            self.newest = self.newest.max(*generation);
            self.dead = None;
            self.held = Some(held);
        }
    }
}
