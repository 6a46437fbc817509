//! Record: one transaction for all outcomes that wait to be written at this moment.
//!
//! A batch without news about an app has plain settlements, which one statement writes
//! ([`PlatformStore::record_plain`]), and others: with a webhook event, a refund of quota, or a grant. One transaction
//! writes the others and all settlements of a batch with news about an app ([`PlatformStore::record`]).
//!
//! **Late outcomes.** The settlement of an ended lease keeps the number of the lease in the message's row. If the
//! worker's outcome arrives after that and is WeChat's final answer, the outcome replaces `uncertain` or `queued`, as
//! long as no later claim has taken the message. Any other late outcome changes nothing.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, HashMap, HashSet},
};

use chrono::{DateTime, Utc};
use domain::{
    app::AppId,
    id::MessageId,
    lifecycle::{Status, Transition},
    verdict::Attempt,
};
use sea_orm::{ConnectionTrait, DbBackend, FromQueryResult};
use uuid::Uuid;

use super::{
    BEHIND, ENDED, IN_FLIGHT, READY, WAITING,
    choice::Recipient,
    events::write_message_events,
    grants::{self, GrantChange},
    meter::day_number,
    pause::{LaneChange, hold, refund, tell},
    sql::{Sql, SqlValue, still},
};
use crate::{PlatformStore, StoreError, messages::to_json, timestamp::millis};

/// The source of a settlement. Decides which settlement counts if there are two for one claim of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettlementSource {
    /// WeChat's final answer about the message. Corrects an earlier settlement that came from the end of the lease.
    Final,
    /// The worker's result of a send that WeChat has not finally answered. Counts only while the lease holds.
    Worker,
    /// No result: the lease has ended without a record.
    LeaseEnded,
}

/// The outcome of one claim of a message.
#[derive(Clone, Debug, PartialEq)]
pub struct Settlement {
    /// The message.
    pub id: MessageId,
    /// The lease of the claim. A record that arrives after a later claim changes nothing.
    pub lease: i64,
    /// The source of the settlement.
    pub word: SettlementSource,
    /// The app that sent the message.
    pub appid: AppId,
    /// The recipient's openid.
    pub touser: String,
    /// The template's id.
    pub template_id: String,
    /// What happens to the grant of the message. `None` if nothing changes.
    pub grant: Option<GrantChange>,
    /// The transition that the state machine returned.
    pub transition: Transition,
    /// All attempts of the message, the last one included.
    pub attempts: Vec<Attempt>,
    /// The time of the claim, if no attempt since then has reached WeChat: the record gives the quota back. Else
    /// `None`.
    pub refund: Option<DateTime<Utc>>,
    /// WeChat's id of the message.
    pub msgid: Option<u64>,
    /// The particulars of the failure. `None` if the failure code's own advice says enough.
    pub failure_detail: Option<String>,
}

/// The result of a [`record`](PlatformStore::record).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// The messages that have changed, because the settlement was in time.
    pub changed: HashSet<MessageId>,
    /// Whether messages behind these are ready now.
    pub released: bool,
}

impl PlatformStore {
    /// Writes the plain settlements of a batch with one statement. A plain settlement gives no quota and no grant back,
    /// and belongs to a tenant without an enabled webhook endpoint. [`record`](Self::record) writes all others.
    pub async fn record_plain<S: Borrow<Settlement>>(
        &self,
        batch: &[S],
        now: DateTime<Utc>,
    ) -> Result<Recorded, StoreError> {
        let is_plain = |one: &&Settlement| one.refund.is_none() && one.grant.is_none();
        let plain: Vec<_> = batch.iter().map(Borrow::borrow).filter(is_plain).collect();
        if plain.is_empty() {
            return Ok(Recorded::default());
        }
        let connection = self.store.write();
        let settled = settle(connection, &plain, NO_ENDPOINT, now).await?;
        // The sweeper releases the messages that this statement misses.
        let released = release_behind(connection, &followed(&settled), now)
            .await
            .inspect_err(|error| tracing::warn!(%error, "cannot release the next messages of these recipients yet"));
        Ok(Recorded {
            changed: changed(&settled),
            released: released.unwrap_or_default(),
        })
    }

