//! What this replica knows of one app, and whom it lets through: pure decisions under one lock.

use std::{
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use chrono::{DateTime, Utc};
use domain::{app::TokenMode, secret::AccessToken};
use futures::future::{BoxFuture, Shared};

use crate::{
    BrokerError,
    ledger::Ledger,
    token::{LiveToken, Token, TokenState},
};

/// A fetch under way. Everybody who waits for it holds a clone; it goes on when they leave.
pub(crate) type Flight = Shared<BoxFuture<'static, Result<Token, BrokerError>>>;

/// A token in memory.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) token: Token,
    pub(crate) mode: TokenMode,
    pub(crate) fetched_at: DateTime<Utc>,
    /// When to look for its successor.
    pub(crate) refresh_at: DateTime<Utc>,
}

impl Held {
    /// Decides when to refresh: ahead of the end, with jitter so that replicas do not come at once, and in no case
    /// before half of the token's life.
    pub(crate) fn new(token: Token, mode: TokenMode, fetched_at: DateTime<Utc>) -> Self {
        let life = (token.expires_at - fetched_at).to_std().unwrap_or_default();
        let (least, jitter) = match mode {
            // WeChat makes the next stable token five minutes before the end; earlier it returns the same.
            TokenMode::Stable => (Duration::from_mins(4), Duration::from_secs(55)),
            TokenMode::Legacy => (Duration::from_mins(10), Duration::from_mins(5)),
        };
        let margin = (least + jitter.mul_f64(rand::random())).min(life / 2);
        let refresh_at = token.expires_at - margin;
        Self {
            token,
            mode,
            fetched_at,
            refresh_at,
        }
    }

    fn is_alive(&self, now: DateTime<Utc>) -> bool {
        self.token.expires_at > now
    }
}

/// What a flight is to bring.
#[derive(Clone, Debug)]
pub(crate) struct Goal {
    /// A token later than this.
    pub(crate) beyond: u64,
    /// Why the present one will not do.
    pub(crate) reason: Reason,
}

/// Why a token is wanted.
#[derive(Clone, Debug)]
pub(crate) enum Reason {
    /// There is none, or it has ended.
    Missing,
    /// This one ends soon; it serves until then.
    Ending(Held),
    /// WeChat refuses the one of the goal's generation; its value, where this replica knows it.
    Dead(Option<Arc<AccessToken>>),
}

impl Goal {
    /// Whether `held` is what is wanted.
    pub(crate) fn is_met_by(&self, held: &Held) -> bool {
        held.token.generation > self.beyond && !self.is_dead(&held.token.value)
    }

    /// Whether this is the very token that WeChat refuses.
    pub(crate) fn is_dead(&self, value: &AccessToken) -> bool {
        matches!(&self.reason, Reason::Dead(Some(dead)) if dead.expose() == value.expose())
    }
}

/// What a caller gets.
pub(crate) enum Entry {
    /// At once.
    Token(Token),
    /// At once, as remembered.
    Failed(BrokerError),
    /// After the fetch.
    Wait(Flight),
}

/// One app's memory.
#[derive(Default)]
pub(crate) struct Memory(RwLock<State>);

#[derive(Default)]
struct State {
    held: Option<Held>,
    /// The highest generation known to be refused by WeChat, until a later token is held.
    dead: Option<(u64, Option<Arc<AccessToken>>)>,
    /// The highest generation seen.
    newest: u64,
    /// Told to everybody until its `retry_at`.
    failure: Option<BrokerError>,
    failures_in_a_row: u32,
    flight: Option<Flight>,
    ledger: Ledger,
}

impl Memory {
    /// A memory that begins with a token.
    pub(crate) fn of(held: Held, ledger: Ledger) -> Self {
        let memory = State {
            newest: held.token.generation,
            held: Some(held),
            ledger,
            ..State::default()
        };
        Self(RwLock::new(memory))
    }

    /// The token, if it is alive and not yet due for a refresh. The hot path.
    pub(crate) fn fresh(&self, now: DateTime<Utc>) -> Option<Token> {
        let state = self.read();
        state
            .held
            .as_ref()
            .filter(|held| held.refresh_at > now && held.is_alive(now))
            .map(|held| held.token.clone())
    }

