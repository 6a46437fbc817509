//! The program's source of time: the machine's clock, which may follow another clock, or a manual clock for tests.

mod anchor;
mod machine;
mod manual;

use std::{fmt, sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};

use self::machine::Machine;
pub use self::{
    anchor::Sample,
    machine::{ClockFeed, ClockTrouble, FARTHEST, Off},
    manual::ManualClock,
};

/// The longest time that a system sleep goes without reading the wall clock again, which may have been set.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// The program's only source of time. Cloning is cheap, and clones show the same time.
///
/// [`Clock::system`] shows the machine's time until [`Clock::follow`] makes the clock follow another one. The time is
/// then the last answer of the followed clock plus the monotonic time since, independent of the machine's clock.
#[derive(Clone)]
pub struct Clock(ClockSource);

#[derive(Clone)]
enum ClockSource {
    System(Arc<Machine>),
    Manual(ManualClock),
}

impl Clock {
    /// Creates a clock that shows the machine's time.
    pub fn system() -> Self {
        Self(ClockSource::System(Arc::new(Machine::new())))
    }

    /// Creates a clock that stands still at `start` until moved by the [`ManualClock`]. Sleeps take no real time.
    pub fn manual(start: DateTime<Utc>) -> (Self, ManualClock) {
        let hand = ManualClock::starting(start);
        (Self(ClockSource::Manual(hand.clone())), hand)
    }

    /// Makes this clock and all clones follow another clock from the first sample on; none: a manual clock follows
    /// nothing.
    pub fn follow(&self) -> Option<ClockFeed> {
        match &self.0 {
            ClockSource::System(machine) => Some(ClockFeed::of(machine)),
            ClockSource::Manual(_) => None,
        }
    }

    /// The time of day.
    pub fn now(&self) -> DateTime<Utc> {
        match &self.0 {
            ClockSource::System(machine) => machine.now(),
            ClockSource::Manual(hand) => hand.now(),
        }
    }

    /// How far the machine's clock is ahead of the followed clock; none: no clock is followed, or none has answered.
    pub fn off(&self) -> Option<TimeDelta> {
        match &self.0 {
            ClockSource::System(machine) => machine.off(),
            ClockSource::Manual(_) => None,
        }
    }

    /// Why the replica should take no work by this clock; none: no trouble.
    pub fn trouble(&self) -> Option<ClockTrouble> {
        match &self.0 {
            ClockSource::System(machine) => machine.trouble(),
            ClockSource::Manual(_) => None,
        }
    }

    /// Returns when there is no [`trouble`](Self::trouble), usually at once.
    pub async fn right(&self) {
        if let ClockSource::System(machine) = &self.0 {
            machine.right().await;
        }
    }

    /// Asks the followed clock now, and returns the time after the answer. For use before irrevocable steps.
    pub async fn checked(&self) -> DateTime<Utc> {
        if let ClockSource::System(machine) = &self.0 {
            machine.ask().await;
        }
        self.now()
    }

    /// How long this clock has run without a jump of more than a second. A jump comes from the followed clock, or from
    /// a change of the machine's clock. A minute by the clock that began before a jump may have been no minute.
    pub fn steady_for(&self) -> Duration {
        match &self.0 {
            ClockSource::System(machine) => machine.steady_for(),
            ClockSource::Manual(_) => Duration::MAX,
        }
    }

    /// Sleeps for `duration`, independent of changes of the wall clock.
    pub async fn sleep(&self, duration: Duration) {
        match &self.0 {
            ClockSource::System(_) => tokio::time::sleep(duration).await,
            ClockSource::Manual(hand) => hand.sleep_until(hand.now() + duration).await,
        }
    }

    /// Sleeps until `deadline`, and returns at once when `deadline` has passed. The sleep follows jumps of the clock; a
    /// change of the wall clock of a machine that follows no other clock is noticed within half a minute.
    pub async fn sleep_until(&self, deadline: DateTime<Utc>) {
        match &self.0 {
            ClockSource::System(machine) => loop {
                let mut jumped = std::pin::pin!(machine.jumps().notified());
                jumped.as_mut().enable();
                let left = (deadline - self.now()).to_std().unwrap_or_default();
                if left.is_zero() {
                    return;
                }
                // A jump ends this sleep too.
                let _ = tokio::time::timeout(left.min(LOOK_AGAIN), jumped).await;
            },
            ClockSource::Manual(hand) => hand.sleep_until(deadline).await,
        }
    }

