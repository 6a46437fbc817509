//! Claim: one transaction that gives a worker as many messages as the worker has free sending slots.
//!
//! A claim hops over the ready index from app to app (a loose index scan) and starts after the last app of the claim
//! before. One statement locks the lanes of the apps that no other worker holds, and reads the first messages of each
//! lane. The claim takes an equal share of each app, by priority and due time. Status, lease, quota and grants change
//! in this one transaction.
//!
//! The lock of a lane keeps two promises over all replicas without further locks: the daily quota and pace of the app,
//! and at most one message in flight for each recipient (WeChat answers 43108 to concurrent sends to one user).

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use domain::quota::PriorityShares;
use sea_orm::{ConnectionTrait, DbBackend, FromQueryResult};
use uuid::Uuid;

use super::{
    BEHIND, IN_FLIGHT, READY,
    choice::{Candidate, ClaimChoice, Recipient, choose},
    claimed::{CLAIMED_COLUMNS, ClaimedMessage, ClaimedRow, readable},
    events::{Settled, end_with_events},
    grants,
    meter::{LANE_COLUMNS, Lane, charge},
    record::release_behind,
    sql::{Sql, still},
    unsent::Unsent,
};
use crate::{PlatformStore, StoreError, timestamp::millis};

/// The most apps that one claim serves. The next claim continues after the last of these apps.
const LANES: usize = 64;
/// The most apps with ready messages that one claim examines to find [`LANES`] apps where many are paused.
const VISITS: usize = 256;

/// The request of a worker for messages.
#[derive(Clone, Debug)]
pub struct ClaimRequest {
    /// The number of messages that the worker can send now.
    pub slots: usize,
    /// Apps that are known to have ready messages. The claim then serves these apps only. Empty: the claim searches all
    /// apps in rotation.
    pub apps: Vec<String>,
    /// The app after which the search continues: the cursor of the batch before. Empty for the first claim.
    pub cursor: String,
    /// A random number that names this claim. The claim writes this number as the lease of all messages that the claim
    /// takes.
    pub lease: i64,
    /// The end of the lease.
    pub lease_until: DateTime<Utc>,
    /// The part of an app's daily quota that each priority may use.
    pub shares: PriorityShares,
}

/// The result of a claim.
#[derive(Clone, Debug, Default)]
pub struct ClaimBatch {
    /// The messages to send now.
    pub claimed: Vec<ClaimedMessage>,
    /// The messages that this claim has ended: the ttl had run out, no grant permitted the send, or the app was
    /// removed.
    pub ended: Vec<Settled>,
    /// The apps that this claim served.
    pub apps: Vec<String>,
    /// The app after which the next claim continues.
    pub cursor: String,
    /// Whether the apps of this claim may have more messages that can be claimed at once.
    pub more: bool,
}

#[derive(FromQueryResult)]
struct AppVisit {
    appid: String,
    /// Whether the app may send now. `None` if the app is removed.
    open: Option<bool>,
}

/// The apps with ready messages that a claim has found.
struct Visited {
    /// The apps that may send now.
    open: Vec<String>,
    /// The apps that are removed.
    gone: Vec<String>,
    /// The app after which the search continues. Empty: the search has reached the last app.
    cursor: String,
}

impl Visited {
    /// The apps that the request names, and no others.
    fn known(request: &ClaimRequest) -> Self {
        Self {
            open: request.apps.clone(),
            gone: Vec::new(),
            cursor: String::new(),
        }
    }
}

