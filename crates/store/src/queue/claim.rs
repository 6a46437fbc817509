//! Claim: one transaction that hands out as many messages as there are free sending slots.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use domain::{
    id::MessageId,
    quota::{self, Shares},
    verdict::FailureCode,
};
use sea_orm::{ConnectionTrait, DbBackend, FromQueryResult};
use uuid::Uuid;

use super::{
    BEHIND, ENDED, FLYING, QUOTA_EXHAUSTED, READY,
    choice::{Candidate, Choice, Lane, Person, choose, day_number},
    flight::{Claimed, FLYING_COLUMNS, FlyingRow},
    record::release_behind,
    sql::Sql,
};
use crate::{PlatformStore, StoreError, millis};

/// How many apps one claim serves at most. The next claim goes on after the last of them.
const LANES: usize = 16;
/// How many apps with ready messages one claim looks at to find them; the others are paused.
const VISITS: i64 = 256;

/// What a worker asks for.
#[derive(Clone, Debug)]
pub struct ClaimRequest {
    /// How many messages it can send now.
    pub slots: usize,
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
    /// Messages whose ttl had run out: they have ended.
    pub expired: Vec<MessageId>,
    /// After which app to go on.
    pub cursor: String,
    /// Whether another claim may find more at once.
    pub more: bool,
}

#[derive(FromQueryResult)]
struct Visit {
    appid: String,
    open: bool,
}

impl PlatformStore {
    /// Claims up to `request.slots` messages: fair over apps, by priority and due time within one, at most one
    /// flying for each user, within the apps' quotas.
    pub async fn claim(
        &self,
        request: &ClaimRequest,
        now: DateTime<Utc>,
    ) -> Result<ClaimBatch, StoreError> {
        let (appids, cursor) = self.visit(&request.cursor, request.slots, now).await?;
        // A round that began in the middle has apps before it, one that stopped in the middle has some behind.
        let mid_round = |next: &str| !request.cursor.is_empty() || !next.is_empty();
        if appids.is_empty() {
            return Ok(ClaimBatch {
                more: mid_round(&cursor),
                cursor,
                ..ClaimBatch::default()
            });
        }
        let tx = self.store.begin().await?;
        let lanes = lock(&tx, &appids, now).await?;
        let share = request.slots.div_ceil(lanes.len().max(1));
        let candidates = candidates(&tx, &lanes, share).await?;
        let full = candidates.len() >= share;
        let busy = busy(&tx, &candidates).await?;
        let choice = choose(&lanes, candidates, &busy, request, now);

        let claimed = fly(&tx, &choice, request, now).await?;
        move_to(&tx, &choice.behind, BEHIND, now).await?;
        expire(&tx, &choice, now).await?;
        if !lanes.is_empty() {
            charge(&tx, &choice, now).await?;
        }
        tx.commit().await?;

        let progress =
            !claimed.is_empty() || !choice.behind.is_empty() || !choice.expired.is_empty();
        let expired = choice.expired.into_iter().map(MessageId::from).collect();
        Ok(ClaimBatch {
            claimed,
            expired,
            more: (full && progress) || mid_round(&cursor),
            cursor,
        })
    }

    /// Goes round the apps that have ready messages, by hops over the ready index: the cost is that of the apps
    /// visited, not of their messages. Also says where to go on; empty means from the start.
    async fn visit(
        &self,
        cursor: &str,
        slots: usize,
        now: DateTime<Utc>,
    ) -> Result<(Vec<String>, String), StoreError> {
        let next = |after: &str| {
            format!(
                "(SELECT m.appid FROM message m WHERE m.phase = {READY} AND m.appid > {after} ORDER BY m.appid LIMIT 1)"
            )
        };
        let mut sql = Sql::new("WITH RECURSIVE active(appid, n) AS (SELECT ");
        sql.push(&next("$1"))
            .push(", 1 UNION ALL SELECT ")
            .push(&next("active.appid"));
        sql.push(", n + 1 FROM active WHERE active.appid IS NOT NULL AND n < $2) ");
        sql.push("SELECT active.appid, (lane.paused_until IS NULL OR lane.paused_until <= $3) AND tenant.status = 'active' AS open ");
        sql.push("FROM active JOIN lane ON lane.appid = active.appid JOIN app ON app.appid = active.appid ");
        sql.push("JOIN tenant ON tenant.id = app.tenant_id ORDER BY active.appid");
        let statement = sql
            .with_values([cursor.into(), VISITS.into(), millis(now).into()])
            .on(&self.store.read);
        let visited = Visit::find_by_statement(statement)
            .all(&self.store.read)
            .await?;

        let seen = visited.len();
        let last = visited
            .last()
            .map(|visit| visit.appid.clone())
            .unwrap_or_default();
        let mut open: Vec<String> = visited
            .into_iter()
            .filter(|visit| visit.open)
            .map(|visit| visit.appid)
            .collect();
        // No more apps than slots: one that got none would be passed over, round after round.
        let served = LANES.min(slots).max(1);
        let cursor = if open.len() > served {
            open.truncate(served);
            open[served - 1].clone()
        } else if i64::try_from(seen).unwrap_or(VISITS) >= VISITS {
            last
        } else {
            String::new()
        };
        Ok((open, cursor))
    }
}

