//! What this replica knows of one app, and whom it lets through: pure decisions under one lock.

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
    BrokerError, ForeignRefresh,
    check::Checks,
    foreign::Suspicion,
    goal::{Goal, Held, Reason, Refused},
    ledger::{Ledger, REPAIR_INTERVAL},
    token::{LiveToken, Token, TokenState},
};

/// A fetch under way. Everybody who waits for it holds a clone; it goes on when they leave.
pub(crate) type Flight = Shared<BoxFuture<'static, Result<Token, BrokerError>>>;

/// How long an app is remembered after its last use: longer than a token lives.
const IDLE: Duration = Duration::from_hours(3);
/// An app counts as in use for so long: shorter than any margin of a refresh, so that a token of an app in use which
/// is near its end is one whose refresh fails.
const IN_USE: Duration = Duration::from_mins(1);
/// How many deaths of an app wait to be judged while Redis is away; repairs are 30 s apart.
const SUSPICIONS: usize = 20;
/// How exactly the last use is known, in seconds: most uses write nothing.
const USE_GRAIN: i64 = 15;

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
pub(crate) struct Memory {
    state: RwLock<State>,
    /// When the app last used it, in seconds.
    used_at: AtomicI64,
    /// What second looks at refused tokens have shown.
    pub(crate) checks: Checks,
}

#[derive(Default)]
struct State {
    held: Option<Held>,
    /// The highest generation known to be refused by WeChat, until a later token is held.
    dead: Option<(u64, Option<Refused>)>,
    /// The highest generation seen.
    newest: u64,
    /// Told to everybody until its `retry_at`.
    failure: Option<BrokerError>,
    failures_in_a_row: u32,
    flight: Option<Flight>,
    /// When somebody last asked for another token, and why there was none.
    asked: Option<(DateTime<Utc>, Option<BrokerError>)>,
    /// Whether the flight ends the token in use at once: then nobody uses it meanwhile.
    ends_present: bool,
    ledger: Ledger,
    /// Deaths of tokens that the other replicas have not been asked about yet.
    suspicions: Vec<Suspicion>,
}

impl Memory {
    /// A memory of nothing yet.
    pub(crate) fn new(now: DateTime<Utc>) -> Self {
        Self {
            state: RwLock::default(),
            used_at: AtomicI64::new(now.timestamp()),
            checks: Checks::default(),
        }
    }

    /// A memory that begins with a token.
    pub(crate) fn of(held: Held, ledger: Ledger, now: DateTime<Utc>) -> Self {
        let memory = Self::new(now);
        memory.learn(Some(held), Some(ledger), now);
        memory
    }

    /// The token, if it is alive and not yet due for a refresh. The hot path.
    pub(crate) fn fresh(&self, now: DateTime<Utc>) -> Option<Token> {
        self.touch(now);
        let state = self.read();
        state
            .held
            .as_ref()
            .filter(|held| held.refresh_at > now && held.is_alive(now))
            .map(|held| held.token.clone())
    }

    /// Notes a use.
    pub(crate) fn touch(&self, now: DateTime<Utc>) {
        let now = now.timestamp();
        if now - self.used_at.load(Ordering::Relaxed) >= USE_GRAIN {
            self.used_at.store(now, Ordering::Relaxed);
        }
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
        if let Some(generation) = refused
            && state.bury(generation, now)
        {
            // What is saved for repairs is for this one.
            state.failure.take_if(|failure| failure.is_saving());
        }
        let failure = state.present_failure(now);
        if let Some(held) = state.held.clone().filter(|held| held.is_alive(now)) {
            let token = held.token.clone();
            if held.refresh_at <= now && state.flight.is_none() && failure.is_none() {
                // WeChat keeps the last two legacy tokens. If it made one whose answer was lost, the next ends this.
                state.ends_present = held.mode == TokenMode::Legacy
                    && state.ledger.has_replaced_since(held.fetched_at);
                state.flight = Some(launch(Goal {
                    beyond: token.generation,
                    reason: Reason::Ending(held),
                }));
            }
            return match &state.flight {
                Some(flight) if state.ends_present => Entry::Wait(flight.clone()),
                _ => Entry::Token(token),
            };
        }
        if let Some(failure) = failure {
            return Entry::Failed(failure);
        }
        let goal = state.goal();
        Entry::Wait(state.flight.get_or_insert_with(|| launch(goal)).clone())
    }

