//! Receipts: WeChat's reports about messages that WeChat has accepted.
//!
//! A receipt names a message by WeChat's msgid, the recipient and the app. A receipt may come more than once, and may
//! come before the answer of the send is recorded: then the receipt waits in a separate table, and the sweep tries the
//! receipt again. The state machine decides how a receipt changes a message: the first receipt counts, and repeats
//! change nothing.
//!
//! A message with a lost answer has no msgid. The sweep finds such a message by the receipt's other fields, if these
//! fields fit one message only ([`circumstances`]).
//!
//! The statement finds the message by the index on the recipient, newest first. A receipt comes within seconds of the
//! send, so the message is among the first few. An index on the msgid would cost a write for each send, and only
//! receipts would use that index.
//!
//! A receipt settles messages of one tenant only: the owner of the app at the time at which the receipt came. The owner
//! of an appid may change, and neither owner changes what the other has sent.
//!
//! **Locks.** A receipt locks ended messages only, in the order of the ids, and no lane. A record locks messages in
//! flight. So neither ever waits for the other. A separate statement writes the waiting receipts, never while a message
//! is locked.

mod match_fields;
mod waiting;

use std::collections::HashSet;

use chrono::{DateTime, Duration, Utc};
use domain::{
    app::AppId,
    id::TenantId,
    lifecycle::{Event, MessageState, Status},
    message::{Channel, OnUncertain},
    verdict::FailureCode,
};
use sea_orm::{ConnectionTrait, DbBackend, FromQueryResult};
use uuid::Uuid;

use self::waiting::{DueReceipts, PIECE};
use super::{
    ENDED,
    events::{Settled, end_with_events},
    sql::{Sql, SqlValue},
};
use crate::{
    PlatformStore, StoreError,
    error::unknown,
    timestamp::{millis, time},
};

/// The time after which a new receipt is tried again for the first time. Each later wait is twice as long.
const FIRST_LOOK: Duration = Duration::seconds(1);

/// WeChat's report about one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewReceipt {
    /// The tenant that owns the app: the receipt is signed with this tenant's Token.
    pub tenant: TenantId,
    /// The app that sent the message.
    pub appid: AppId,
    /// The recipient's openid.
    pub touser: String,
    /// WeChat's id of the message.
    pub msgid: u64,
    /// Whether the message was delivered.
    pub delivered: bool,
    /// The particulars of the failure. `None` if the failure code's own advice says enough.
    pub failure_detail: Option<String>,
    /// Other fields that identify the message. `None` if an older version of the gateway stored the receipt.
    pub circumstances: Option<MatchFields>,
}

/// Fields of a receipt that identify the message if no message has the receipt's msgid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatchFields {
    /// The channel of the message.
    pub channel: Channel,
    /// The template of the message, if WeChat names the template.
    pub template_id: Option<String>,
    /// The time at which WeChat had finished with the message.
    pub happened_at: DateTime<Utc>,
}

/// The result of a sweep over waiting receipts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SweptReceipts {
    /// The messages that the sweep has settled.
    pub settled: Vec<Settled>,
    /// The number of receipts that were given up, because this gateway has not sent such messages.
    pub abandoned: u64,
    /// The app after which the next sweep continues. Empty: the next sweep starts at the first app.
    pub after: String,
    /// Whether an app of this sweep may have more due receipts.
    pub more: bool,
}

/// The key of a receipt: appid, recipient, WeChat's msgid.
type ReceiptKey = (String, String, String);

impl NewReceipt {
    fn key(&self) -> ReceiptKey {
        let msgid = self.msgid.to_string();
        (self.appid.as_str().to_owned(), self.touser.clone(), msgid)
    }