    /// Lets a caller in who wants a token, one later than the `refused` one if given. `launch` starts a flight; it is called at
    /// most once, and only if none is under way and WeChat may be asked.
    pub(crate) fn enter(
        &self,
        now: DateTime<Utc>,
        refused: Option<u64>,
        launch: impl FnOnce(Goal) -> Flight,
    ) -> Entry {
        let mut state = self.write();
        if let Some(generation) = refused {
            state.bury(generation);
        }
        let failure = state
            .failure
            .clone()
            .filter(|failure| failure.retry_at().is_some_and(|retry_at| retry_at > now));
        if let Some(held) = state.held.clone().filter(|held| held.is_alive(now)) {
            let token = held.token.clone();
            if held.refresh_at <= now && state.flight.is_none() && failure.is_none() {
                state.flight = Some(launch(Goal {
                    beyond: token.generation,
                    reason: Reason::Ending(held),
                }));
            }
            return Entry::Token(token);
        }
        if let Some(failure) = failure {
            return Entry::Failed(failure);
        }
        let goal = state.goal();
        Entry::Wait(state.flight.get_or_insert_with(|| launch(goal)).clone())
    }

    /// Ends a flight: keeps what it brought.
    pub(crate) fn land(&self, landed: Result<Held, BrokerError>) -> Result<Token, BrokerError> {
        let mut state = self.write();
        state.flight = None;
        match landed {
            Ok(held) => {
                let token = held.token.clone();
                state.adopt(held);
                Ok(token)
            }
            Err(error) => {
                state.failures_in_a_row = state.failures_in_a_row.saturating_add(1);
                state.failure = error.retry_at().is_some().then(|| error.clone());
                Err(error)
            }
        }
    }

    /// Forgets failures, because somebody may have repaired the app.
    pub(crate) fn forgive(&self) {
        let mut state = self.write();
        state.failure = None;
        state.failures_in_a_row = 0;
    }

    /// The token, if it is alive.
    pub(crate) fn held(&self, now: DateTime<Utc>) -> Option<Held> {
        self.read().held.clone().filter(|held| held.is_alive(now))
    }

    /// The highest generation seen.
    pub(crate) fn newest(&self) -> u64 {
        self.read().newest
    }

    /// The number of the next try, for the backoff.
    pub(crate) fn next_try(&self) -> u32 {
        self.read().failures_in_a_row.saturating_add(1)
    }

    pub(crate) fn ledger(&self) -> Ledger {
        self.read().ledger
    }

    pub(crate) fn set_ledger(&self, ledger: Ledger) {
        self.write().ledger = ledger;
    }

    /// What may be shown.
    pub(crate) fn state(&self, now: DateTime<Utc>) -> TokenState {
        let state = self.read();
        let held = state.held.as_ref().filter(|held| held.is_alive(now));
        let ledger = state.ledger.at(now);
        TokenState {
            token: held.map(
                |Held {
                     token, fetched_at, ..
                 }| LiveToken {
                    generation: token.generation,
                    fetched_at: *fetched_at,
                    expires_at: token.expires_at,
                },
            ),
            fetches_today: ledger.fetches,
            forced_today: ledger.forced,
            failure: state.failure.clone(),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes the token of `generation` out of use, and older ones with it. A later one stays.
    fn bury(&mut self, generation: u64) {
        self.newest = self.newest.max(generation);
        match self
            .held
            .take_if(|held| held.token.generation <= generation)
        {
            Some(held) => {
                let value = (held.token.generation == generation).then_some(held.token.value);
                self.dead = Some((generation, value));
            }
            None if self.held.is_none()
                && self
                    .dead
                    .as_ref()
                    .is_none_or(|(dead, _)| *dead < generation) =>
            {
                self.dead = Some((generation, None));
            }
            None => {}
        }
    }

    fn goal(&self) -> Goal {
        let reason = self
            .dead
            .as_ref()
            .map_or(Reason::Missing, |(_, value)| Reason::Dead(value.clone()));
        Goal {
            beyond: self.newest,
            reason,
        }
    }

    /// Holds a token, unless it was buried while it was fetched or a later one is there.
    fn adopt(&mut self, held: Held) {
        let Token {
            generation, value, ..
        } = &held.token;
        self.failure = None;
        self.failures_in_a_row = 0;
        let buried = self.dead.as_ref().is_some_and(|(dead, dead_value)| {
            generation <= dead
                || dead_value
                    .as_ref()
                    .is_some_and(|dead| dead.expose() == value.expose())
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
