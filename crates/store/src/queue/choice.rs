//! The choice of a claim: which candidates are claimed, which are put behind another message, which have expired.

use std::collections::{HashMap, HashSet, hash_map::Entry};

use chrono::{DateTime, Utc};
use sea_orm::QueryResult;
use uuid::Uuid;

use super::{
    claim::ClaimRequest,
    claimed::ClaimedMessage,
    meter::{Lane, Meter},
};
use crate::{StoreError, messages::priority, timestamp::millis};

/// An app and the openid of one of the app's users.
pub(super) type Recipient = (String, String);

/// A ready message at the head of a lane.
pub(super) struct Candidate {
    pub(super) id: Uuid,
    pub(super) tenant_id: Uuid,
    pub(super) appid: String,
    pub(super) touser: String,
    pub(super) priority: i64,
    pub(super) expires_at: i64,
    /// Whether a message to the same recipient was in flight at the time of the read.
    pub(super) busy: bool,
}

impl Candidate {
    /// The candidate in a row of a lane. `None` if the lane has no ready message.
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

/// What a claim does with the candidates.
#[derive(Default)]
pub(super) struct ClaimChoice {
    pub(super) fly: Vec<Uuid>,
    /// The messages in `fly` that other messages of this claim are put behind.
    pub(super) followed: Vec<Uuid>,
    pub(super) behind: Vec<Uuid>,
    pub(super) expired: Vec<Uuid>,
    pub(super) expired_people: Vec<Recipient>,
    /// Messages of a former owner of the appid, which must not be sent in the name of the present owner.
    pub(super) orphans: Vec<Uuid>,
    pub(super) meters: HashMap<String, Meter>,
}

impl ClaimChoice {
    /// Takes messages without a grant off the count of the meters.
    pub(super) fn put_back(&mut self, unpermitted: &[ClaimedMessage]) {
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
    busy: &HashSet<Recipient>,
    request: &ClaimRequest,
    now: DateTime<Utc>,
) -> ClaimChoice {
    let mut choice = ClaimChoice {
        meters: lanes
            .iter()
            .map(|lane| (lane.appid.clone(), Meter::of(lane, now)))
            .collect(),
        ..ClaimChoice::default()
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
            // The message stays ready: the rest of the quota belongs to higher priorities, or all slots are taken.
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
