//! The choice that a claim makes: which candidates fly, which stand behind another, which are too late.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Datelike, Utc};
use domain::quota;
use sea_orm::FromQueryResult;
use uuid::Uuid;

use super::claim::ClaimRequest;
use crate::{messages::priority, millis};

/// An app and the openid of one of its users.
pub(super) type Person = (String, String);

#[derive(FromQueryResult)]
pub(super) struct Lane {
    pub(super) appid: String,
    pub(super) tenant_id: Uuid,
    pub(super) daily_quota: i64,
    pub(super) quota_day: i64,
    pub(super) quota_used: i64,
}

#[derive(FromQueryResult)]
pub(super) struct Candidate {
    pub(super) id: Uuid,
    pub(super) tenant_id: Uuid,
    pub(super) appid: String,
    pub(super) touser: String,
    pub(super) priority: i64,
    pub(super) expires_at: i64,
    pub(super) busy: bool,
}

/// What to do with the candidates of a claim.
#[derive(Default)]
pub(super) struct Choice {
    pub(super) fly: Vec<Uuid>,
    pub(super) behind: Vec<Uuid>,
    pub(super) expired: Vec<Uuid>,
    pub(super) expired_people: Vec<Person>,
    /// Of a former owner of the appid: they are not sent in the name of the present one.
    pub(super) orphans: Vec<Uuid>,
    pub(super) meters: HashMap<String, Meter>,
}

/// An app's quota for today.
pub(super) struct Meter {
    pub(super) tenant: Uuid,
    pub(super) limit: u64,
    pub(super) used: u64,
    /// What was used before this claim.
    before: u64,
}

impl Meter {
    fn of(lane: &Lane, today: i64) -> Self {
        let used = if lane.quota_day == today {
            lane.quota_used.unsigned_abs()
        } else {
            0
        };
        Self {
            tenant: lane.tenant_id,
            limit: lane.daily_quota.unsigned_abs(),
            used,
            before: used,
        }
    }

    pub(super) fn is_spent(&self) -> bool {
        self.used >= self.limit
    }

    /// Whether this claim has anything to write into the lane.
    pub(super) fn has_news(&self) -> bool {
        self.used != self.before || self.is_spent()
    }
}

/// Decides about each candidate, in order.
pub(super) fn choose(
    lanes: &[Lane],
    candidates: Vec<Candidate>,
    busy: &HashSet<Person>,
    request: &ClaimRequest,
    now: DateTime<Utc>,
) -> Choice {
    let today = day_number(now);
    let mut choice = Choice {
        meters: lanes
            .iter()
            .map(|lane| (lane.appid.clone(), Meter::of(lane, today)))
            .collect(),
        ..Choice::default()
    };
    let mut people = HashSet::new();
    for candidate in candidates {
        let Some(meter) = choice.meters.get_mut(&candidate.appid) else {
            continue;
        };
        let person = (candidate.appid, candidate.touser);
        if candidate.tenant_id != meter.tenant {
            choice.orphans.push(candidate.id);
        } else if candidate.expires_at <= millis(now) {
            choice.expired.push(candidate.id);
            choice.expired_people.push(person);
        } else if request
            .shares
            .remaining(meter.limit, meter.used, priority(candidate.priority))
            == 0
            || choice.fly.len() == request.slots
        {
            // Stays ready: the quota that is left belongs to higher priorities, or all slots are taken.
        } else if busy.contains(&person) || !people.insert(person) {
            choice.behind.push(candidate.id);
        } else {
            meter.used += 1;
            choice.fly.push(candidate.id);
        }
    }
    choice
}

/// A Beijing day as the lanes keep it.
pub(super) fn day_number(now: DateTime<Utc>) -> i64 {
    quota::day(now).num_days_from_ce().into()
}
