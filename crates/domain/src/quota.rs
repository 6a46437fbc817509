//! Quota arithmetic: how much of an app's daily quota a message may use, and when the next day begins.
//!
//! WeChat counts per account and day. No page of WeChat states the hour of the reset. Users observe a reset at 00:00
//! Asia/Shanghai, so the gateway counts days in this time zone.

use chrono::{DateTime, Days, FixedOffset, NaiveDate, NaiveTime, TimeZone, Utc};

use crate::message::Priority;

/// Asia/Shanghai: UTC+8 all year, without daylight saving time since 1991.
const SHANGHAI: FixedOffset = FixedOffset::east_opt(8 * 3600).unwrap();

/// The calendar day in Shanghai that `now` falls in.
pub fn day(now: DateTime<Utc>) -> NaiveDate {
    now.with_timezone(&SHANGHAI).date_naive()
}

/// The next 00:00 in Shanghai after `now`.
pub fn reset_at(now: DateTime<Utc>) -> DateTime<Utc> {
    let tomorrow = day(now)
        .checked_add_days(Days::new(1))
        .unwrap_or(NaiveDate::MAX);
    match SHANGHAI
        .from_local_datetime(&tomorrow.and_time(NaiveTime::MIN))
        .single()
    {
        Some(midnight) => midnight.with_timezone(&Utc),
        None => DateTime::<Utc>::MAX_UTC,
    }
}

/// The share of the daily limit, in percent, that messages of each priority may use.
///
/// The rest is reserved for higher priorities: bulk messages cannot use the last sends of the day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PriorityShares {
    /// The share for `low`.
    pub low: u8,
    /// The share for `normal`.
    pub normal: u8,
    /// The share for `high`.
    pub high: u8,
}

impl Default for PriorityShares {
    fn default() -> Self {
        Self {
            low: 80,
            normal: 95,
            high: 100,
        }
    }
}

impl PriorityShares {
    /// The highest use of a daily `limit` at which a message of `priority` may still be sent.
    pub fn ceiling(self, limit: u64, priority: Priority) -> u64 {
        let percent = match priority {
            Priority::High => self.high,
            Priority::Normal => self.normal,
            Priority::Low => self.low,
        };
        // Rounded up, so that every priority may use the only send of a tiny quota.
        let share = (u128::from(limit) * u128::from(percent.min(100))).div_ceil(100);
        u64::try_from(share).unwrap_or(limit)
    }

    /// How many more messages of `priority` may be sent today.
    pub fn remaining(self, limit: u64, used: u64, priority: Priority) -> u64 {
        self.ceiling(limit, priority).saturating_sub(used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_day_turns_at_sixteen_utc() {
        let before = Utc.with_ymd_and_hms(2026, 3, 1, 15, 59, 59).unwrap();
        let after = Utc.with_ymd_and_hms(2026, 3, 1, 16, 0, 0).unwrap();
        assert_eq!(day(before).to_string(), "2026-03-01");
        assert_eq!(day(after).to_string(), "2026-03-02");
        assert_eq!(reset_at(before), after);
        assert_eq!(
            reset_at(after),
            Utc.with_ymd_and_hms(2026, 3, 2, 16, 0, 0).unwrap()
        );
    }

    #[test]
    fn shares_round_up() {
        let shares = PriorityShares::default();
        assert_eq!(shares.ceiling(1_000_000, Priority::Low), 800_000);
        assert_eq!(shares.ceiling(1_000_000, Priority::Normal), 950_000);
        assert_eq!(shares.ceiling(1, Priority::Low), 1);
        assert_eq!(shares.ceiling(1, Priority::High), 1);
        assert_eq!(shares.remaining(100, 96, Priority::Normal), 0);
        assert_eq!(shares.remaining(100, 96, Priority::High), 4);
    }

    proptest! {
        #[test]
        fn no_priority_passes_the_limit_and_a_higher_one_never_gets_less(limit in any::<u64>(), used in any::<u64>()) {
            let shares = PriorityShares::default();
            let [low, normal, high] = [Priority::Low, Priority::Normal, Priority::High].map(|p| shares.remaining(limit, used, p));
            prop_assert!(low <= normal && normal <= high && high == limit.saturating_sub(used));
        }

        #[test]
        fn a_reset_is_within_a_day_and_starts_another_day(secs in 0i64..4_000_000_000) {
            let now = Utc.timestamp_opt(secs, 0).unwrap();
            let reset = reset_at(now);
            prop_assert!(reset > now && reset - now <= chrono::Duration::days(1));
            prop_assert!(day(reset) > day(now));
            prop_assert_eq!(day(reset - chrono::Duration::milliseconds(1)), day(now));
        }
    }
}