impl PlatformStore {
    /// Claims up to `request.slots` messages: in fair shares over the apps, by priority and due time within an app,
    /// with at most one message in flight for each recipient, within the daily quotas of the apps.
    pub async fn claim(
        &self,
        request: &ClaimRequest,
        now: DateTime<Utc>,
    ) -> Result<ClaimBatch, StoreError> {
        let Visited { open, gone, cursor } = if request.apps.is_empty() {
            self.visit(&request.cursor, request.slots, now).await?
        } else {
            Visited::known(request)
        };
        let mut ended = Vec::new();
        for appid in &gone {
            ended.extend(self.cancel_ready(appid, now).await?);
        }
        if open.is_empty() {
            return Ok(ClaimBatch {
                ended,
                cursor,
                ..ClaimBatch::default()
            });
        }
        let tx = self.store.begin_batch().await?;
        let share = request.slots.div_ceil(open.len());
        let (lanes, candidates) = head(&tx, &open, share, now).await?;
        let passed_over = lanes.len() < open.len();
        let full = candidates.len() >= share;
        let busy = busy(&tx, &candidates).await?;
        let mut choice = choose(&lanes, candidates, &busy, request, now);

        let mut claimed = fly(&tx, &mut choice, request, now).await?;
        let (unpermitted, failed) = grants::take(&tx, &mut claimed, now).await?;
        choice.put_back(&unpermitted);
        ended.extend(failed);
        ended.extend(end(&tx, &choice.orphans, Unsent::CalledBack, now).await?);
        ended.extend(end(&tx, &choice.expired, Unsent::Lapsed, now).await?);
        let released = release_behind(&tx, &choice.expired_people, now).await?;
        queue_behind(&tx, &choice.behind, now).await?;
        charge(&tx, choice.meters.iter(), request, now).await?;
        tx.commit().await?;

        let progress = !(claimed.is_empty()
            && unpermitted.is_empty()
            && choice.behind.is_empty()
            && choice.expired.is_empty());
        Ok(ClaimBatch {
            claimed,
            ended,
            // A message that ended for want of a grant has made the next message to the same recipient ready.
            more: progress && (full || passed_over || released || !unpermitted.is_empty()),
            apps: open,
            cursor,
        })
    }

    /// Searches the apps with ready messages in rotation. The returned cursor is empty if the next search starts at the
    /// first app.
    async fn visit(
        &self,
        cursor: &str,
        slots: usize,
        now: DateTime<Utc>,
    ) -> Result<Visited, StoreError> {
        // No more apps than slots: an app without a slot would be passed over in every round.
        let served = LANES.min(slots).max(1);
        let mut hops = served + 1;
        let mut visits = self.hop(cursor, hops, now).await?;
        // Usually all apps found may send. If some are paused, the search continues further for others.
        if visits.len() == hops && visits.iter().any(|visit| visit.open != Some(true)) {
            hops = VISITS;
            visits = self.hop(cursor, hops, now).await?;
        }

        let seen = visits.len();
        let last = visits
            .last()
            .map(|visit| visit.appid.clone())
            .unwrap_or_default();
        let (mut open, mut gone) = (Vec::new(), Vec::new());
        for AppVisit { appid, open: state } in visits {
            match state {
                Some(true) => open.push(appid),
                Some(false) => {}
                None => gone.push(appid),
            }
        }
        let cursor = if open.len() > served {
            open.truncate(served);
            open[served - 1].clone()
        } else if seen >= hops {
            last
        } else {
            String::new()
        };
        Ok(Visited { open, gone, cursor })
    }

    /// The next apps that have ready messages, by hops over the ready index. The cost depends on the number of apps
    /// visited, not on the number of messages.
    async fn hop(
        &self,
        cursor: &str,
        hops: usize,
        now: DateTime<Utc>,
    ) -> Result<Vec<AppVisit>, StoreError> {
        let ready =
            format!("(SELECT m.appid FROM message m WHERE m.phase = {READY} AND m.appid > ");
        let first = " ORDER BY m.appid LIMIT 1)";
        let mut sql = Sql::new("WITH RECURSIVE active(appid, n) AS (SELECT ");
        sql.push(&ready).bind(cursor).push(first);
        sql.push(", 1 UNION ALL SELECT ")
            .push(&ready)
            .push("active.appid")
            .push(first);
        sql.push(", n + 1 FROM active WHERE active.appid IS NOT NULL AND n < ")
            .bind(i64::try_from(hops).unwrap_or(i64::MAX));
        sql.push(") SELECT active.appid, (lane.paused_until IS NULL OR lane.paused_until <= ")
            .bind(millis(now))
            .push(") AND tenant.status = 'active' AS open ");
        sql.push("FROM active LEFT JOIN lane ON lane.appid = active.appid LEFT JOIN app ON app.appid = active.appid ");
        sql.push("LEFT JOIN tenant ON tenant.id = app.tenant_id WHERE active.appid IS NOT NULL ORDER BY active.appid");
        let connection = self.store.read();
        Ok(AppVisit::find_by_statement(sql.on(connection))
            .all(connection)
            .await?)
    }
}