    /// Writes a batch of settlements, and their consequences for whole apps, in one transaction.
    pub async fn record<S: Borrow<Settlement>>(
        &self,
        batch: &[S],
        news: &[LaneChange],
        now: DateTime<Utc>,
    ) -> Result<Recorded, StoreError> {
        let batch: Vec<&Settlement> = batch.iter().map(Borrow::borrow).collect();
        let tx = self.store.begin_batch().await?;
        let refunded = batch.iter().filter(|one| one.refund.is_some());
        let lanes = refunded.map(|one| &one.appid);
        hold(&tx, lanes.chain(news.iter().map(LaneChange::appid))).await?;
        let told_before = uncertain_before(&tx, &batch).await?;
        let mut settled = Vec::new();
        if !batch.is_empty() {
            settled = settle(&tx, &batch, "", now).await?;
        }
        let changed = changed(&settled);
        // A settlement that was recorded before, or came too late, gives nothing back.
        let counted = || {
            let settled = batch.iter().copied();
            settled.filter(|one| changed.contains(&one.id))
        };
        for (appid, (day, count)) in refunds(counted()) {
            refund(&tx, appid, day, count).await?;
        }
        for news in of_owners(&tx, news, &settled).await? {
            tell(&tx, news, now).await?;
        }
        let told: Vec<_> = settled
            .iter()
            .filter(|one| !told_before.contains(&one.id))
            .map(|one| (one.id, one.tenant_id))
            .collect();
        write_message_events(&tx, &told, now).await?;
        let owners: HashMap<_, _> = settled
            .iter()
            .map(|one| (MessageId::from(one.id), one.tenant_id))
            .collect();
        let owned = counted().filter_map(|one| Some((*owners.get(&one.id)?, one)));
        grants::settle(&tx, owned).await?;
        let released = release_behind(&tx, &followed(&settled), now).await?;
        tx.commit().await?;
        Ok(Recorded { changed, released })
    }
}

/// True if the message's tenant has no enabled webhook endpoint.
const NO_ENDPOINT: &str = " AND NOT EXISTS (SELECT 1 FROM webhook WHERE webhook.tenant_id = message.tenant_id AND webhook.status = 'enabled')";

/// A message that has changed, because the settlement was in time.
#[derive(FromQueryResult)]
struct ChangedMessage {
    id: Uuid,
    tenant_id: Uuid,
    appid: String,
    touser: String,
    /// Whether other messages may be queued behind this message.
    followed: i64,
}

fn followed(settled: &[ChangedMessage]) -> Vec<Recipient> {
    let followed = settled.iter().filter(|one| one.followed != 0);
    followed
        .map(|one| (one.appid.clone(), one.touser.clone()))
        .collect()
}

fn changed(settled: &[ChangedMessage]) -> HashSet<MessageId> {
    settled.iter().map(|one| one.id.into()).collect()
}

/// The news of apps that are still owned by the tenants of these messages. The answer to another tenant's message says
/// nothing about the present owner's secret and quota. News without a message in `settled` is kept.
async fn of_owners<'a>(
    tx: &impl ConnectionTrait,
    news: &'a [LaneChange],
    settled: &[ChangedMessage],
) -> Result<Vec<&'a LaneChange>, StoreError> {
    if news.is_empty() {
        return Ok(Vec::new());
    }
    let appids: Vec<&str> = news.iter().map(|news| news.appid().as_str()).collect();
    let mut sql = Sql::new("SELECT appid, tenant_id FROM app WHERE appid");
    sql.one_of(&appids);
    let mut owners: HashMap<String, Uuid> = HashMap::new();
    for row in tx.query_all_raw(sql.on(tx)).await? {
        owners.insert(row.try_get("", "appid")?, row.try_get("", "tenant_id")?);
    }
    let is_owned = |news: &&LaneChange| {
        let appid = news.appid().as_str();
        let mut tellers = settled.iter().filter(|one| one.appid == appid).peekable();
        tellers.peek().is_none()
            || tellers.any(|one| {
                owners
                    .get(appid)
                    .is_none_or(|owner| *owner == one.tenant_id)
            })
    };
    Ok(news.iter().filter(is_owned).collect())
}

/// Settles the messages of the batch that are still under the lease of the settlement and fulfil `which`.
async fn settle(
    connection: &impl ConnectionTrait,
    batch: &[&Settlement],
    which: &str,
    now: DateTime<Utc>,
) -> Result<Vec<ChangedMessage>, StoreError> {
    let rows = batch
        .iter()
        .map(|settlement| row(settlement, now))
        .collect::<Result<Vec<_>, _>>()?;
    let mut sql = Sql::new(
        "WITH v(message_id, claim, corrects, kept, new_status, new_phase, next_due, tries, history, wechat_id, code, detail) AS (",
    );
    sql.rows(rows.into_iter());
    sql.push(
        ") UPDATE message SET status = v.new_status, phase = v.new_phase, due_at = COALESCE(v.next_due, due_at), \
         attempt_count = v.tries, attempts = v.history, msgid = COALESCE(v.wechat_id, msgid), failure_code = v.code, \
         failure_detail = v.detail, lease = v.kept, lease_until = NULL, ",
    );
    sql.touch(now)
        .push(" FROM v WHERE id = v.message_id AND lease = v.claim AND (")
        .push(&still(IN_FLIGHT))
        .push(" OR v.corrects = 1 AND status IN ('queued', 'uncertain'))")
        .push(which)
        .push(" RETURNING id, tenant_id, appid, touser, followed");
    Ok(ChangedMessage::find_by_statement(sql.on(connection))
        .all(connection)
        .await?)
}

