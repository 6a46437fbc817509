//! Limits over Redis: the same algorithm as governor's, in one script.

use std::time::Duration;

use async_trait::async_trait;

use super::link::{Link, TimedScript};
use crate::{Clock, CoordError, Decision, Limits, RateLimit};

/// Keeps one number: when the bucket will be full (µs). All arithmetic is in whole microseconds, exact in Lua.
/// Arguments: interval, burst, cost. Results: allowed, remaining, microseconds to wait.
const CHECK: &str = "
local interval, burst, cost = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local full = tonumber(redis.call('GET', KEYS[1]) or 0)
if full < now then full = now end
local after = full + cost * interval
local wait = after - burst * interval - now
local allowed = 0
if wait <= 0 then
    allowed, wait, full = 1, 0, after
    redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000) + grace)
end
local remaining = math.max(0, math.floor((burst * interval - (full - now)) / interval))
return {allowed, remaining, wait}
";

pub(crate) struct RemoteLimits {
    link: Link,
    clock: Clock,
    check: TimedScript,
}

impl RemoteLimits {
    pub(super) fn new(link: Link, clock: Clock) -> Self {
        Self {
            link,
            clock,
            check: TimedScript::new(CHECK),
        }
    }
}

#[async_trait]
impl Limits for RemoteLimits {
    async fn check(&self, key: &str, quota: RateLimit, cost: u32) -> Result<Decision, CoordError> {
        let interval = u64::try_from(quota.interval().as_micros()).unwrap_or(u64::MAX);
        let mut call = self.check.call(&self.clock, &format!("wxgate:limit:{key}"));
        call.arg(interval)
            .arg(quota.burst())
            .arg(quota.charge(cost).get());
        let mut manager = self.link.manager();
        let (allowed, remaining, wait): (bool, u32, u64) = self
            .link
            .ask(async move { call.invoke_async(&mut manager).await })
            .await?;
        Ok(if allowed {
            Decision::allow(quota, remaining)
        } else {
            Decision::refuse(quota, remaining, Duration::from_micros(wait))
        })
    }
}
