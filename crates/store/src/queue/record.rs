//! Record: one transaction for all verdicts that wait to be written at this moment.

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
    BEHIND, ENDED, FLYING, READY, WAITING,
    choice::Person,
    grants::{self, GrantNews},
    meter::day_number,
    pause::{LaneNews, hold, refund, tell},
    sql::{Cell, Sql, still},
    tell::tell_messages,
};
use crate::{PlatformStore, StoreError, messages::to_json, millis};

/// Whose word a settlement is: decides what counts when two speak of one flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// WeChat's last one about the message. It corrects a [`Word::Nobody`] that came before it.
    Final,
    /// The worker's, about a send that is not settled by it. It counts while the lease holds.
    Worker,
    /// The lease has ended without any.
    Nobody,
}

/// What a flight came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Settlement {
    /// Which message.
    pub id: MessageId,
    /// The lease it was claimed under. A record that comes after another claim changes nothing.
    pub lease: i64,
    /// Whose word it is.
    pub word: Word,
    /// The app that sent it.
    pub appid: AppId,
    /// The receiver's openid.
    pub touser: String,
    /// The template's id.
    pub template_id: String,
    /// What becomes of what permitted it; none: nothing.
    pub grant: Option<GrantNews>,
    /// What becomes of it.
    pub transition: Transition,
    /// All its tries, this one included.
    pub attempts: Vec<Attempt>,
    /// When it was claimed, if none of its tries since then has reached WeChat: the quota is given back.
    pub refund: Option<DateTime<Utc>>,
    /// WeChat's id for it.
    pub msgid: Option<u64>,
    /// What is particular about its failure; none: the failure code's own advice.
    pub failure_detail: Option<String>,
}

/// What a [`record`](PlatformStore::record) did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// The messages that their settlement was in time for, and so have changed.
    pub changed: HashSet<MessageId>,
    /// Whether messages that had stood behind these are ready now.
    pub released: bool,
}

impl PlatformStore {
    /// Writes the plain settlements of a batch, by one statement: those that give no quota and no grant back, of
    /// messages that no endpoint is to be told of. All others are for [`record`](Self::record).
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
        let connection = &self.store.write;
        let settled = settle(connection, &plain, UNHEARD, now).await?;
        // Whom this leaves behind, the sweeper finds.
        let released = release_behind(connection, &followed(&settled), now)
            .await
            .inspect_err(|error| tracing::warn!(%error, "cannot let the next messages go yet"));
        Ok(Recorded {
            changed: changed(&settled),
            released: released.unwrap_or_default(),
        })
    }

    /// Writes a batch of settlements, and what they mean for whole apps, in one transaction.
    pub async fn record<S: Borrow<Settlement>>(
        &self,
        batch: &[S],
        news: &[LaneNews],
        now: DateTime<Utc>,
    ) -> Result<Recorded, StoreError> {
        let batch: Vec<&Settlement> = batch.iter().map(Borrow::borrow).collect();
        let tx = self.store.begin().await?;
        let refunded = batch.iter().filter(|one| one.refund.is_some());
        let lanes = refunded.map(|one| &one.appid);
        hold(&tx, lanes.chain(news.iter().map(LaneNews::appid))).await?;
        let told_before = uncertain_before(&tx, &batch).await?;
        let mut settled = Vec::new();
        if !batch.is_empty() {
            settled = settle(&tx, &batch, "", now).await?;
        }
        let changed = changed(&settled);
        // What was recorded before, or came too late, gives nothing back.
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
        tell_messages(&tx, &told, now).await?;
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

/// That no endpoint of the message's tenant is to be told of anything.
const UNHEARD: &str = " AND NOT EXISTS (SELECT 1 FROM webhook WHERE webhook.tenant_id = message.tenant_id AND webhook.status = 'enabled')";

/// A message that its settlement was in time for.
#[derive(FromQueryResult)]
struct Settled {
    id: Uuid,
    tenant_id: Uuid,
    appid: String,
    touser: String,
    /// Whether others may stand behind it.
    followed: i64,
}

fn followed(settled: &[Settled]) -> Vec<Person> {
    let followed = settled.iter().filter(|one| one.followed != 0);
    followed
        .map(|one| (one.appid.clone(), one.touser.clone()))
        .collect()
}

fn changed(settled: &[Settled]) -> HashSet<MessageId> {
    settled.iter().map(|one| one.id.into()).collect()
}

/// The news of apps that the tenants of these messages still own: what another tenant's message has met says nothing of
/// the present owner's secret and quota. News that no message tells of are kept.
async fn of_owners<'a>(
    tx: &impl ConnectionTrait,
    news: &'a [LaneNews],
    settled: &[Settled],
) -> Result<Vec<&'a LaneNews>, StoreError> {
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
    let is_owned = |news: &&LaneNews| {
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

/// Settles those of the batch whose flight is theirs, as far as `which` holds for them.
async fn settle(
    connection: &impl ConnectionTrait,
    batch: &[&Settlement],
    which: &str,
    now: DateTime<Utc>,
) -> Result<Vec<Settled>, StoreError> {
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
        .push(&still(FLYING))
        .push(" OR v.corrects = 1 AND status IN ('queued', 'uncertain'))")
        .push(which)
        .push(" RETURNING id, tenant_id, appid, touser, followed");
    Ok(Settled::find_by_statement(sql.on(connection))
        .all(connection)
        .await?)
}

/// Those that are `uncertain` and will stay so, because WeChat has refused a repeat too late: that end was told.
async fn uncertain_before(
    tx: &impl ConnectionTrait,
    batch: &[&Settlement],
) -> Result<HashSet<Uuid>, StoreError> {
    let late = batch
        .iter()
        .filter(|one| one.word == Word::Final && one.transition.status == Status::Uncertain);
    let ids: Vec<Uuid> = late.map(|one| one.id.uuid()).collect();
    if ids.is_empty() {
        return Ok(HashSet::new());
    }
    // Whatever their status: PostgreSQL locks rows as they were when the statement began, and shows them as they are
    // when it has the lock.
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

fn row(settlement: &Settlement, now: DateTime<Utc>) -> Result<[Cell; 12], StoreError> {
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
        i64::from(settlement.word == Word::Final).into(),
        (settlement.word == Word::Nobody)
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

/// Makes the next message behind each of `people` ready: nothing is under way to them any more. The others, if there are
/// any, stand behind that one. Says whether there was any.
pub(super) async fn release_behind(
    tx: &impl ConnectionTrait,
    people: &[Person],
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

/// How many sends each app gets back for which day. A batch that spans midnight gives back for its later day only:
/// the earlier one is over.
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
