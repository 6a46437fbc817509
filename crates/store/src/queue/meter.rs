//! Meters: the number of messages that an app may still send today, in this minute, and during a probe.
//!
//! **Pace.** WeChat publishes no limit a minute. Code 45011 sets the pace of the app to nine tenths of the messages
//! that were sent in that minute and not refused, and at least to 600. Each later minute allows a quarter more, until
//! the pace exceeds the daily quota. The claim counts the minute under the lock of the lane, so the pace is exact over
//! replicas.

use chrono::{DateTime, Datelike, Utc};
use domain::{
    message::Priority,
    quota::{self, PriorityShares},
};
use sea_orm::{ConnectionTrait, FromQueryResult};
use uuid::Uuid;

use super::{QUOTA_EXHAUSTED, claim::ClaimRequest, sql::Sql};
use crate::{StoreError, timestamp::millis};

const MINUTE: i64 = 60_000;

/// The lowest pace of an app, in messages a minute. A refusal in a minute with few messages, or one that another
/// system's messages caused, says nothing about WeChat's limit.
pub(super) const SLOWEST: i64 = 600;

/// A lane as a claim has locked and read the row.
#[derive(FromQueryResult)]
pub(super) struct Lane {
    pub(super) appid: String,
    tenant_id: Uuid,
    daily_quota: i64,
    quota_day: i64,
    quota_used: i64,
    minute: i64,
    minute_used: i64,
    minute_limit: Option<i64>,
    pause_reason: Option<String>,
}

/// The columns of [`Lane`].
pub(super) const LANE_COLUMNS: &str = "lane.appid, app.tenant_id, app.daily_quota, lane.quota_day, lane.quota_used, \
                                       lane.minute, lane.minute_used, lane.minute_limit, lane.pause_reason";

/// The number of messages that an app may still send.
pub(super) struct Meter {
    pub(super) tenant: Uuid,
    day: Gauge,
    minute: Gauge,
    /// Whether the app has no pace. If false, the app keeps to the limit in `minute`.
    unpaced: bool,
    /// Whether the app's pause has ended but the reason may persist: then only one message is sent, the probe.
    pub(super) is_probed: bool,
}

struct Gauge {
    limit: u64,
    used: u64,
    /// The value of `used` before this claim.
    before: u64,
}

impl Gauge {
    fn new(limit: i64, used: i64) -> Self {
        let used = used.unsigned_abs();
        Self {
            limit: limit.unsigned_abs(),
            used,
            before: used,
        }
    }

    fn is_spent(&self) -> bool {
        self.used >= self.limit
    }
}

impl Meter {
    pub(super) fn of(lane: &Lane, now: DateTime<Utc>) -> Self {
        let today = lane.quota_day == day_number(now);
        let this_minute = lane.minute == minute_number(now);
        // WeChat does not publish the limit. Each minute in which the app kept to the pace allows a quarter more.
        let grown = |limit: i64| {
            if this_minute {
                limit
            } else {
                limit + limit / 4 + 1
            }
        };
        let pace = lane.minute_limit.map(grown);
        let pace = pace.filter(|limit| *limit < lane.daily_quota);
        Self {
            tenant: lane.tenant_id,
            day: Gauge::new(lane.daily_quota, if today { lane.quota_used } else { 0 }),
            minute: Gauge::new(
                pace.unwrap_or(0),
                if this_minute { lane.minute_used } else { 0 },
            ),
            unpaced: pace.is_none(),
            is_probed: lane.pause_reason.is_some(),
        }
    }

    /// Whether one more message of `priority` may be sent.
    pub(super) fn admits(&self, shares: PriorityShares, priority: Priority) -> bool {
        let probe_is_out = self.is_probed && self.has_taken();
        let minute_is_spent = !self.unpaced && self.minute.is_spent();
        let left = shares.remaining(self.day.limit, self.day.used, priority);
        left > 0 && !minute_is_spent && !probe_is_out
    }

    /// Counts one message.
    pub(super) fn take(&mut self) {
        self.day.used += 1;
        self.minute.used += 1;
    }

    /// Takes one message off the count.
    pub(super) fn put_back(&mut self) {
        self.day.used = self.day.used.saturating_sub(1);
        self.minute.used = self.minute.used.saturating_sub(1);
    }

    /// Sets the count to the messages that were really claimed: some may have been canceled after the choice.
    pub(super) fn settle(&mut self, taken: usize) {
        for gauge in [&mut self.day, &mut self.minute] {
            gauge.used = gauge.before + taken as u64;
        }
    }

    fn has_taken(&self) -> bool {
        self.day.used > self.day.before
    }

    /// The end of the pause that starts with this claim, and the reason. `None` if the app does not pause.
    fn rest(
        &self,
        request: &ClaimRequest,
        now: DateTime<Utc>,
    ) -> Option<(i64, Option<&'static str>)> {
        if self.is_probed && self.has_taken() {
            // No other message is sent before the probe is recorded, or lost with the lease.
            Some((millis(request.lease_until), None))
        } else if self.day.is_spent() {
            Some((millis(quota::reset_at(now)), Some(QUOTA_EXHAUSTED)))
        } else if !self.unpaced && self.minute.is_spent() {
            Some(((minute_number(now) + 1) * MINUTE, None))
        } else {
            None
        }
    }
}

/// Writes the counts of the lanes. A lane without remaining messages pauses, so that claims skip the lane.
pub(super) async fn charge<'a>(
    tx: &impl ConnectionTrait,
    meters: impl Iterator<Item = (&'a String, &'a Meter)>,
    request: &ClaimRequest,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let news: Vec<_> = meters
        .map(|(appid, meter)| (appid, meter, meter.rest(request, now)))
        .filter(|(_, meter, rest)| meter.has_taken() || rest.is_some())
        .collect();
    if news.is_empty() {
        return Ok(());
    }
    let mut sql = Sql::new("WITH v(lane_appid, used, in_minute, at_most, rest, why, probed) AS (");
    sql.rows(news.into_iter().map(|(appid, meter, rest)| {
        let (until, why) = rest.unzip();
        [
            appid.as_str().into(),
            meter.day.used.cast_signed().into(),
            meter.minute.used.cast_signed().into(),
            (!meter.unpaced)
                .then_some(meter.minute.limit.cast_signed())
                .into(),
            until.into(),
            why.flatten().into(),
            i64::from(meter.is_probed).into(),
        ]
    }));
    sql.push(") UPDATE lane SET quota_day = ")
        .bind(day_number(now))
        .push(", quota_used = v.used, minute = ")
        .bind(minute_number(now))
        .push(", minute_used = v.in_minute, minute_limit = v.at_most, paused_until = v.rest, ")
        .push("pause_reason = CASE WHEN v.probed = 1 THEN pause_reason ELSE v.why END, ")
        .push("pause_detail = CASE WHEN v.probed = 1 THEN pause_detail END ")
        .push("FROM v WHERE lane.appid = v.lane_appid");
    tx.execute_raw(sql.on(tx)).await?;
    Ok(())
}

/// The number of a Beijing day, as stored in lanes.
pub(crate) fn day_number(now: DateTime<Utc>) -> i64 {
    quota::day(now).num_days_from_ce().into()
}

/// The number of a minute, as stored in lanes: WeChat's limits per minute start again with each minute.
pub(super) fn minute_number(now: DateTime<Utc>) -> i64 {
    millis(now).div_euclid(MINUTE)
}
