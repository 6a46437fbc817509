//! Counters of days, minutes and months, and the start of each period.

use std::sync::atomic::{AtomicU64, Ordering};

use chrono::{DateTime, Datelike};

use crate::endpoint::CallEndpoint;

const SHANGHAI_MS: i64 = 8 * 3_600_000;

/// The number of the day in Asia/Shanghai, where a day begins at 00:00.
pub(crate) fn day(now_ms: i64) -> u32 {
    u32::try_from((now_ms + SHANGHAI_MS).div_euclid(86_400_000)).unwrap_or(0)
}

/// The number of the minute.
pub(crate) fn minute(now_ms: i64) -> u32 {
    u32::try_from(now_ms.div_euclid(60_000)).unwrap_or(0)
}

/// The number of the month in Asia/Shanghai.
pub(crate) fn month(now_ms: i64) -> u32 {
    DateTime::from_timestamp_millis(now_ms + SHANGHAI_MS).map_or(0, |at| {
        u32::try_from(at.year()).unwrap_or(0) * 12 + at.month()
    })
}

/// A lock-free count that starts at zero in every period: the upper 32 bits hold the period's number, the lower 32 the
/// count.
#[derive(Debug, Default)]
pub(crate) struct PeriodCounter(AtomicU64);

impl PeriodCounter {
    /// Counts one, unless the count of this period has reached `limit`.
    pub(crate) fn take(&self, period: u32, limit: u64) -> bool {
        let limit = limit.min(u64::from(u32::MAX));
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |packed| {
                let used = used_in(packed, period);
                (used < limit).then(|| (u64::from(period) << 32) | (used + 1))
            })
            .is_ok()
    }

    /// The count of this period.
    pub(crate) fn used(&self, period: u32) -> u64 {
        used_in(self.0.load(Ordering::Relaxed), period)
    }

    /// Sets the count to zero.
    pub(crate) fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

fn used_in(packed: u64, period: u32) -> u64 {
    if packed >> 32 == u64::from(period) {
        packed & 0xffff_ffff
    } else {
        0
    }
}

/// The counters of one account.
#[derive(Debug, Default)]
pub(crate) struct Quotas {
    /// Calls of the day, by endpoint. A call to a known account counts whatever the answer.
    pub(crate) days: [PeriodCounter; CallEndpoint::COUNT],
    /// Calls of the minute, by endpoint.
    pub(crate) minutes: [PeriodCounter; CallEndpoint::COUNT],
    /// `clear_quota` and `clear_quota/v2` together, of the month.
    pub(crate) clears: PeriodCounter,
}

impl Quotas {
    /// Clears all counters except `clears`, as `clear_quota` does.
    pub(crate) fn clear(&self) {
        for counter in self.days.iter().chain(&self.minutes) {
            counter.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_day_turns_at_midnight_in_shanghai() {
        // 2026-01-01T15:59:59.999Z is 23:59:59.999 in Shanghai.
        let last = 1_767_283_199_999;
        assert_eq!(day(last) + 1, day(last + 1));
        assert_eq!(month(last), 2026 * 12 + 1);
    }

    #[test]
    fn a_counter_stops_at_its_limit_and_forgets_with_the_period() {
        let counter = PeriodCounter::default();
        assert!(counter.take(7, 2) && counter.take(7, 2));
        assert!(!counter.take(7, 2));
        assert_eq!((counter.used(7), counter.used(8)), (2, 0));
        assert!(counter.take(8, 2));
    }
}