/// The messages that are `uncertain` and stay `uncertain`, because WeChat's refusal of a repeat arrived late. The event
/// of that end has been written before.
async fn uncertain_before(
    tx: &impl ConnectionTrait,
    batch: &[&Settlement],
) -> Result<HashSet<Uuid>, StoreError> {
    let late = batch.iter().filter(|one| {
        one.word == SettlementSource::Final && one.transition.status == Status::Uncertain
    });
    let ids: Vec<Uuid> = late.map(|one| one.id.uuid()).collect();
    if ids.is_empty() {
        return Ok(HashSet::new());
    }
    // Not filtered by status: PostgreSQL selects rows as of the start of the statement, but returns each row as of the
    // moment at which the row is locked.
    let mut sql = Sql::new("SELECT id, status FROM message WHERE id");
    sql.one_of(&ids);
    if tx.get_database_backend() == DbBackend::Postgres {
        sql.push(" ORDER BY id FOR UPDATE");
    }
    let mut uncertain = HashSet::new();
    for row in tx.query_all_raw(sql.on(tx)).await? {
        let status: String = row.try_get("", "status")?;
        if status == Status::Uncertain.as_str() {
            uncertain.insert(row.try_get("", "id")?);
        }
    }
    Ok(uncertain)
}

fn row(settlement: &Settlement, now: DateTime<Utc>) -> Result<[SqlValue; 12], StoreError> {
    let transition = &settlement.transition;
    let phase = match transition.status {
        Status::Queued if transition.due_at.is_some_and(|due_at| due_at > now) => WAITING,
        Status::Queued => READY,
        _ => ENDED,
    };
    let detail = transition.failure.and(settlement.failure_detail.clone());
    Ok([
        settlement.id.uuid().into(),
        settlement.lease.into(),
        i64::from(settlement.word == SettlementSource::Final).into(),
        (settlement.word == SettlementSource::LeaseEnded)
            .then_some(settlement.lease)
            .into(),
        transition.status.as_str().into(),
        phase.into(),
        transition.due_at.map(millis).into(),
        i64::try_from(settlement.attempts.len())
            .unwrap_or(i64::MAX)
            .into(),
        to_json(&settlement.attempts, "message.attempts")?.into(),
        settlement.msgid.map(|msgid| msgid.to_string()).into(),
        transition
            .failure
            .map(|code| code.as_str().to_owned())
            .into(),
        detail.into(),
    ])
}

/// Makes the next message behind each of `people` ready, because no message to these recipients is in flight any more.
/// The other messages stay behind that one. Returns whether a message was released.
pub(super) async fn release_behind(
    tx: &impl ConnectionTrait,
    people: &[Recipient],
    now: DateTime<Utc>,
) -> Result<bool, StoreError> {
    if people.is_empty() {
        return Ok(false);
    }
    let mut sql = Sql::new("WITH v(a, t) AS (");
    sql.rows(
        people
            .iter()
            .map(|(appid, touser)| [appid.as_str().into(), touser.as_str().into()]),
    );
    sql.push(") UPDATE message SET followed = 1, ")
        .touch(now)
        .push(", phase = ")
        .push(&READY.to_string());
    sql.push(" WHERE ").push(&still(BEHIND));
    sql.push(" AND id IN (SELECT (SELECT m.id FROM message m WHERE m.phase = ")
        .push(&BEHIND.to_string());
    sql.push(
        " AND m.appid = v.a AND m.touser = v.t ORDER BY m.priority, m.due_at LIMIT 1) FROM v)",
    );
    Ok(tx.execute_raw(sql.on(tx)).await?.rows_affected() > 0)
}

/// The number of sends that each app gets back, and for which day. A batch that spans midnight gives back for the later
/// day only, because the earlier day is over.
fn refunds<'a>(settlements: impl Iterator<Item = &'a Settlement>) -> BTreeMap<&'a str, (i64, i64)> {
    let mut refunds = BTreeMap::new();
    for settlement in settlements {
        let Some(claimed_at) = settlement.refund else {
            continue;
        };
        let day = day_number(claimed_at);
        let (of_day, count) = refunds.entry(settlement.appid.as_str()).or_insert((day, 0));
        if day > *of_day {
            (*of_day, *count) = (day, 0);
        }
        *count += i64::from(day == *of_day);
    }
    refunds
}
