//! Rate limits: how often something may happen, by key, judged by the generic cell rate algorithm.

use std::{
    hash::{BuildHasher, RandomState},
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use dashmap::DashMap;
use governor::{
    RateLimiter, clock::Clock as GovernorClock, middleware::StateInformationMiddleware,
    nanos::Nanos, state::keyed::DashMapStateStore,
};

use crate::{Clock, CoordError};

/// How often keys with a full bucket are removed.
const SWEEP: Duration = Duration::from_mins(1);

/// A bucket of `burst` permits, filled at `per_period` in each `period`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RateLimit {
    interval: Duration,
    burst: NonZeroU32,
}

impl RateLimit {
    /// Creates a quota of `per_period` in each `period` in the long run, and at most `burst` at once. Zero counts as
    /// one. The rate is kept as the time from one permit to the next, in whole microseconds.
    pub fn new(per_period: u32, period: Duration, burst: u32) -> Self {
        let micros = period.as_micros() / u128::from(per_period.max(1));
        let interval = Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX).max(1));
        Self {
            interval,
            burst: NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN),
        }
    }

    /// A quota of `rate` a second, and as many at once.
    pub fn per_second(rate: u32) -> Self {
        Self::new(rate, Duration::from_secs(1), rate)
    }

    /// A quota of `rate` a minute, and as many at once.
    pub fn per_minute(rate: u32) -> Self {
        Self::new(rate, Duration::from_mins(1), rate)
    }

    /// The most permits at once.
    pub fn burst(self) -> u32 {
        self.burst.get()
    }

    /// The time in which one permit comes back.
    pub fn interval(self) -> Duration {
        self.interval
    }

    /// The permits that `cost` takes out of the bucket: at least one, at most the whole bucket.
    pub(crate) fn charge(self, cost: u32) -> NonZeroU32 {
        NonZeroU32::new(cost)
            .unwrap_or(NonZeroU32::MIN)
            .min(self.burst)
    }
}

/// The answer of a limit to one request. The fields are those of the `RateLimit` headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether the request is allowed. A refused request is not charged.
    pub allowed: bool,
    /// The size of the bucket, in permits.
    pub limit: u32,
    /// The permits left in the bucket.
    pub remaining: u32,
    /// The time until the bucket is full again, rounded up to the time of one permit.
    pub reset_after: Duration,
    /// The time until the same cost will be allowed; zero for an allowed request.
    pub retry_after: Duration,
}

impl Decision {
    pub(crate) fn allow(quota: RateLimit, remaining: u32) -> Self {
        Self::new(quota, true, remaining, Duration::ZERO)
    }

    pub(crate) fn refuse(quota: RateLimit, remaining: u32, retry_after: Duration) -> Self {
        Self::new(quota, false, remaining, retry_after)
    }

    fn new(quota: RateLimit, allowed: bool, remaining: u32, retry_after: Duration) -> Self {
        let limit = quota.burst();
        let reset_after = quota
            .interval()
            .saturating_mul(limit.saturating_sub(remaining));
        Self {
            allowed,
            limit,
            remaining,
            reset_after,
            retry_after,
        }
    }
}

/// How often something may happen. A key is always asked with the same quota. Another quota is another bucket in
/// process, and the same bucket measured with another rule over Redis.
#[async_trait]
pub trait Limits: Send + Sync {
    /// Takes `cost` permits out of the bucket of `key`, or none. A cost above the burst takes the whole bucket when the
    /// bucket is full, because such a request would otherwise wait for ever.
    async fn check(&self, key: &str, quota: RateLimit, cost: u32) -> Result<Decision, CoordError>;
}

type KeyedLimit = RateLimiter<u64, DashMapStateStore<u64>, Ticks, StateInformationMiddleware>;

