//! Cells over Redis.
//!
//! A replica sets the deadline of a cell, so the deadline is compared with the replica's time and not with Redis's own
//! clock.

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::link::{Link, TimedScript};
use crate::{Cell, Cells, Clock, CoordError};

/// A cell is a hash of `v`alue, `g`eneration and `d`eadline (µs). Generations are compared as text of twenty digits,
/// because Lua's numbers lose precision from 2^53 on.
const PUT: &str = "
local there = redis.call('HMGET', KEYS[1], 'g', 'd')
if there[1] and tonumber(there[2]) > now and there[1] > ARGV[4] then return 0 end
redis.call('HSET', KEYS[1], 'v', ARGV[3], 'g', ARGV[4], 'd', ARGV[5])
redis.call('PEXPIRE', KEYS[1], ARGV[6] + grace)
return 1
";

const DROP: &str = "
local there = redis.call('HMGET', KEYS[1], 'g', 'd')
if there[1] ~= ARGV[3] then return 0 end
redis.call('DEL', KEYS[1])
if tonumber(there[2]) > now then return 1 end
return 0
";

/// Value, generation and deadline.
type StoredCell = (Option<Vec<u8>>, Option<u64>, Option<i64>);

pub(crate) struct RemoteCells {
    link: Link,
    clock: Clock,
    put: TimedScript,
    drop: TimedScript,
}

impl RemoteCells {
    pub(super) fn new(link: Link, clock: Clock) -> Self {
        Self {
            link,
            clock,
            put: TimedScript::new(PUT),
            drop: TimedScript::new(DROP),
        }
    }
}

#[async_trait]
impl Cells for RemoteCells {
    async fn get(&self, key: &str) -> Result<Option<Cell>, CoordError> {
        let mut manager = self.link.manager();
        let mut ask = redis::cmd("HMGET");
        ask.arg(name(key)).arg("v").arg("g").arg("d");
        let found: StoredCell = self
            .link
            .ask(async move { ask.query_async(&mut manager).await })
            .await?;
        let now = self.clock.now().timestamp_micros();
        Ok(match found {
            (Some(value), Some(generation), Some(deadline)) if deadline > now => {
                Some(Cell { value, generation })
            }
            _ => None,
        })
    }

    async fn put(
        &self,
        key: &str,
        cell: Cell,
        deadline: DateTime<Utc>,
    ) -> Result<bool, CoordError> {
        let left = (deadline - self.clock.now()).num_milliseconds();
        if left <= 0 {
            return Ok(false);
        }
        let mut put = self.put.call_by(&self.clock, &name(key));
        put.arg(cell.value)
            .arg(digits(cell.generation))
            .arg(deadline.timestamp_micros())
            .arg(left);
        let mut manager = self.link.manager();
        self.link
            .ask(async move { put.invoke_async(&mut manager).await })
            .await
    }

    async fn drop_if(&self, key: &str, generation: u64) -> Result<bool, CoordError> {
        let mut call = self.drop.call_by(&self.clock, &name(key));
        call.arg(digits(generation));
        let mut manager = self.link.manager();
        self.link
            .ask(async move { call.invoke_async(&mut manager).await })
            .await
    }
}

fn name(key: &str) -> String {
    format!("wxgate:cell:{key}")
}

fn digits(generation: u64) -> String {
    format!("{generation:020}")
}
