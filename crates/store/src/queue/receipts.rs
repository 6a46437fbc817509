//! Receipts: what WeChat says of messages that it took.
//!
//! A receipt names its message by WeChat's id, the user and the app. It may come more than once, and before the answer
//! of the send has been recorded: then it waits in a table of its own, and is looked at again by the sweep. The state
//! machine decides what a receipt makes of a message, so that the first one counts and repeats change nothing.
//!
//! A message whose answer was lost has no id of WeChat's. The sweep finds it by the receipt's other words, where there
//! is only one that they fit ([`circumstances`]).
//!
//! The message is found by the index on the user, newest first: a receipt comes within seconds of its send, so it is
//! among the first few. An index on WeChat's id would be written with every send, for this alone.
//!
//! A receipt settles messages of the tenant alone that owned the app when the receipt came: an appid may change its owner,
//! and neither owner changes what the other has sent.
//!
//! **Locks.** A receipt locks ended messages only, in the order of their ids, and no lane; a record locks flying ones.
//! So neither ever waits for the other. Waiting receipts are written in a statement of their own, never with a message
//! locked.

mod circumstances;
mod waiting;

use std::collections::HashSet;

use chrono::{DateTime, Duration, Utc};
use domain::{
    app::AppId,
    id::TenantId,
    lifecycle::{Event, Facts, Status},
    message::{Channel, OnUncertain},
    verdict::FailureCode,
};
use sea_orm::{ConnectionTrait, DbBackend, FromQueryResult};
use uuid::Uuid;

use self::waiting::{DueReceipts, PIECE};
use super::{
    ENDED,
    sql::{Cell, Sql},
    tell::{Settled, end_and_tell},
};
use crate::{PlatformStore, StoreError, error::unknown, millis, time};

/// How long after it came a receipt is looked at again; then after twice the time, and so on.
const FIRST_LOOK: Duration = Duration::seconds(1);

/// What WeChat says of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewReceipt {
    /// Whose app it is, by whose Token the receipt was signed.
    pub tenant: TenantId,
    /// The app that sent it.
    pub appid: AppId,
    /// The receiver's openid.
    pub touser: String,
    /// WeChat's id for it.
    pub msgid: u64,
    /// Whether it arrived.
    pub delivered: bool,
    /// What is particular about its failure; none: the failure code's own advice.
    pub failure_detail: Option<String>,
    /// What else tells of which message it is; none: an older version took it in.
    pub circumstances: Option<Circumstances>,
}

/// What tells of which message a receipt is, where no message has its msgid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Circumstances {
    /// The way that the message took.
    pub channel: Channel,
    /// Its template, where WeChat names it.
    pub template_id: Option<String>,
    /// When WeChat had done with it.
    pub happened_at: DateTime<Utc>,
}

/// What a sweep over waiting receipts did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SweptReceipts {
    /// The messages that are settled now.
    pub settled: Vec<Settled>,
    /// How many receipts were given up: nobody here has sent their messages.
    pub abandoned: u64,
    /// After which app to go on; empty: from the start.
    pub after: String,
    /// Whether an app that was looked at may have more.
    pub more: bool,
}

/// The key of a receipt: appid, user, WeChat's id.
type Key = (String, String, String);

impl NewReceipt {
    fn key(&self) -> Key {
        let msgid = self.msgid.to_string();
        (self.appid.as_str().to_owned(), self.touser.clone(), msgid)
    }

    /// What it makes of a message in this status, as [`write`] takes it; none: nothing, another receipt came before.
    fn change(&self, message: Uuid, status: Status, now: DateTime<Utc>) -> Option<[Cell; 6]> {
        // All but the status is about repeats, which a receipt does not bring about.
        let facts = Facts {
            status,
            attempts: 0,
            expires_at: now,
            on_uncertain: OnUncertain::Hold,
            repeatable_until: None,
            maybe_sent: true,
        };
        let delivered = self.delivered;
        let transition = facts.apply(&Event::Receipt { delivered }, now, 0.0).ok()?;
        Some([
            message.into(),
            status.as_str().into(),
            transition.status.as_str().into(),
            self.msgid.to_string().into(),
            transition.failure.map(FailureCode::as_str).into(),
            transition.failure.and(self.failure_detail.clone()).into(),
        ])
    }
}

#[derive(FromQueryResult)]
struct MessageRow {
    id: Uuid,
    tenant_id: Uuid,
    appid: String,
    touser: String,
    msgid: String,
    status: String,
}

impl MessageRow {
    fn is_of(&self, receipt: &NewReceipt) -> bool {
        let (appid, touser, msgid) = receipt.key();
        self.tenant_id == receipt.tenant.uuid()
            && (&self.appid, &self.touser, &self.msgid) == (&appid, &touser, &msgid)
    }
}

#[derive(FromQueryResult)]
struct WaitingRow {
    tenant_id: Option<Uuid>,
    appid: String,
    touser: String,
    msgid: String,
    status: String,
    failure_detail: Option<String>,
    received_at: i64,
    channel: Option<String>,
    template_id: Option<String>,
    happened_at: Option<i64>,
}