/// The lanes of the apps that no other worker has locked, each with the first `share` ready messages. If all lanes are
/// locked, waits for the first one. So an app with one message does not wait behind apps from which all workers claim.
async fn head(
    tx: &impl ConnectionTrait,
    appids: &[String],
    share: usize,
    now: DateTime<Utc>,
) -> Result<(Vec<Lane>, Vec<Candidate>), StoreError> {
    let free = lock(tx, appids, " SKIP LOCKED", share, now).await?;
    if free.0.is_empty() {
        lock(tx, &appids[..1], "", share, now).await
    } else {
        Ok(free)
    }
}

/// Locks the lanes of the apps and reads the ready messages in these lanes. While a worker holds the lock of a lane, no
/// other worker claims from that lane.
///
/// On PostgreSQL the statement reads the messages as of its start, which may be before a lane was unlocked: see
/// [`fly`].
async fn lock(
    tx: &impl ConnectionTrait,
    appids: &[String],
    held: &str,
    share: usize,
    now: DateTime<Utc>,
) -> Result<(Vec<Lane>, Vec<Candidate>), StoreError> {
    let share = i64::try_from(share).unwrap_or(i64::MAX);
    let ready = format!(
        "m.phase = {READY} AND m.appid = l.appid ORDER BY m.priority, m.due_at, m.id LIMIT "
    );
    // No EXISTS: PostgreSQL may answer EXISTS from a table of all in-flight messages, which each claim would build from
    // an index that is full of entries of former in-flight messages.
    let columns = format!(
        "m.id AS message, m.tenant_id AS owner, m.touser, m.priority, m.expires_at, (SELECT f.phase FROM message f \
         WHERE f.phase = {IN_FLIGHT} AND f.appid = m.appid AND f.touser = m.touser LIMIT 1) IS NOT NULL AS busy"
    );
    let postgres = tx.get_database_backend() == DbBackend::Postgres;
    let mut sql = Sql::new(if postgres {
        "SELECT l.*, m.* FROM (SELECT "
    } else {
        "SELECT l.*, "
    });
    if !postgres {
        sql.push(&columns).push(" FROM (SELECT ");
    }
    sql.push(LANE_COLUMNS).push(
        " FROM lane JOIN app ON app.appid = lane.appid JOIN tenant ON tenant.id = app.tenant_id \
         WHERE tenant.status = 'active' AND (lane.paused_until IS NULL OR lane.paused_until <= ",
    );
    sql.bind(millis(now))
        .push(") AND lane.appid")
        .one_of(appids)
        .push(" ORDER BY lane.appid");
    if postgres {
        sql.push(&format!(" FOR UPDATE OF lane{held}) AS l LEFT JOIN LATERAL (SELECT {columns} FROM message m WHERE {ready}"))
            .bind(share)
            .push(") AS m ON TRUE");
    } else {
        sql.push(&format!(
            ") AS l LEFT JOIN message m ON m.id IN (SELECT m.id FROM message m WHERE {ready}"
        ))
        .bind(share)
        .push(") ORDER BY l.appid, m.priority, m.due_at, m.id");
    }
    let (mut lanes, mut candidates) = (Vec::<Lane>::new(), Vec::new());
    for row in tx.query_all_raw(sql.on(tx)).await? {
        let appid: String = row.try_get("", "appid")?;
        if lanes.last().is_none_or(|lane| lane.appid != appid) {
            lanes.push(Lane::from_query_result(&row, "")?);
        }
        candidates.extend(Candidate::read(appid, &row)?);
    }
    Ok((lanes, candidates))
}

