//! A manual clock, for tests.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use tokio::sync::{Notify, oneshot};

/// The control of a manual [`Clock`](crate::Clock).
#[derive(Clone)]
pub struct ManualClock(Arc<Manual>);

struct Manual {
    state: Mutex<ManualState>,
    /// Notified at every new sleeper, for [`ManualClock::sleepers`].
    more_sleepers: Notify,
}

struct ManualState {
    start: DateTime<Utc>,
    now: DateTime<Utc>,
    /// The sleeping tasks, by deadline and then by arrival.
    sleepers: BTreeMap<SleeperId, oneshot::Sender<()>>,
    next_sleeper: u64,
}

type SleeperId = (DateTime<Utc>, u64);

impl ManualClock {
    /// Creates a clock that stands still at `start`.
    pub(super) fn starting(start: DateTime<Utc>) -> Self {
        let state = ManualState {
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

    /// The number of sleeping tasks.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.lock().sleepers.len()
    }

    /// Moves the time forward and wakes all sleepers with a deadline up to the new time, earliest first.
    pub fn advance(&self, by: Duration) {
        let mut state = self.lock();
        let to = state.now + by;
        state.turn(to);
    }

    /// Sets the time and wakes all sleepers with a deadline up to the new time, earliest first.
    pub fn set(&self, to: DateTime<Utc>) {
        self.lock().turn(to);
    }

    /// Waits, while the time stands still, until at least `count` tasks sleep. After that the test may move the clock.
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
        // The sender stays in `sleepers` until `turn` sends, and only dropping `sleeper` removes the sender earlier.
        let _ = woken.await;
        drop(sleeper);
    }

    fn lock(&self) -> MutexGuard<'_, ManualState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ManualState {
    fn turn(&mut self, to: DateTime<Utc>) {
        self.now = to;
        while let Some(first) = self.sleepers.first_entry()
            && first.key().0 <= to
        {
            // Fails when the sleep was cancelled a moment ago.
            let _ = first.remove().send(());
        }
    }
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ManualClock").field(&self.now()).finish()
    }
}

/// Removes a sleeper from the list when the sleep is cancelled.
struct Sleeper<'a> {
    hand: &'a ManualClock,
    id: SleeperId,
}

impl Drop for Sleeper<'_> {
    fn drop(&mut self) {
        self.hand.lock().sleepers.remove(&self.id);
    }
}