/// Limits of this process, by governor: one limiter holds one quota for all keys with that quota.
pub(crate) struct LocalLimits {
    clock: Clock,
    limiters: DashMap<RateLimit, Arc<KeyedLimit>>,
    /// Keys are kept as a hash under a random seed: seven times faster than text, and an attacker cannot choose two
    /// keys that collide.
    seed: RandomState,
    swept: AtomicU64,
}

impl LocalLimits {
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            clock,
            limiters: DashMap::new(),
            seed: RandomState::new(),
            swept: AtomicU64::new(0),
        }
    }

    fn limiter(&self, quota: RateLimit) -> Arc<KeyedLimit> {
        if let Some(limiter) = self.limiters.get(&quota) {
            return Arc::clone(&limiter);
        }
        let made = self.limiters.entry(quota).or_insert_with(|| {
            // Only a zero interval has no governor quota, and a [`RateLimit`] has at least a microsecond.
            let rule = governor::Quota::with_period(quota.interval)
                .unwrap_or(governor::Quota::per_second(quota.burst))
                .allow_burst(quota.burst);
            Arc::new(RateLimiter::new(
                rule,
                DashMapStateStore::default(),
                Ticks(self.clock.clone()),
            ))
        });
        Arc::clone(&made)
    }

    /// Forgets keys with a full bucket, once a minute, in the first call after that time.
    fn sweep(&self) {
        let now = self.clock.elapsed().as_secs();
        let swept = self.swept.load(Ordering::Relaxed);
        let due = now.saturating_sub(swept) >= SWEEP.as_secs();
        if due
            && self
                .swept
                .compare_exchange(swept, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            for limiter in &self.limiters {
                limiter.retain_recent();
                limiter.shrink_to_fit();
            }
            self.limiters.retain(|_, limiter| !limiter.is_empty());
        }
    }
}

#[async_trait]
impl Limits for LocalLimits {
    async fn check(&self, key: &str, quota: RateLimit, cost: u32) -> Result<Decision, CoordError> {
        self.sweep();
        let limiter = self.limiter(quota);
        let charge = quota.charge(cost);
        let judged = limiter.check_key_n(&self.seed.hash_one(key), charge);
        Ok(match judged {
            Ok(Ok(state)) => Decision::allow(quota, state.remaining_burst_capacity()),
            Ok(Err(not_until)) => {
                let wait = not_until.wait_time_from(limiter.clock().now());
                // After `wait` the bucket has `charge` permits; now it lacks those that `wait` brings.
                let there = quota
                    .interval
                    .saturating_mul(charge.get())
                    .saturating_sub(wait);
                let remaining = there.as_micros() / quota.interval.as_micros();
                Decision::refuse(quota, u32::try_from(remaining).unwrap_or(u32::MAX), wait)
            }
            // `charge` is never above the burst.
            Err(_) => Decision::refuse(quota, 0, quota.interval),
        })
    }
}

/// The gateway's clock in the form that governor reads.
#[derive(Clone)]
struct Ticks(Clock);

impl GovernorClock for Ticks {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.elapsed().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;

    #[test]
    fn a_quota_cannot_be_nothing() {
        let quota = RateLimit::new(0, Duration::ZERO, 0);
        assert_eq!(
            (quota.burst(), quota.interval()),
            (1, Duration::from_micros(1))
        );
    }

    #[tokio::test]
    async fn keys_that_are_full_again_are_forgotten() {
        let (clock, time) = Clock::manual(DateTime::UNIX_EPOCH);
        let limits = LocalLimits::new(clock);
        for key in ["a", "b", "c"] {
            limits
                .check(key, RateLimit::per_second(5), 1)
                .await
                .unwrap();
        }
        time.advance(SWEEP);
        limits
            .check("d", RateLimit::per_minute(5), 1)
            .await
            .unwrap();
        assert!(limits.limiters.get(&RateLimit::per_second(5)).is_none());
        assert_eq!(limits.limiter(RateLimit::per_minute(5)).len(), 1);
    }
}
