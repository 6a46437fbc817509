//! The time, as a thing that can be handed over and turned by hand.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use tokio::sync::{Notify, oneshot};

/// The longest stretch a system sleep goes without looking at the wall clock again, which may have been set.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// The program's only source of time. Cloning is cheap, and clones show the same time.
#[derive(Clone)]
pub struct Clock(Source);

#[derive(Clone)]
enum Source {
    System { started: Instant },
    Manual(ManualClock),
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(Source::System {
            started: Instant::now(),
        })
    }

    /// A clock that stands still at `start` until its [`ManualClock`] moves it. Sleeps under it take no real time.
    pub fn manual(start: DateTime<Utc>) -> (Self, ManualClock) {
        let state = State {
            start,
            now: start,
            sleepers: BTreeMap::new(),
            next_sleeper: 0,
        };
        let hand = ManualClock(Arc::new(Manual {
            state: Mutex::new(state),
            more_sleepers: Notify::new(),
        }));
        (Self(Source::Manual(hand.clone())), hand)
    }

    /// The time of day.
    pub fn now(&self) -> DateTime<Utc> {
        match &self.0 {
            #[expect(
                clippy::disallowed_methods,
                reason = "this is the one place that reads the wall clock"
            )]
            Source::System { .. } => Utc::now(),
            Source::Manual(hand) => hand.now(),
        }
    }

    /// Sleeps for `duration`, whatever happens to the wall clock meanwhile.
    pub async fn sleep(&self, duration: Duration) {
        match &self.0 {
            Source::System { .. } => tokio::time::sleep(duration).await,
            Source::Manual(hand) => hand.sleep_until(hand.now() + duration).await,
        }
    }

    /// Sleeps until `deadline`; returns at once when it has passed. When the wall clock is set, the sleep follows
    /// within half a minute.
    pub async fn sleep_until(&self, deadline: DateTime<Utc>) {
        match &self.0 {
            Source::System { .. } => {
                while let Ok(left) = (deadline - self.now()).to_std()
                    && !left.is_zero()
                {
                    tokio::time::sleep(left.min(LOOK_AGAIN)).await;
                }
            }
            Source::Manual(hand) => hand.sleep_until(deadline).await,
        }
    }

    /// Time since this clock was made, which never goes back: for rates, where a wall clock that is set would
    /// grant or refuse hours at once.
    pub(crate) fn elapsed(&self) -> Duration {
        match &self.0 {
            Source::System { started } => started.elapsed(),
            Source::Manual(hand) => hand.elapsed(),
        }
    }

    /// Whether time is turned by hand, so that Redis's own clock must not be asked.
    pub(crate) fn is_manual(&self) -> bool {
        matches!(self.0, Source::Manual(_))
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_manual() {
            "Clock(manual)"
        } else {
            "Clock(system)"
        })
    }
}

/// The hand that turns a manual [`Clock`].
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

    fn now(&self) -> DateTime<Utc> {
        self.lock().now
    }

    fn elapsed(&self) -> Duration {
        let state = self.lock();
        (state.now - state.start).to_std().unwrap_or_default()
    }

    async fn sleep_until(&self, deadline: DateTime<Utc>) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{FutureExt, StreamExt, stream::FuturesUnordered};

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn sleepers_wake_in_order_and_only_when_due() {
        let (clock, time) = Clock::manual(DateTime::UNIX_EPOCH);
        let mut sleeps: FuturesUnordered<_> = [3u32, 1, 2, 9]
            .into_iter()
            .map(|n| clock.sleep(SECOND * n).map(move |()| n))
            .collect();
        assert_eq!(sleeps.next().now_or_never(), None);
        time.sleepers(4).await;

        time.advance(SECOND * 3);

        assert_eq!(sleeps.by_ref().take(3).collect::<Vec<_>>().await, [1, 2, 3]);
        assert_eq!(sleeps.next().now_or_never(), None);
        assert_eq!(clock.now(), DateTime::UNIX_EPOCH + SECOND * 3);
    }

    #[tokio::test]
    async fn a_cancelled_sleep_leaves_nothing_behind() {
        let (clock, time) = Clock::manual(DateTime::UNIX_EPOCH);
        assert_eq!(clock.sleep(SECOND).now_or_never(), None);
        assert!(time.lock().sleepers.is_empty());
    }

    #[tokio::test]
    async fn a_deadline_that_has_passed_is_no_sleep() {
        let (manual, _time) = Clock::manual(DateTime::UNIX_EPOCH);
        for clock in [manual, Clock::system()] {
            assert_eq!(clock.sleep_until(clock.now()).now_or_never(), Some(()));
        }
    }

    #[tokio::test]
    async fn the_system_clock_sleeps_for_as_long_as_asked() {
        let (clock, before) = (Clock::system(), Instant::now());
        clock.sleep(SECOND / 100).await;
        clock.sleep_until(clock.now() + SECOND / 100).await;
        assert!(before.elapsed() >= SECOND / 50);
    }
}
