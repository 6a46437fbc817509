//! A clock that is turned by hand.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use tokio::sync::{Notify, oneshot};

/// The hand that turns a manual [`Clock`](crate::Clock).
#[derive(Clone)]
pub struct ManualClock(Arc<Manual>);

struct Manual {
    state: Mutex<State>,
    /// Rung at every new sleeper, for [`ManualClock::sleepers`].
    more_sleepers: Notify,
}

struct State {
    start: DateTime<Utc>,
    now: DateTime<Utc>,
    /// Who sleeps, by deadline and then by arrival.
    sleepers: BTreeMap<SleeperId, oneshot::Sender<()>>,
    next_sleeper: u64,
}

type SleeperId = (DateTime<Utc>, u64);

impl ManualClock {
    /// One that stands still at `start`.
    pub(super) fn starting(start: DateTime<Utc>) -> Self {
        let state = State {
            start,
            now: start,
            sleepers: BTreeMap::new(),
            next_sleeper: 0,
        };
        Self(Arc::new(Manual {
            state: Mutex::new(state),
            more_sleepers: Notify::new(),
        }))
    }

    /// How many sleep.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.lock().sleepers.len()
    }

    /// Moves the time forward and wakes whoever's deadline it reaches, earliest first.
    pub fn advance(&self, by: Duration) {
        let mut state = self.lock();
        let to = state.now + by;
        state.turn(to);
    }

    /// Sets the time and wakes whoever's deadline it reaches, earliest first.
    pub fn set(&self, to: DateTime<Utc>) {
        self.lock().turn(to);
    }

    /// Waits, without any time passing, until at least `count` tasks sleep: then it makes sense to turn the clock.
    pub async fn sleepers(&self, count: usize) {
        loop {
            let more = self.0.more_sleepers.notified();
            if self.lock().sleepers.len() >= count {
                return;
            }
            more.await;
        }
    }

    pub(super) fn now(&self) -> DateTime<Utc> {
        self.lock().now
    }

    pub(super) fn elapsed(&self) -> Duration {
        let state = self.lock();
        (state.now - state.start).to_std().unwrap_or_default()
    }

    pub(super) async fn sleep_until(&self, deadline: DateTime<Utc>) {
        let (wake, woken) = oneshot::channel();
        let sleeper = {
            let mut state = self.lock();
            if deadline <= state.now {
                return;
            }
            let id = (deadline, state.next_sleeper);
            state.next_sleeper += 1;
            state.sleepers.insert(id, wake);
            Sleeper { hand: self, id }
        };
        self.0.more_sleepers.notify_waiters();
        // The sender lives in `sleepers` until it is sent, and only `sleeper` takes it out before.
        let _ = woken.await;
        drop(sleeper);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn turn(&mut self, to: DateTime<Utc>) {
        self.now = to;
        while let Some(first) = self.sleepers.first_entry()
            && first.key().0 <= to
        {
            // A receiver that is gone was cancelled a moment ago.
            let _ = first.remove().send(());
        }
    }
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ManualClock").field(&self.now()).finish()
    }
}

/// Takes a sleeper off the list when its sleep is cancelled.
struct Sleeper<'a> {
    hand: &'a ManualClock,
    id: SleeperId,
}

impl Drop for Sleeper<'_> {
    fn drop(&mut self) {
        self.hand.lock().sleepers.remove(&self.id);
    }
}