/// The recipients of `candidates` that have a message in flight. Marks that message as followed: other messages are
/// queued behind the marked message.
///
/// On PostgreSQL the row lock of the mark makes the recorder wait until this claim is committed. A recorder that ends
/// the message after that finds the messages that this claim has put behind. A message that a recorder has locked
/// already is no longer in flight, so the statement skips that message.
async fn busy(
    tx: &impl ConnectionTrait,
    candidates: &[Candidate],
) -> Result<HashSet<Recipient>, StoreError> {
    let people: Vec<&Candidate> = candidates
        .iter()
        .filter(|candidate| candidate.busy)
        .collect();
    if people.is_empty() {
        return Ok(HashSet::new());
    }
    let mut sql = Sql::new(
        "UPDATE message SET followed = 1 WHERE id IN (SELECT f.id FROM message f WHERE f.phase = ",
    );
    sql.push(&IN_FLIGHT.to_string())
        .push(" AND (f.appid, f.touser) IN (");
    sql.rows(people.iter().map(|candidate| {
        [
            candidate.appid.as_str().into(),
            candidate.touser.as_str().into(),
        ]
    }))
    .push(")");
    if tx.get_database_backend() == DbBackend::Postgres {
        sql.push(" FOR UPDATE SKIP LOCKED");
    }
    sql.push(") RETURNING appid, touser");
    let rows = tx.query_all_raw(sql.on(tx)).await?;
    rows.iter()
        .map(|row| Ok((row.try_get("", "appid")?, row.try_get("", "touser")?)))
        .collect()
}

/// Claims the chosen messages. A candidate that another transaction has changed since the read is left out. A candidate
/// stays ready if another claim has sent to the same recipient since the read.
async fn fly(
    tx: &impl ConnectionTrait,
    choice: &mut ClaimChoice,
    request: &ClaimRequest,
    now: DateTime<Utc>,
) -> Result<Vec<ClaimedMessage>, StoreError> {
    if choice.fly.is_empty() {
        return Ok(Vec::new());
    }
    let mut sql = Sql::new(
        "UPDATE message SET status = 'sending', attempt_count = attempt_count + 1, phase = ",
    );
    sql.push(&IN_FLIGHT.to_string())
        .push(", lease = ")
        .bind(request.lease);
    sql.push(", lease_until = ")
        .bind(millis(request.lease_until))
        .push(", ")
        .touch(now);
    if !choice.followed.is_empty() {
        sql.push(", followed = CASE WHEN id")
            .one_of(&choice.followed)
            .push(" THEN 1 ELSE followed END");
    }
    sql.push(" WHERE ")
        .push(&still(READY))
        .push(" AND id")
        .one_of(&choice.fly);
    if tx.get_database_backend() == DbBackend::Postgres {
        sql.push(&format!(
            " AND (SELECT f.phase FROM message f WHERE f.phase = {IN_FLIGHT} AND f.appid = message.appid \
             AND f.touser = message.touser LIMIT 1) IS NULL"
        ));
    }
    sql.push(" RETURNING ").push(CLAIMED_COLUMNS);
    let rows = ClaimedRow::find_by_statement(sql.on(tx)).all(tx).await?;
    for (appid, meter) in &mut choice.meters {
        meter.settle(rows.iter().filter(|row| row.appid == *appid).count());
    }
    let mut claimed = readable(rows);
    for flight in &mut claimed {
        let meter = choice.meters.get(flight.appid.as_str());
        flight.is_probe = meter.is_some_and(|meter| meter.is_probed);
    }
    Ok(claimed)
}

async fn queue_behind(
    tx: &impl ConnectionTrait,
    ids: &[Uuid],
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    if ids.is_empty() {
        return Ok(());
    }
    let mut sql = Sql::new("UPDATE message SET phase = ");
    sql.push(&BEHIND.to_string()).push(", ").touch(now);
    sql.push(" WHERE ")
        .push(&still(READY))
        .push(" AND id")
        .one_of(ids);
    tx.execute_raw(sql.on(tx)).await?;
    Ok(())
}

/// Ends ready messages that will not be sent, and writes the events of those that are still ready.
async fn end(
    tx: &impl ConnectionTrait,
    ids: &[Uuid],
    why: Unsent,
    now: DateTime<Utc>,
) -> Result<Vec<Settled>, StoreError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let mut sql = Sql::new(&why.update());
    sql.touch(now)
        .push(" WHERE ")
        .push(&still(READY))
        .push(" AND id")
        .one_of(ids);
    end_with_events(tx, sql, now).await
}
