//! The simulated time: real, shifted, or pinned by a test.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The value of `pinned` while the clock runs.
const LOOSE: i64 = i64::MIN;

/// The clock for the age of tokens and for the periods of counters.
///
/// The clock is the machine's clock plus an offset, until [`pin`](Self::pin) freezes the time. Latencies are real time:
/// a call with a latency of 50 ms takes 50 real milliseconds.
#[derive(Debug)]
pub struct SimClock {
    offset: AtomicI64,
    pinned: AtomicI64,
}

impl Default for SimClock {
    fn default() -> Self {
        Self {
            offset: AtomicI64::new(0),
            pinned: AtomicI64::new(LOOSE),
        }
    }
}

impl SimClock {
    /// The simulated time, in milliseconds since 1970.
    pub fn now_ms(&self) -> i64 {
        match self.pinned.load(Ordering::Relaxed) {
            LOOSE => real_ms().saturating_add(self.offset.load(Ordering::Relaxed)),
            pinned => pinned,
        }
    }

    /// Moves the time forward: the pinned time if there is one, the offset otherwise.
    pub fn advance(&self, by: Duration) {
        self.advance_ms(i64::try_from(by.as_millis()).unwrap_or(i64::MAX));
    }

    /// Moves the time by a number of milliseconds; a negative number moves the time back.
    pub fn advance_ms(&self, by: i64) {
        let moved = self
            .pinned
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |pinned| {
                (pinned != LOOSE).then(|| pinned.saturating_add(by))
            });
        if moved.is_err() {
            self.offset.fetch_add(by, Ordering::Relaxed);
        }
    }

    /// Freezes the time at `now_ms`, in milliseconds since 1970, until the next `pin`, `advance` or `release`.
    pub fn pin(&self, now_ms: i64) {
        self.pinned.store(now_ms, Ordering::Relaxed);
    }

    /// Returns to the machine's time.
    pub fn release(&self) {
        self.offset.store(0, Ordering::Relaxed);
        self.pinned.store(LOOSE, Ordering::Relaxed);
    }

    /// Whether the time is frozen.
    pub fn is_pinned(&self) -> bool {
        self.pinned.load(Ordering::Relaxed) != LOOSE
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the simulator plays another company's machine: it has its own clock, and this is the only place that reads the real one"
)]
fn real_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_clock_stands_still_until_it_is_advanced() {
        let clock = SimClock::default();
        clock.pin(1_000);
        assert_eq!(clock.now_ms(), 1_000);
        clock.advance(Duration::from_secs(5));
        assert_eq!(clock.now_ms(), 6_000);
        clock.release();
        assert!(!clock.is_pinned());
        assert!(clock.now_ms() > 1_700_000_000_000);
    }

    #[test]
    fn a_loose_clock_keeps_its_offset() {
        let clock = SimClock::default();
        let before = clock.now_ms();
        clock.advance(Duration::from_hours(24));
        assert!(clock.now_ms() >= before + 86_400_000);
    }
}