    /// The time since this clock was made, which never goes back. For rates and rounds, where a change of the wall
    /// clock would grant or refuse hours at once.
    pub fn elapsed(&self) -> Duration {
        match &self.0 {
            ClockSource::System(machine) => machine.elapsed(),
            ClockSource::Manual(hand) => hand.elapsed(),
        }
    }

    /// Whether the clock is manual, so that scripts must not use Redis's own clock.
    pub(crate) fn is_manual(&self) -> bool {
        matches!(self.0, ClockSource::Manual(_))
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

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
        assert_eq!(time.count(), 0);
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

    /// An answer of a clock that is `ahead` of this machine's clock.
    #[expect(
        clippy::disallowed_methods,
        reason = "stands for another machine's clock"
    )]
    fn answer(ahead: TimeDelta) -> Sample {
        Sample {
            time: Utc::now() + ahead,
            asked_at: Instant::now(),
            round_trip: Duration::ZERO,
        }
    }

    const MINUTE: TimeDelta = TimeDelta::minutes(1);

    #[tokio::test]
    async fn a_clock_that_follows_another_shows_its_time_and_not_the_machines() {
        let (clock, machine) = (Clock::system(), Clock::system());
        assert_eq!((clock.trouble(), clock.off()), (None, None));
        let leader = clock.follow().unwrap();
        assert_eq!(clock.trouble(), Some(ClockTrouble::Unknown));
        assert_eq!(clock.right().now_or_never(), None);
        let slow = Sample {
            round_trip: SECOND * 2,
            ..answer(MINUTE)
        };
        assert!(!leader.take(&slow), "it may be off by a second");
        assert_eq!(clock.trouble(), Some(ClockTrouble::Unknown));

        assert!(leader.take(&answer(TimeDelta::seconds(20))));
        assert!(clock.now() - machine.now() > TimeDelta::seconds(19));
        assert!(clock.off().unwrap() < TimeDelta::seconds(-19));
        assert_eq!(clock.right().now_or_never(), Some(()));
        assert_eq!(clock.steady_for(), Duration::MAX);

        assert!(leader.take(&answer(-MINUTE)));
        assert!(machine.now() - clock.now() > TimeDelta::seconds(59));
        assert!(clock.steady_for() < SECOND * 50, "it has jumped");
        let Some(ClockTrouble::Far(off)) = clock.trouble() else {
            panic!("{:?}", clock.trouble());
        };
        let words = ClockTrouble::Far(off).to_string();
        assert!(words.contains("60.0 s ahead of the database's"), "{words}");
        assert_eq!(clock.right().now_or_never(), None);
        assert!(leader.take(&answer(TimeDelta::zero())));
        assert_eq!(clock.right().now_or_never(), Some(()));
    }

    #[tokio::test]
    async fn who_cannot_wait_for_the_next_sample_asks_for_it() {
        let clock = Clock::system();
        assert!(
            clock.checked().now_or_never().is_some(),
            "there is nobody to ask"
        );
        let leader = clock.follow().unwrap();
        leader.take(&answer(TimeDelta::zero()));
        let lead = async {
            leader.asked().await;
            leader.take(&answer(MINUTE));
        };
        let (checked, ()) = tokio::join!(clock.checked(), lead);
        assert!(checked - Clock::system().now() > TimeDelta::seconds(59));
    }

    #[tokio::test]
    async fn a_sleep_follows_a_jump() {
        let clock = Clock::system();
        let leader = clock.follow().unwrap();
        leader.take(&answer(TimeDelta::zero()));
        let mut sleep = std::pin::pin!(clock.sleep_until(clock.now() + MINUTE));
        assert_eq!(sleep.as_mut().now_or_never(), None);
        leader.take(&answer(MINUTE * 2));
        assert_eq!(sleep.now_or_never(), Some(()));
    }
}
