//! The times of retries.

use std::time::Duration;

use chrono::{DateTime, DurationRound, Timelike, Utc};

/// How long a message that was not sent waits for its next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delay {
    /// After an exponential backoff with jitter: WeChat is busy.
    Backoff,
    /// When the next minute has begun: a per-minute limit was reached (errcode 45011).
    NextMinute,
    /// Within the second: another send to the same user was in flight (errcode 43108).
    Moment,
    /// After the time that WeChat asked for.
    After(Duration),
    /// Immediately: the obstacle is gone.
    AtOnce,
}

/// The first backoff.
const BASE: Duration = Duration::from_secs(1);
/// How many retries within the second a message gets before the ordinary backoff applies.
const MAX_QUICK_RETRIES: u32 = 5;
/// The longest backoff.
const CAP: Duration = Duration::from_mins(10);

impl Delay {
    /// The earliest time of the next attempt after attempt number `attempt` (1 for the first) that ended at `now`.
    ///
    /// `jitter` is a random value in `0.0..1.0`.
    pub fn next_try(self, now: DateTime<Utc>, attempt: u32, jitter: f64) -> DateTime<Utc> {
        match self {
            Self::Backoff => now + backoff(attempt, jitter),
            Self::NextMinute => next_minute(now) + spread(Duration::from_secs(5), jitter),
            Self::Moment if attempt > MAX_QUICK_RETRIES => {
                now + backoff(attempt - MAX_QUICK_RETRIES, jitter)
            }
            Self::Moment => {
                now + Duration::from_millis(200) + spread(Duration::from_millis(800), jitter)
            }
            Self::After(asked) => now + asked + spread(Duration::from_secs(1), jitter),
            Self::AtOnce => now,
        }
    }
}

/// The backoff doubles from one second to ten minutes with each attempt. Jitter subtracts up to half, so that messages
/// that failed together are not retried together.
pub fn backoff(attempt: u32, jitter: f64) -> Duration {
    let doublings = attempt.saturating_sub(1).min(16);
    let full = BASE.saturating_mul(1 << doublings).min(CAP);
    full.saturating_sub(spread(full / 2, jitter))
}

fn spread(width: Duration, jitter: f64) -> Duration {
    width.mul_f64(jitter.clamp(0.0, 1.0))
}

fn next_minute(now: DateTime<Utc>) -> DateTime<Utc> {
    let minute = now
        .duration_trunc(chrono::Duration::minutes(1))
        .unwrap_or(now.with_nanosecond(0).unwrap_or(now));
    minute + chrono::Duration::minutes(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeZone;
    use proptest::prelude::*;

    #[test]
    fn backoff_doubles_to_its_cap() {
        let seconds: Vec<u64> = (1..=12)
            .map(|attempt| backoff(attempt, 0.0).as_secs())
            .collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600]);
        assert_eq!(backoff(3, 1.0), Duration::from_secs(2));
    }

    #[test]
    fn a_minute_limit_waits_for_the_next_minute() {
        let now = Utc.with_ymd_and_hms(2026, 3, 1, 10, 20, 30).unwrap();
        assert_eq!(
            Delay::NextMinute.next_try(now, 1, 0.0),
            Utc.with_ymd_and_hms(2026, 3, 1, 10, 21, 0).unwrap()
        );
    }

    proptest! {
        #[test]
        fn every_delay_is_ahead_and_bounded(attempt in any::<u32>(), jitter in -1.0..2.0f64, asked in 0u64..3600) {
            let now = Utc.with_ymd_and_hms(2026, 3, 1, 10, 20, 59).unwrap();
            for delay in [Delay::Backoff, Delay::NextMinute, Delay::Moment, Delay::After(Duration::from_secs(asked))] {
                let wait = delay.next_try(now, attempt, jitter) - now;
                prop_assert!(wait >= chrono::Duration::zero());
                prop_assert!(wait <= chrono::Duration::seconds(3601).max(chrono::Duration::seconds(600)));
            }
        }
    }
}
