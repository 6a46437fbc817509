//! Leases over Redis.

use std::time::Duration;

use async_trait::async_trait;

use super::link::{Link, TimedScript};
use crate::{Clock, CoordError, Leases};

/// A lease is a hash of `o`wner and `u`ntil (µs). All three scripts start by finding the holder.
const HOLDER: &str = "
local holder = redis.call('HMGET', KEYS[1], 'o', 'u')
local owner = holder[1]
if owner and tonumber(holder[2]) <= now then owner = false end
";

const TAKE: &str = "
if owner and owner ~= ARGV[3] then return 0 end
redis.call('HSET', KEYS[1], 'o', ARGV[3], 'u', string.format('%.0f', now + ARGV[4] * 1000))
redis.call('PEXPIRE', KEYS[1], ARGV[4] + grace)
return 1
";

const RENEW: &str = "
if owner ~= ARGV[3] then return 0 end
redis.call('HSET', KEYS[1], 'u', string.format('%.0f', now + ARGV[4] * 1000))
redis.call('PEXPIRE', KEYS[1], ARGV[4] + grace)
return 1
";

const RELEASE: &str = "
if owner ~= ARGV[3] then return 0 end
redis.call('DEL', KEYS[1])
return 1
";

pub(crate) struct RemoteLeases {
    link: Link,
    clock: Clock,
    take: TimedScript,
    renew: TimedScript,
    release: TimedScript,
}

impl RemoteLeases {
    pub(super) fn new(link: Link, clock: Clock) -> Self {
        let script = |body: &str| TimedScript::new(&format!("{HOLDER}{body}"));
        Self {
            link,
            clock,
            take: script(TAKE),
            renew: script(RENEW),
            release: script(RELEASE),
        }
    }

    async fn run(
        &self,
        script: &TimedScript,
        name: &str,
        owner: &str,
        ttl: Duration,
    ) -> Result<bool, CoordError> {
        let mut call = script.call(&self.clock, &format!("wxgate:lease:{name}"));
        call.arg(owner)
            .arg(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1));
        let mut manager = self.link.manager();
        self.link
            .ask(async move { call.invoke_async(&mut manager).await })
            .await
    }
}

#[async_trait]
impl Leases for RemoteLeases {
    async fn take(&self, name: &str, owner: &str, ttl: Duration) -> Result<bool, CoordError> {
        self.run(&self.take, name, owner, ttl).await
    }

    async fn renew(&self, name: &str, owner: &str, ttl: Duration) -> Result<bool, CoordError> {
        self.run(&self.renew, name, owner, ttl).await
    }

    async fn release(&self, name: &str, owner: &str) -> Result<bool, CoordError> {
        self.run(&self.release, name, owner, Duration::ZERO).await
    }
}
