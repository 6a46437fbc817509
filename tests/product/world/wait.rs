//! The one place where tests wait.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use coord::ManualClock;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at};

/// Longer than anything here takes on a slow machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// While a test waits, a clock that is turned by hand goes on too, a second at a time and no faster than real ones:
/// an engine may have looked just before the time was turned, and means to look again in a second.
const SECOND: Duration = Duration::from_secs(1);

/// The time in a world.
#[derive(Clone, Default)]
pub(crate) struct Time {
    hand: Option<ManualClock>,
    turns: Arc<AtomicU64>,
}

impl Time {
    /// The time that this hand turns.
    pub(crate) fn of(hand: ManualClock) -> Self {
        Self {
            hand: Some(hand),
            ..Self::default()
        }
    }

    /// How often it was turned: a token fetched before may be too old by now.
    pub(crate) fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// Turns it.
    pub(crate) fn pass(&self, time: Duration) {
        self.turns.fetch_add(1, Ordering::Relaxed);
        self.hand.as_ref().expect("a world by hand").advance(time);
    }

    /// Waits for `work`, and the time goes on meanwhile.
    pub(crate) async fn during<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::select! {
            done = work => done,
            () = self.go_on() => unreachable!("time goes on for ever"),
        }
    }

    /// As [`eventually`], and the time goes on meanwhile.
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

/// Asks `look` again and again until it has an answer; panics with `what` was awaited when patience is over.
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

/// As [`eventually`], for a condition without an answer.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    eventually(what, || {
        let now = holds().then_some(());
        async move { now }
    })
    .await;
}