    /// The change that this receipt makes to a message in this status, in the form that [`write`] takes. `None` if the
    /// receipt changes nothing because another receipt came before.
    fn change(&self, message: Uuid, status: Status, now: DateTime<Utc>) -> Option<[SqlValue; 6]> {
        // All fields but the status concern repeats, which a receipt does not cause.
        let facts = MessageState {
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
struct ReceiptMessage {
    id: Uuid,
    tenant_id: Uuid,
    appid: String,
    touser: String,
    msgid: String,
    status: String,
}

impl ReceiptMessage {
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
        let channel = self.channel.as_deref().and_then(match_fields::channel);
        let circumstances = channel.zip(self.happened_at);
        let receipt = NewReceipt {
            // Without an owner the app is removed, and no message waits for this receipt.
            tenant: self.tenant_id.unwrap_or_default().into(),
            appid: AppId::parse(&self.appid).map_err(|_| unknown("receipt.appid", &self.appid))?,
            touser: self.touser,
            msgid: self
                .msgid
                .parse()
                .map_err(|_| unknown("receipt.msgid", &self.msgid))?,
            delivered: self.status == Status::Delivered.as_str(),
            failure_detail: self.failure_detail,
            circumstances: circumstances.map(|(channel, happened_at)| MatchFields {
                channel,
                template_id: self.template_id,
                happened_at: time(happened_at),
            }),
        };
        Ok((receipt, time(self.received_at)))
    }
}

/// The result of applying receipts: the settled messages, and the receipts without a message.
struct Applied {
    settled: Vec<Settled>,
    unmatched: Vec<NewReceipt>,
}

impl PlatformStore {
    /// Accepts receipts. When this function returns, each receipt has settled a message or waits for a message, as far
    /// as the app has room for more waiting receipts. Returns the settled messages, and the number of receipts that
    /// were given up at once.
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

    /// Tries some waiting receipts again, of the apps after `after`, and deletes those that have waited too long.
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
        // Read before the search by msgid: if an answer is recorded in between, that search finds the message.
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

    /// Settles the messages of the receipts that have one, in one transaction.
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
        let tx = self.store.begin_batch().await?;
        let rows = lock_messages(&tx, receipts).await?;
        let (mut changes, mut unmatched) = (Vec::new(), Vec::new());
        let mut seen = HashSet::new();
        for receipt in receipts {
            let Some(row) = rows.iter().find(|row| row.is_of(receipt)) else {
                unmatched.push(receipt.clone());
                continue;
            };
            let Some(status) = Status::parse(&row.status) else {
                // A newer replica may have written the status; that replica will be able to apply the receipt.
                tracing::error!(message_id = %row.id, status = row.status, "a message cannot be read");
                unmatched.push(receipt.clone());
                continue;
            };
            // Of two receipts for one message the first counts, also if both are in one batch.
            if seen.insert(row.id) {
                changes.extend(receipt.change(row.id, status, now));
            }
        }
        let settled = write(&tx, changes, now).await?;
        tx.commit().await?;
        Ok(Applied { settled, unmatched })
    }

    /// Stores receipts that wait. A receipt that waits already is left unchanged.
    async fn put_waiting(
        &self,
        mut receipts: Vec<NewReceipt>,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        if receipts.is_empty() {
            return Ok(());
        }
        // In a fixed order, so that two replicas that store the same receipts do not block each other.
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
                about.map(|about| match_fields::word(about.channel)).into(),
                about.and_then(|about| about.template_id.clone()).into(),
                about.map(|about| millis(about.happened_at)).into(),
            ]
        }));
        sql.push(" ON CONFLICT (appid, touser, msgid) DO NOTHING");
        self.run(sql).await
    }

    async fn forget_waiting(&self, keys: Vec<ReceiptKey>) -> Result<(), StoreError> {
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

    async fn put_off(&self, looks: Vec<(ReceiptKey, DateTime<Utc>)>) -> Result<(), StoreError> {
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
        let connection = self.store.write();
        connection.execute_raw(sql.on(connection)).await?;
        Ok(())
    }
}

/// The ended messages of these receipts, locked in the order of the ids.
async fn lock_messages(
    tx: &impl ConnectionTrait,
    receipts: &[NewReceipt],
) -> Result<Vec<ReceiptMessage>, StoreError> {
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
    // A message that is in flight again still has the msgid of the earlier send. A receipt of that send changes
    // nothing, so only ended messages are selected.
    sql.push(&format!(
        ") SELECT id, tenant_id, appid, touser, msgid, status FROM message \
         WHERE id IN (SELECT (SELECT m.id FROM message m WHERE m.appid = v.a AND m.touser = v.t AND m.msgid = v.m \
         AND m.tenant_id = v.owner AND m.phase = {ENDED} ORDER BY m.id DESC LIMIT 1) FROM v) ORDER BY id"
    ));
    if tx.get_database_backend() == DbBackend::Postgres {
        sql.push(" FOR UPDATE");
    }
    Ok(ReceiptMessage::find_by_statement(sql.on(tx))
        .all(tx)
        .await?)
}

/// Writes the changes of messages that still have the status that was read, and the events of these messages.
async fn write(
    tx: &impl ConnectionTrait,
    changes: Vec<[SqlValue; 6]>,
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
    end_with_events(tx, sql, now).await
}
