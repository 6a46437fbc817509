//! The choice that a claim makes: which candidates fly, which stand behind another, which are too late.

use std::collections::{HashMap, HashSet, hash_map::Entry};

use chrono::{DateTime, Utc};
use sea_orm::QueryResult;
use uuid::Uuid;

use super::{
    claim::ClaimRequest,
    flight::Claimed,
    meter::{Lane, Meter},
};
use crate::{StoreError, messages::priority, millis};

/// An app and the openid of one of its users.
pub(super) type Person = (String, String);

/// A ready message at the head of its lane.
pub(super) struct Candidate {
    pub(super) id: Uuid,
    pub(super) tenant_id: Uuid,
    pub(super) appid: String,
    pub(super) touser: String,
    pub(super) priority: i64,
    pub(super) expires_at: i64,
    /// Whether a send to its user was under way when it was read.
    pub(super) busy: bool,
}

impl Candidate {
    /// The candidate of a lane's row; none: the lane is empty.
    pub(super) fn read(appid: String, row: &QueryResult) -> Result<Option<Self>, StoreError> {
        let Some(id) = row.try_get("", "message")? else {
            return Ok(None);
        };
        Ok(Some(Self {
            id,
            tenant_id: row.try_get("", "owner")?,
            appid,
            touser: row.try_get("", "touser")?,
            priority: row.try_get("", "priority")?,
            expires_at: row.try_get("", "expires_at")?,
            busy: row.try_get("", "busy")?,
        }))
    }
}

/// What to do with the candidates of a claim.
#[derive(Default)]
pub(super) struct Choice {
    pub(super) fly: Vec<Uuid>,
    /// Those of them that others of this claim stand behind.
    pub(super) followed: Vec<Uuid>,
    pub(super) behind: Vec<Uuid>,
    pub(super) expired: Vec<Uuid>,
    pub(super) expired_people: Vec<Person>,
    /// Of a former owner of the appid: they are not sent in the name of the present one.
    pub(super) orphans: Vec<Uuid>,
    pub(super) meters: HashMap<String, Meter>,
}

impl Choice {
    /// Counts flights no more that nothing permits.
    pub(super) fn put_back(&mut self, unpermitted: &[Claimed]) {
        for flight in unpermitted {
            if let Some(meter) = self.meters.get_mut(flight.appid.as_str()) {
                meter.put_back();
            }
        }
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
    let mut choice = Choice {
        meters: lanes
            .iter()
            .map(|lane| (lane.appid.clone(), Meter::of(lane, now)))
            .collect(),
        ..Choice::default()
    };
    let mut people = HashMap::new();
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
        } else if !meter.admits(request.shares, priority(candidate.priority))
            || choice.fly.len() == request.slots
        {
            // Stays ready: what is left of the quota belongs to higher priorities, or all slots are taken.
        } else if busy.contains(&person) {
            choice.behind.push(candidate.id);
        } else {
            match people.entry(person) {
                Entry::Vacant(place) => {
                    place.insert(candidate.id);
                    meter.take();
                    choice.fly.push(candidate.id);
                }
                Entry::Occupied(first) => {
                    choice.followed.push(*first.get());
                    choice.behind.push(candidate.id);
                }
            }
        }
    }
    choice
}