impl WaitingRow {
    fn read(self) -> Result<(NewReceipt, DateTime<Utc>), StoreError> {
        let channel = self.channel.as_deref().and_then(circumstances::channel);
        let circumstances = channel.zip(self.happened_at);
        let receipt = NewReceipt {
            // Without an owner there is no app any more, and no message that is waited for.
            tenant: self.tenant_id.unwrap_or_default().into(),
            appid: AppId::parse(&self.appid).map_err(|_| unknown("receipt.appid", &self.appid))?,
            touser: self.touser,
            msgid: self
                .msgid
                .parse()
                .map_err(|_| unknown("receipt.msgid", &self.msgid))?,
            delivered: self.status == Status::Delivered.as_str(),
            failure_detail: self.failure_detail,
            circumstances: circumstances.map(|(channel, happened_at)| Circumstances {
                channel,
                template_id: self.template_id,
                happened_at: time(happened_at),
            }),
        };
        Ok((receipt, time(self.received_at)))
    }
}

/// What became of receipts: messages that they settled, and those that found none.
struct Applied {
    settled: Vec<Settled>,
    unmatched: Vec<NewReceipt>,
}

impl PlatformStore {
    /// Takes receipts in: when this returns, each has settled its message or waits for it, as far as its app has room for
    /// more that wait. Returns what was settled, and how many were given up at once.
    pub async fn receive(
        &self,
        receipts: &[NewReceipt],
        now: DateTime<Utc>,
    ) -> Result<(Vec<Settled>, u64), StoreError> {
        let (mut all, mut abandoned) = (Vec::new(), 0);
        for piece in receipts.chunks(PIECE) {
            let Applied { settled, unmatched } = self.apply_receipts(piece, now).await?;
            all.extend(settled);
            let mut rooms = self.rooms(unmatched.iter()).await?;
            let (kept, given_up): (Vec<_>, Vec<_>) = unmatched
                .into_iter()
                .partition(|receipt| rooms.take(receipt.appid.as_str()));
            abandoned += given_up.len() as u64;
            self.put_waiting(kept, now).await?;
        }
        Ok((all, abandoned))
    }

    /// Looks again at some receipts that wait, of the apps after `after`, and forgets those that have waited too long.
    pub async fn sweep_receipts(
        &self,
        after: &str,
        now: DateTime<Utc>,
    ) -> Result<SweptReceipts, StoreError> {
        let DueReceipts { rows, after, more } = self.due_receipts(after, now).await?;
        let waiting = rows
            .into_iter()
            .map(WaitingRow::read)
            .collect::<Result<Vec<_>, _>>()?;
        if waiting.is_empty() {
            return Ok(SweptReceipts {
                after,
                ..SweptReceipts::default()
            });
        }
        let receipts: Vec<NewReceipt> =
            waiting.iter().map(|(receipt, _)| receipt.clone()).collect();
        // Before the ids are looked for: an answer that is recorded in between is found there.
        let rivals = self.rivals(&receipts).await?;
        let Applied {
            mut settled,
            mut unmatched,
        } = self.apply_receipts(&receipts, now).await?;
        settled.extend(self.settle_likely(&mut unmatched, &rivals, now).await?);

        let rooms = self.rooms(unmatched.iter()).await?;
        let (mut done, mut later) = (Vec::new(), Vec::new());
        let mut abandoned = 0;
        for (receipt, received_at) in waiting {
            let patience = rooms.patience(receipt.appid.as_str());
            if !unmatched.contains(&receipt) {
                done.push(receipt.key());
            } else if now - received_at >= patience {
                abandoned += 1;
                done.push(receipt.key());
            } else {
                let waited = (now - received_at).max(FIRST_LOOK);
                later.push((receipt.key(), (now + waited).min(received_at + patience)));
            }
        }
        self.forget_waiting(done).await?;
        self.put_off(later).await?;
        Ok(SweptReceipts {
            settled,
            abandoned,
            after,
            more,
        })
    }

    /// Settles the messages of those receipts that have one, in one transaction.
    async fn apply_receipts(
        &self,
        receipts: &[NewReceipt],
        now: DateTime<Utc>,
    ) -> Result<Applied, StoreError> {
        if receipts.is_empty() {
            return Ok(Applied {
                settled: Vec::new(),
                unmatched: Vec::new(),
            });
        }
        let tx = self.store.begin().await?;
        let rows = lock_messages(&tx, receipts).await?;
        let (mut changes, mut unmatched) = (Vec::new(), Vec::new());
        let mut seen = HashSet::new();
        for receipt in receipts {
            let Some(row) = rows.iter().find(|row| row.is_of(receipt)) else {
                unmatched.push(receipt.clone());
                continue;
            };
            let Some(status) = Status::parse(&row.status) else {
                // Perhaps from a newer replica, which will know what to do with the receipt.
                tracing::error!(message_id = %row.id, status = row.status, "a message cannot be read");
                unmatched.push(receipt.clone());
                continue;
            };
            // Of two receipts for one message the first counts, also when they come together.
            if seen.insert(row.id) {
                changes.extend(receipt.change(row.id, status, now));
            }
        }
        let settled = write(&tx, changes, now).await?;
        tx.commit().await?;
        Ok(Applied { settled, unmatched })
    }