    /// Lets somebody in who asks for a token later than `beyond` although nothing is wrong with it, or although WeChat
    /// is to be left alone. What is under way will do, if it brings one.
    pub(crate) fn enter_asking(
        &self,
        now: DateTime<Utc>,
        beyond: u64,
        launch: impl FnOnce(Goal) -> Flight,
    ) -> Entry {
        let mut state = self.write();
        let held = state.held.clone().filter(|held| held.is_alive(now));
        if let Some(Held { token, .. }) =
            held.as_ref().filter(|held| held.token.generation > beyond)
        {
            return Entry::Token(token.clone());
        }
        if let Some(failure) = state.failed_asking(now) {
            return Entry::Failed(failure);
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
        Entry::Wait(state.flight.get_or_insert_with(|| launch(goal)).clone())
    }

    /// Ends a flight: keeps what it brought. One that was only `asked` for and brought nothing changes nothing but what
    /// the next who ask are told.
    pub(crate) fn land(
        &self,
        landed: Result<Held, BrokerError>,
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

    /// Takes in what other replicas know.
    pub(crate) fn learn(&self, held: Option<Held>, ledger: Option<Ledger>, now: DateTime<Utc>) {
        let mut state = self.write();
        if let Some(held) = held.filter(|held| held.token.generation > state.newest) {
            state.adopt(held);
        }
        if let Some(ledger) = ledger {
            state.ledger = state.ledger.merge(ledger, now);
        }
    }

    /// Forgets failures, because somebody may have repaired the app.
    pub(crate) fn forgive(&self) {
        let mut state = self.write();
        state.failure = None;
        state.failures_in_a_row = 0;
        state.asked = None;
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

    /// Takes in what a fetch has counted.
    pub(crate) fn keep_ledger(&self, ledger: Ledger, now: DateTime<Utc>) {
        let mut state = self.write();
        state.ledger = state.ledger.merge(ledger, now);
    }

    /// Notes a death whose cause can be told only when the other replicas can be asked.
    pub(crate) fn suspect(&self, suspicion: Suspicion) {
        let mut state = self.write();
        if state.suspicions.len() < SUSPICIONS {
            state.suspicions.push(suspicion);
        }
    }

    /// Whether there are deaths to be judged.
    pub(crate) fn suspects(&self) -> bool {
        !self.read().suspicions.is_empty()
    }

    /// Judges the deaths that may be judged by now, after the ledger of the other replicas was learned: counts those
    /// that nothing else explains.
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

    /// Whether a fetch is under way.
    pub(crate) fn is_fetching(&self) -> bool {
        self.read().flight.is_some()
    }

    /// Whether the app was used within the last minute.
    pub(crate) fn is_in_use(&self, now: DateTime<Utc>) -> bool {
        !self.is_unused_for(IN_USE, now)
    }

    /// Whether nothing in here is worth keeping: long unused, no token, nothing under way or to be judged, no pause.
    pub(crate) fn is_idle(&self, now: DateTime<Utc>) -> bool {
        self.is_unused_for(IDLE, now) && {
            let state = self.read();
            state.flight.is_none()
                && state.suspicions.is_empty()
                && !state.held.as_ref().is_some_and(|held| held.is_alive(now))
                && state.present_failure(now).is_none()
        }
    }

    /// What may be shown.
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
        // The last use may be later than is known.
        u64::try_from(unused - USE_GRAIN).is_ok_and(|unused| unused >= span.as_secs())
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What is told to everybody now.
    fn present_failure(&self, now: DateTime<Utc>) -> Option<BrokerError> {
        self.failure
            .clone()
            .filter(|failure| failure.retry_at().is_some_and(|retry_at| retry_at > now))
    }

    /// What is told to who asks for another token now: why the last one who asked got none, for half a minute at most.
    fn failed_asking(&self, now: DateTime<Utc>) -> Option<BrokerError> {
        let (at, why) = self.asked.as_ref()?;
        let why = why.clone()?;
        let until = why.retry_at()?.min(*at + REPAIR_INTERVAL);
        (now < until).then_some(why)
    }

    /// Takes the token of `generation` out of use, and older ones with it; says whether one was in use. A later one
    /// stays.
    fn bury(&mut self, generation: u64, now: DateTime<Utc>) -> bool {
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
                .map(|held| Refused { held, at: now });
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

    /// Holds a token, unless it was buried while it was fetched or a later one is there.
    fn adopt(&mut self, held: Held) {
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
