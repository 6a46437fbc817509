//! The machine's clock, and how the machine's clock follows another one.
//!
//! [`ClockTrouble`] stops the worker, the sweeper, the announcer, the janitor and the syncer of a replica, and
//! `/readyz` answers 503: one of the two clocks is certainly wrong. The same holds between a jump of the machine's
//! clock, such as after a suspension of the machine, and the next answer of the followed clock.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::{Notify, watch};

use super::anchor::{Anchor, STEP, Sample, SampleEffect};

/// The largest difference between a machine's clock and the followed clock with which a replica still takes work. Due
/// times and leases would still be right beyond that; certificates, the log and signatures would not.
pub const FARTHEST: TimeDelta = TimeDelta::seconds(30);

/// Why a replica takes no work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClockTrouble {
    /// No answer of the followed clock has come yet.
    #[error(
        "the database has not reported its time yet: this replica takes no work until the database answers"
    )]
    Unknown,
    /// The machine's clock is too far off.
    #[error(
        "this machine's clock is {} the database's clock, more than the allowed {} s: this replica takes no work until both clocks are synchronised (NTP)",
        Off(*.0), FARTHEST.num_seconds()
    )]
    Far(TimeDelta),
    /// The machine's clock was set, or the machine was suspended, since the last answer of the followed clock.
    #[error(
        "this machine's clock has jumped: this replica takes no work until the database has reported its time again"
    )]
    Jumped,
}

/// Shows a difference in words: `1.2 s ahead of`.
pub struct Off(pub TimeDelta);

impl fmt::Display for Off {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = if self.0 < TimeDelta::zero() {
            "behind"
        } else {
            "ahead of"
        };
        let ms = self.0.num_milliseconds().unsigned_abs();
        write!(f, "{}.{} s {side}", ms / 1000, ms % 1000 / 100)
    }
}

/// The machine's clock.
pub(super) struct Machine {
    started: Instant,
    state: Mutex<State>,
    /// Changes with every useful sample.
    samples: watch::Sender<u64>,
    /// Notified when a caller cannot wait for the next regular sample.
    asks: Notify,
    /// Notified when the time jumps, for sleeps until a time of day.
    jumps: Notify,
}

#[derive(Default)]
struct State {
    /// Whether this clock follows another one.
    follows: bool,
    line: Option<Anchor>,
    /// The difference between the wall clock and the shown time at the last sample; when no clock is followed: between
    /// the wall clock and the monotonic clock at the last look.
    off: Option<TimeDelta>,
    jumped_at: Option<Instant>,
}

impl Machine {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            state: Mutex::default(),
            samples: watch::Sender::default(),
            asks: Notify::new(),
            jumps: Notify::new(),
        }
    }

    pub(super) fn now(&self) -> DateTime<Utc> {
        let line = self.lock().line;
        line.map_or_else(wall, |line| line.now(Instant::now()))
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Notified when the time jumps.
    pub(super) fn jumps(&self) -> &Notify {
        &self.jumps
    }

    pub(super) fn off(&self) -> Option<TimeDelta> {
        let line = self.lock().line?;
        Some(wall() - line.now(Instant::now()))
    }

    pub(super) fn trouble(&self) -> Option<ClockTrouble> {
        let (follows, then) = {
            let state = self.lock();
            (state.follows, state.off)
        };
        if !follows {
            return None;
        }
        let (Some(off), Some(then)) = (self.off(), then) else {
            return Some(ClockTrouble::Unknown);
        };
        if off.abs() > FARTHEST {
            Some(ClockTrouble::Far(off))
        } else if is_jump(off - then) {
            Some(ClockTrouble::Jumped)
        } else {
            None
        }
    }

    /// Returns when there is no trouble.
    pub(super) async fn right(&self) {
        let mut samples = self.samples.subscribe();
        while self.trouble().is_some() {
            samples.borrow_and_update();
            self.asks.notify_one();
            // The sender lives as long as `self`.
            let _ = samples.changed().await;
        }
    }

    /// Requests a sample, and returns after the next useful one.
    pub(super) async fn ask(&self) {
        if !self.lock().follows {
            return;
        }
        let mut samples = self.samples.subscribe();
        samples.borrow_and_update();
        self.asks.notify_one();
        let _ = samples.changed().await;
    }

    /// The time since the last jump.
    pub(super) fn steady_for(&self) -> Duration {
        let elapsed = TimeDelta::from_std(self.elapsed()).unwrap_or(TimeDelta::MAX);
        let mut state = self.lock();
        if !state.follows {
            let off = (wall() - DateTime::UNIX_EPOCH) - elapsed;
            if state.off.is_some_and(|then| is_jump(off - then)) {
                state.jumped_at = Some(Instant::now());
            }
            state.off = Some(off);
        }
        state.jumped_at.map_or(Duration::MAX, |at| at.elapsed())
    }

    fn take(&self, sample: &Sample) -> bool {
        if !sample.is_useful() {
            return false;
        }
        let at = Instant::now();
        let mut state = self.lock();
        let (line, change) = match state.line {
            None => (Anchor::first(sample, at), SampleEffect::Smooth),
            Some(line) => line.take(sample, at),
        };
        state.line = Some(line);
        state.off = Some(wall() - line.now(at));
        if change == SampleEffect::Jump {
            state.jumped_at = Some(at);
            self.jumps.notify_waiters();
        }
        drop(state);
        self.samples.send_modify(|samples| *samples += 1);
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_jump(by: TimeDelta) -> bool {
    by.abs().to_std().is_ok_and(|by| by > STEP)
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that reads the wall clock"
)]
fn wall() -> DateTime<Utc> {
    Utc::now()
}

/// The handle by which a [`Clock`](crate::Clock) follows another clock. The owner of the handle asks the other clock
/// every few seconds, and whenever [`ClockFeed::asked`] returns.
#[derive(Clone)]
pub struct ClockFeed(Arc<Machine>);

impl ClockFeed {
    pub(super) fn of(machine: &Arc<Machine>) -> Self {
        machine.lock().follows = true;
        Self(machine.clone())
    }

    /// Passes an answer of the other clock, received just now, to this clock. Returns whether the answer was of use: an
    /// answer that took more than a second is not.
    pub fn take(&self, sample: &Sample) -> bool {
        self.0.take(sample)
    }

    /// Returns when a caller cannot wait for the next regular sample.
    pub async fn asked(&self) {
        self.0.asks.notified().await;
    }
}

impl fmt::Debug for ClockFeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Leader")
    }
}