    /// Lets receipts wait. One that waits already goes on waiting.
    async fn put_waiting(
        &self,
        mut receipts: Vec<NewReceipt>,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        if receipts.is_empty() {
            return Ok(());
        }
        // In one order, so that two replicas that hear of the same do not wait for each other.
        receipts.sort_by_cached_key(NewReceipt::key);
        let mut sql = Sql::new(
            "INSERT INTO receipt (tenant_id, appid, touser, msgid, status, failure_detail, received_at, look_at, channel, \
             template_id, happened_at) ",
        );
        sql.rows(receipts.iter().map(|receipt| {
            let (appid, touser, msgid) = receipt.key();
            let about = receipt.circumstances.as_ref();
            let status = if receipt.delivered {
                Status::Delivered
            } else {
                Status::Undelivered
            };
            [
                receipt.tenant.uuid().into(),
                appid.into(),
                touser.into(),
                msgid.into(),
                status.as_str().into(),
                receipt.failure_detail.clone().into(),
                millis(now).into(),
                millis(now + FIRST_LOOK).into(),
                about.map(|about| circumstances::word(about.channel)).into(),
                about.and_then(|about| about.template_id.clone()).into(),
                about.map(|about| millis(about.happened_at)).into(),
            ]
        }));
        sql.push(" ON CONFLICT (appid, touser, msgid) DO NOTHING");
        self.run(sql).await
    }

    async fn forget_waiting(&self, keys: Vec<Key>) -> Result<(), StoreError> {
        if keys.is_empty() {
            return Ok(());
        }
        let mut sql = Sql::new("DELETE FROM receipt WHERE (appid, touser, msgid) IN (");
        sql.rows(
            keys.into_iter()
                .map(|(appid, touser, msgid)| [appid.into(), touser.into(), msgid.into()]),
        )
        .push(")");
        self.run(sql).await
    }

    async fn put_off(&self, looks: Vec<(Key, DateTime<Utc>)>) -> Result<(), StoreError> {
        if looks.is_empty() {
            return Ok(());
        }
        let mut sql = Sql::new("WITH v(a, t, m, next_look) AS (");
        sql.rows(looks.into_iter().map(|((appid, touser, msgid), look_at)| {
            [
                appid.into(),
                touser.into(),
                msgid.into(),
                millis(look_at).into(),
            ]
        }));
        sql.push(") UPDATE receipt SET look_at = v.next_look FROM v WHERE appid = v.a AND touser = v.t AND msgid = v.m");
        self.run(sql).await
    }

    async fn run(&self, sql: Sql) -> Result<(), StoreError> {
        let connection = &self.store.write;
        connection.execute_raw(sql.on(connection)).await?;
        Ok(())
    }
}

/// The ended messages of these receipts, locked in the order of their ids.
async fn lock_messages(
    tx: &impl ConnectionTrait,
    receipts: &[NewReceipt],
) -> Result<Vec<MessageRow>, StoreError> {
    let mut sql = Sql::new("WITH v(owner, a, t, m) AS (");
    sql.rows(receipts.iter().map(|receipt| {
        let (appid, touser, msgid) = receipt.key();
        [
            receipt.tenant.uuid().into(),
            appid.into(),
            touser.into(),
            msgid.into(),
        ]
    }));
    // A message that flies again has the id of its earlier send, of which nothing is to be learnt any more.
    sql.push(&format!(
        ") SELECT id, tenant_id, appid, touser, msgid, status FROM message \
         WHERE id IN (SELECT (SELECT m.id FROM message m WHERE m.appid = v.a AND m.touser = v.t AND m.msgid = v.m \
         AND m.tenant_id = v.owner AND m.phase = {ENDED} ORDER BY m.id DESC LIMIT 1) FROM v) ORDER BY id"
    ));
    if tx.get_database_backend() == DbBackend::Postgres {
        sql.push(" FOR UPDATE");
    }
    Ok(MessageRow::find_by_statement(sql.on(tx)).all(tx).await?)
}

/// Writes what receipts make of messages that are still what they were, and tells of those.
async fn write(
    tx: &impl ConnectionTrait,
    changes: Vec<[Cell; 6]>,
    now: DateTime<Utc>,
) -> Result<Vec<Settled>, StoreError> {
    if changes.is_empty() {
        return Ok(Vec::new());
    }
    let mut sql = Sql::new("WITH v(message_id, was, new_status, wechat_id, code, detail) AS (");
    sql.rows(changes.into_iter());
    sql.push(
        ") UPDATE message SET status = v.new_status, msgid = v.wechat_id, failure_code = v.code, failure_detail = v.detail, ",
    );
    sql.touch(now).push(&format!(
        " FROM v WHERE id = v.message_id AND status = v.was AND phase + 0 = {ENDED}"
    ));
    end_and_tell(tx, sql, now).await
}