/// The apps' lanes, in the order of their appids so that two workers never wait for each other in a circle.
/// While a worker holds a lane, no other claims from it.
async fn lock(
    tx: &impl ConnectionTrait,
    appids: &[String],
    now: DateTime<Utc>,
) -> Result<Vec<Lane>, StoreError> {
    let mut sql = Sql::new(
        "SELECT lane.appid, app.daily_quota, lane.quota_day, lane.quota_used \
         FROM lane JOIN app ON app.appid = lane.appid WHERE (lane.paused_until IS NULL OR lane.paused_until <= ",
    );
    sql.bind(millis(now))
        .push(") AND lane.appid IN ")
        .list(appids)
        .push(" ORDER BY lane.appid");
    if tx.get_database_backend() == DbBackend::Postgres {
        sql.push(" FOR UPDATE OF lane");
    }
    Ok(Lane::find_by_statement(sql.on(tx)).all(tx).await?)
}

/// The first `share` ready messages of each lane.
async fn candidates(
    tx: &impl ConnectionTrait,
    lanes: &[Lane],
    share: usize,
) -> Result<Vec<Candidate>, StoreError> {
    if lanes.is_empty() {
        return Ok(Vec::new());
    }
    let share = i64::try_from(share).unwrap_or(i64::MAX);
    let mut sql = Sql::default();
    for (index, lane) in lanes.iter().enumerate() {
        if index > 0 {
            sql.push(" UNION ALL ");
        }
        sql.push("SELECT * FROM (SELECT m.id, m.appid, m.touser, m.priority, m.expires_at, EXISTS (SELECT 1 FROM message f WHERE f.phase = ");
        sql.push(&FLYING.to_string()).push(" AND f.appid = m.appid AND f.touser = m.touser) AS busy FROM message m WHERE m.phase = ");
        sql.push(&READY.to_string())
            .push(" AND m.appid = ")
            .bind(lane.appid.as_str());
        sql.push(" ORDER BY m.priority, m.due_at, m.id LIMIT ")
            .bind(share);
        sql.push(&format!(") AS lane{index}"));
    }
    Ok(Candidate::find_by_statement(sql.on(tx)).all(tx).await?)
}

/// The users of `candidates` to whom a send is under way.
///
/// On PostgreSQL their flying messages are locked against the recorder until this claim is committed: whoever
/// ends a flight after that finds the messages that this claim put behind it. A flight that the recorder has
/// locked already is over, so it is skipped.
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
    let mut sql = Sql::new("SELECT f.appid, f.touser FROM message f WHERE f.phase = ");
    sql.push(&FLYING.to_string())
        .push(" AND (f.appid, f.touser) IN (VALUES ");
    sql.rows(people.iter().map(|candidate| {
        [
            candidate.appid.as_str().into(),
            candidate.touser.as_str().into(),
        ]
    }))
    .push(")");
    if tx.get_database_backend() == DbBackend::Postgres {
        sql.push(" FOR SHARE SKIP LOCKED");
    }
    let rows = tx.query_all_raw(sql.on(tx)).await?;
    rows.iter()
        .map(|row| Ok((row.try_get("", "appid")?, row.try_get("", "touser")?)))
        .collect()
}

async fn fly(
    tx: &impl ConnectionTrait,
    choice: &Choice,
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
        .push(", updated_at = ")
        .bind(millis(now));
    // Whoever changed a candidate since it was read keeps it.
    sql.push(" WHERE phase = ")
        .push(&READY.to_string())
        .push(" AND id IN ")
        .list(&choice.fly);
    sql.push(" RETURNING ").push(FLYING_COLUMNS);
    let rows = FlyingRow::find_by_statement(sql.on(tx)).all(tx).await?;
    rows.into_iter().map(Claimed::try_from).collect()
}

async fn move_to(
    tx: &impl ConnectionTrait,
    ids: &[Uuid],
    phase: i64,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    if ids.is_empty() {
        return Ok(());
    }
    let mut sql = Sql::new("UPDATE message SET phase = ");
    sql.push(&phase.to_string())
        .push(", updated_at = ")
        .bind(millis(now));
    sql.push(" WHERE phase = ")
        .push(&READY.to_string())
        .push(" AND id IN ")
        .list(ids);
    tx.execute_raw(sql.on(tx)).await?;
    Ok(())
}

async fn expire(
    tx: &impl ConnectionTrait,
    choice: &Choice,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    if choice.expired.is_empty() {
        return Ok(());
    }
    let mut sql = Sql::new("UPDATE message SET status = 'expired', phase = ");
    sql.push(&ENDED.to_string())
        .push(", failure_code = ")
        .bind(FailureCode::Expired.as_str());
    sql.push(", updated_at = ").bind(millis(now));
    sql.push(" WHERE phase = ")
        .push(&READY.to_string())
        .push(" AND id IN ")
        .list(&choice.expired);
    tx.execute_raw(sql.on(tx)).await?;
    release_behind(tx, &choice.expired_people, now).await?;
    Ok(())
}

/// Writes the quota used. A lane without any left rests until the next day, so that claims pass it by.
async fn charge(
    tx: &impl ConnectionTrait,
    choice: &Choice,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let today = day_number(now);
    let reset_at = millis(quota::reset_at(now));
    let mut sql = Sql::new("WITH v(lane_appid, used, rest) AS (VALUES ");
    sql.rows(choice.meters.iter().map(|(appid, meter)| {
        let rest = (meter.used >= meter.limit).then_some(reset_at);
        [
            appid.as_str().into(),
            meter.used.cast_signed().into(),
            rest.into(),
        ]
    }));
    sql.push(") UPDATE lane SET quota_day = ")
        .bind(today)
        .push(", quota_used = v.used, paused_until = v.rest");
    sql.push(", pause_reason = CASE WHEN v.rest IS NULL THEN NULL ELSE ")
        .bind(QUOTA_EXHAUSTED)
        .push(" END, pause_detail = NULL");
    sql.push(" FROM v WHERE lane.appid = v.lane_appid");
    tx.execute_raw(sql.on(tx)).await?;
    Ok(())
}
