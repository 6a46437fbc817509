//! Claim: one transaction that hands out as many messages as there are free sending slots.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use domain::quota::Shares;
use sea_orm::{ConnectionTrait, DbBackend, FromQueryResult};
use uuid::Uuid;

use super::{
    BEHIND, FLYING, READY,
    choice::{Candidate, Choice, Person, choose},
    flight::{Claimed, FLYING_COLUMNS, FlyingRow, readable},
    grants,
    meter::{LANE_COLUMNS, Lane, charge},
    record::release_behind,
    sql::{Sql, still},
    tell::{Settled, end_and_tell},
    unsent::Unsent,
};
use crate::{PlatformStore, StoreError, millis};

/// How many apps one claim serves at most. The next claim goes on after the last of them.
const LANES: usize = 64;
/// How many apps with ready messages one claim looks at to find them, where many are paused.
const VISITS: usize = 256;

/// What a worker asks for.
#[derive(Clone, Debug)]
pub struct ClaimRequest {
    /// How many messages it can send now.
    pub slots: usize,
    /// Apps that are known to have ready messages: then nobody looks for others. Empty: the claim goes round.
    pub apps: Vec<String>,
    /// After which app to go on, from the batch before; empty at first.
    pub cursor: String,
    /// A random number that names this claim: it is the lease of all its messages.
    pub lease: i64,
    /// Until when the messages are the worker's.
    pub lease_until: DateTime<Utc>,
    /// How much of an app's quota each priority may use.
    pub shares: Shares,
}

/// What a worker gets.
#[derive(Clone, Debug, Default)]
pub struct ClaimBatch {
    /// Messages to send now.
    pub claimed: Vec<Claimed>,
    /// Messages that this claim has ended: their ttl had run out, nothing permitted them, or their app was gone.
    pub ended: Vec<Settled>,
    /// The apps that it was about.
    pub apps: Vec<String>,
    /// After which app to go on.
    pub cursor: String,
    /// Whether the apps of this claim may have more at once.
    pub more: bool,
}

#[derive(FromQueryResult)]
struct Visit {
    appid: String,
    /// Whether it may send now; none: the app is gone.
    open: Option<bool>,
}

/// The apps that a claim found with ready messages.
struct Visited {
    /// Those it may serve.
    open: Vec<String>,
    /// Those that have been removed.
    gone: Vec<String>,
    /// Where to go on; empty: this was the end of the round.
    cursor: String,
}

impl Visited {
    /// The apps that the claim names, and no others.
    fn known(request: &ClaimRequest) -> Self {
        Self {
            open: request.apps.clone(),
            gone: Vec::new(),
            cursor: String::new(),
        }
    }
}

impl PlatformStore {
    /// Claims up to `request.slots` messages: fair over apps, by priority and due time within one, at most one
    /// flying for each user, within the apps' quotas.
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
        let tx = self.store.begin().await?;
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
        stand_behind(&tx, &choice.behind, now).await?;
        charge(&tx, choice.meters.iter(), request, now).await?;
        tx.commit().await?;

        let progress = !(claimed.is_empty()
            && unpermitted.is_empty()
            && choice.behind.is_empty()
            && choice.expired.is_empty());
        Ok(ClaimBatch {
            claimed,
            ended,
            // Who ended for want of a grant has made the next one to the same user ready.
            more: progress && (full || passed_over || released || !unpermitted.is_empty()),
            apps: open,
            cursor,
        })
    }

    /// Goes round the apps that have ready messages. Also says where to go on; empty means from the start.
    async fn visit(
        &self,
        cursor: &str,
        slots: usize,
        now: DateTime<Utc>,
    ) -> Result<Visited, StoreError> {
        // No more apps than slots: one that got none would be passed over, round after round.
        let served = LANES.min(slots).max(1);
        let mut hops = served + 1;
        let mut visits = self.hop(cursor, hops, now).await?;
        // As a rule all that are found may be served; where some are paused, others behind them are not.
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
        for Visit { appid, open: state } in visits {
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

    /// The next apps that have ready messages, by hops over the ready index: the cost is that of the apps visited,
    /// not of their messages.
    async fn hop(
        &self,
        cursor: &str,
        hops: usize,
        now: DateTime<Utc>,
    ) -> Result<Vec<Visit>, StoreError> {
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
        let connection = &self.store.read;
        Ok(Visit::find_by_statement(sql.on(connection))
            .all(connection)
            .await?)
    }
}

/// The apps' lanes that no other worker holds, each with its first `share` ready messages; where they are all held, the
/// first, when it is free. So an app with one message does not wait behind those that everybody is busy with.
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

/// The apps' lanes, and what is ready in them. While a worker holds a lane, no other claims from it.
///
/// On PostgreSQL the messages are as they were when the statement began, maybe before a lane was free: see [`fly`].
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
    // No EXISTS: PostgreSQL may answer that from a table of all flying messages, made anew for each claim from an
    // index that is full of former flights.
    let columns = format!(
        "m.id AS message, m.tenant_id AS owner, m.touser, m.priority, m.expires_at, (SELECT f.phase FROM message f \
         WHERE f.phase = {FLYING} AND f.appid = m.appid AND f.touser = m.touser LIMIT 1) IS NOT NULL AS busy"
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

/// The users of `candidates` to whom a send is under way. It is noted with that send that others stand behind it.
///
/// On PostgreSQL the note is locked against the recorder until this claim is committed: whoever ends the flight after
/// that finds the messages that this claim put behind it. A flight that the recorder has locked already is over, so it is
/// skipped.
async fn busy(
    tx: &impl ConnectionTrait,
    candidates: &[Candidate],
) -> Result<HashSet<Person>, StoreError> {
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
    sql.push(&FLYING.to_string())
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

/// Claims the chosen ones. Whoever changed a candidate since it was read keeps it, and one to whose user another claim
/// has sent since then stays where it is.
async fn fly(
    tx: &impl ConnectionTrait,
    choice: &mut Choice,
    request: &ClaimRequest,
    now: DateTime<Utc>,
) -> Result<Vec<Claimed>, StoreError> {
    if choice.fly.is_empty() {
        return Ok(Vec::new());
    }
    let mut sql = Sql::new(
        "UPDATE message SET status = 'sending', attempt_count = attempt_count + 1, phase = ",
    );
    sql.push(&FLYING.to_string())
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
            " AND (SELECT f.phase FROM message f WHERE f.phase = {FLYING} AND f.appid = message.appid \
             AND f.touser = message.touser LIMIT 1) IS NULL"
        ));
    }
    sql.push(" RETURNING ").push(FLYING_COLUMNS);
    let rows = FlyingRow::find_by_statement(sql.on(tx)).all(tx).await?;
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

async fn stand_behind(
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

/// Ends ready messages that will not be sent, and tells of those that are still ready.
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
    end_and_tell(tx, sql, now).await
}
