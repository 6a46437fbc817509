//! The waiting of all tests.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use coord::ManualClock;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at};

/// Longer than any step of the tests takes on a slow machine that runs other tests too.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// While a test waits, a manual clock advances one second for each real second: an engine may have looked just before
/// the test advanced the clock, and looks again a second later.
const SECOND: Duration = Duration::from_secs(1);

/// The clock of a world.
#[derive(Clone, Default)]
pub(crate) struct Time {
    hand: Option<ManualClock>,
    turns: Arc<AtomicU64>,
}

impl Time {
    /// The clock that this handle advances.
    pub(crate) fn of(hand: ManualClock) -> Self {
        Self {
            hand: Some(hand),
            ..Self::default()
        }
    }

    /// How often the test advanced the clock. A token from before the last advance may have expired.
    pub(crate) fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// Advances the clock.
    pub(crate) fn pass(&self, time: Duration) {
        self.turns.fetch_add(1, Ordering::Relaxed);
        self.hand.as_ref().expect("a world by hand").advance(time);
    }

    /// Waits for `work`, while the clock advances.
    pub(crate) async fn during<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::select! {
            done = work => done,
            () = self.go_on() => unreachable!("time goes on for ever"),
        }
    }

    /// As [`eventually`], while the clock advances.
    pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
        &self,
        what: &str,
        look: impl FnMut() -> F,
    ) -> T {
        self.during(eventually(what, look)).await
    }

    async fn go_on(&self) {
        let Some(hand) = &self.hand else {
            return std::future::pending().await;
        };
        let mut seconds = interval_at(Instant::now() + SECOND, SECOND);
        loop {
            seconds.tick().await;
            hand.advance(SECOND);
        }
    }
}

/// Calls `look` repeatedly until there is a result. Panics after 30 s, with `what` in the message.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut look: impl FnMut() -> F,
) -> T {
    let deadline = Instant::now() + PATIENCE;
    let mut ticks = interval(LOOK_AGAIN);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Some(found) = look().await {
            return found;
        }
        assert!(
            Instant::now() < deadline,
            "not within {} s: {what}",
            PATIENCE.as_secs()
        );
    }
}

/// As [`eventually`], for a condition without a result.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    eventually(what, || {
        let now = holds().then_some(());
        async move { now }
    })
    .await;
}
