//! Intake: one transaction for all messages that wait to be accepted at this moment.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use domain::{
    app::{AppId, AppKind},
    id::{MessageId, TenantId},
    lifecycle::Status,
    message::{Channel, Draft},
    quota::{self, Shares},
};
use sea_orm::{ActiveValue::Set, ConnectionTrait, DbBackend, EntityTrait, FromQueryResult};
use uuid::Uuid;

use super::{
    READY, WAITING,
    sql::{Sql, pieces},
};
use crate::{
    Message, PlatformStore, StoreError,
    apps::parse_kind,
    entity::message::{ActiveModel, Entity},
    messages::{on_uncertain_word, rank, to_json},
    millis,
};

/// How many messages one INSERT takes: 27 columns stay under SQLite's 32,766 bound values.
const INSERT_ROWS: usize = 512;

/// A message about to be accepted.
#[derive(Clone, Debug)]
pub struct NewMessage {
    /// Its id.
    pub id: MessageId,
    /// Whose it is.
    pub tenant: TenantId,
    /// The app that sends it.
    pub appid: AppId,
    /// The message.
    pub draft: Draft,
    /// The request's `Idempotency-Key`.
    pub idempotency: Option<IdempotencyKey>,
    /// When it was asked for.
    pub received_at: DateTime<Utc>,
}

/// What makes a repeated request recognisable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// The caller's key, unique in its tenant for 24 hours.
    pub key: String,
    /// A hash of the request: the same key with another one is refused.
    pub fingerprint: [u8; 32],
}

/// What became of a [`NewMessage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// It is in the queue (or, as a dry run, would be).
    Stored,
    /// Its idempotency key stands for this message already.
    Replayed(MessageId),
    /// Its idempotency key stands for another request.
    KeyReused,
    /// The tenant has no such app.
    NoSuchApp,
    /// The app is of a kind that cannot send on the message's channel.
    WrongKind(AppKind),
    /// The day's quota is spent and the message would expire before the next day.
    QuotaExhausted {
        /// When the next day begins.
        reset_at: DateTime<Utc>,
    },
}

#[derive(FromQueryResult)]
struct AppFacts {
    appid: String,
    tenant_id: Uuid,
    kind: String,
    daily_quota: i64,
    quota_day: i64,
    quota_used: i64,
}

#[derive(FromQueryResult)]
struct KeyRow {
    tenant_id: Uuid,
    key: String,
    fingerprint: Vec<u8>,
    message_id: Uuid,
}

impl PlatformStore {
    /// Accepts a batch, in one transaction: all of it or, on an error, nothing. Answers in the batch's order.
    pub async fn intake(
        &self,
        batch: &[NewMessage],
        shares: Shares,
        now: DateTime<Utc>,
    ) -> Result<Vec<Received>, StoreError> {
        let tx = self.store.begin().await?;
        let facts = app_facts(&tx, batch).await?;
        let mut received: Vec<Received> = batch
            .iter()
            .map(|new| admit(new, &facts, shares, now))
            .collect();
        recognise(&tx, batch, &mut received).await?;
        let rows = batch
            .iter()
            .zip(&received)
            .filter(|(new, received)| **received == Received::Stored && !new.draft.dry_run)
            .map(|(new, _)| row(new))
            .collect::<Result<Vec<_>, _>>()?;
        for piece in pieces(rows, INSERT_ROWS) {
            Entity::insert_many(piece)
                .exec_without_returning(&tx)
                .await?;
        }
        tx.commit().await?;
        Ok(received)
    }
}

impl NewMessage {
    /// The status it is accepted with.
    pub fn starts_as(&self) -> Status {
        self.starts_in().0
    }

    fn starts_in(&self) -> (Status, i64) {
        if self.draft.due_at(self.received_at) > self.received_at {
            (Status::Scheduled, WAITING)
        } else {
            (Status::Queued, READY)
        }
    }

    /// The message as it stands at its acceptance.
    pub fn accepted(self) -> Message {
        Message {
            id: self.id,
            tenant: self.tenant,
            appid: self.appid.clone(),
            status: self.starts_as(),
            priority: self.draft.priority,
            due_at: self.draft.due_at(self.received_at),
            expires_at: self.draft.expires_at(self.received_at),
            touser: self.draft.touser,
            template_id: self.draft.template_id,
            content: self.draft.content,
            metadata: self.draft.metadata,
            reference: self.draft.reference,
            on_uncertain: self.draft.on_uncertain,
            send_at: self.draft.send_at,
            ttl: self.draft.ttl,
            attempts: Vec::new(),
            msgid: None,
            failure: None,
            payload_dropped_at: None,
            created_at: self.received_at,
            updated_at: self.received_at,
        }
    }
}

/// The apps of the batch. On PostgreSQL they are kept from being removed until the batch is in.
async fn app_facts(
    tx: &impl ConnectionTrait,
    batch: &[NewMessage],
) -> Result<HashMap<String, AppFacts>, StoreError> {
    let appids: Vec<&str> = batch
        .iter()
        .map(|new| new.appid.as_str())
        .collect::<HashSet<_>>()
        .into_iter()
        .collect();
    let mut sql = Sql::new(
        "SELECT app.appid, app.tenant_id, app.kind, app.daily_quota, lane.quota_day, lane.quota_used \
         FROM app JOIN lane ON lane.appid = app.appid WHERE app.appid",
    );
    sql.one_of(&appids);
    if tx.get_database_backend() == DbBackend::Postgres {
        sql.push(" FOR KEY SHARE OF app");
    }
    let rows = AppFacts::find_by_statement(sql.on(tx)).all(tx).await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.appid.clone(), row))
        .collect())
}

fn admit(
    new: &NewMessage,
    facts: &HashMap<String, AppFacts>,
    shares: Shares,
    now: DateTime<Utc>,
) -> Received {
    let Some(app) = facts
        .get(new.appid.as_str())
        .filter(|app| app.tenant_id == new.tenant.uuid())
    else {
        return Received::NoSuchApp;
    };
    let official = new.draft.content.channel() == Channel::Official;
    match parse_kind(&app.kind) {
        Ok(kind) if official != (kind == AppKind::OfficialAccount) => {
            return Received::WrongKind(kind);
        }
        _ => {}
    }
    let limit = app.daily_quota.unsigned_abs();
    let used = if app.quota_day == super::meter::day_number(now) {
        app.quota_used.unsigned_abs()
    } else {
        0
    };
    let reset_at = quota::reset_at(now);
    let spent = shares.remaining(limit, used, new.draft.priority) == 0;
    if spent && new.draft.due_at(now) < reset_at && new.draft.expires_at(now) <= reset_at {
        return Received::QuotaExhausted { reset_at };
    }
    Received::Stored
}

/// Claims the idempotency keys of those that are about to be stored, and recognises repeated requests,
/// whatever would become of them otherwise.
async fn recognise(
    tx: &impl ConnectionTrait,
    batch: &[NewMessage],
    received: &mut [Received],
) -> Result<(), StoreError> {
    let keyed = || {
        batch
            .iter()
            .enumerate()
            .filter_map(|(index, new)| Some((index, new, new.idempotency.as_ref()?)))
    };
    let mut to_claim: Vec<_> = keyed()
        .filter(|(index, new, _)| received[*index] == Received::Stored && !new.draft.dry_run)
        .collect();
    // In one order everywhere: two replicas with the same keys must not wait for each other in a circle.
    to_claim.sort_by(|(_, a, a_key), (_, b, b_key)| {
        (a.tenant.uuid(), &a_key.key).cmp(&(b.tenant.uuid(), &b_key.key))
    });
    let mut fresh = HashSet::new();
    if !to_claim.is_empty() {
        let mut sql = Sql::new(
            "INSERT INTO idempotency (tenant_id, key, fingerprint, message_id, created_at) ",
        );
        sql.rows(to_claim.iter().map(|(_, new, idempotency)| {
            [
                new.tenant.uuid().into(),
                idempotency.key.clone().into(),
                idempotency.fingerprint.to_vec().into(),
                new.id.uuid().into(),
                millis(new.received_at).into(),
            ]
        }));
        sql.push(" ON CONFLICT DO NOTHING RETURNING message_id");
        for row in tx.query_all_raw(sql.on(tx)).await? {
            fresh.insert(row.try_get::<Uuid>("", "message_id")?);
        }
    }
    let known: Vec<_> = keyed()
        .filter(|(_, new, _)| !fresh.contains(&new.id.uuid()))
        .collect();
    if known.is_empty() {
        return Ok(());
    }
    let mut sql = Sql::new(
        "SELECT tenant_id, key, fingerprint, message_id FROM idempotency WHERE (tenant_id, key) IN (",
    );
    sql.rows(
        known.iter().map(|(_, new, idempotency)| {
            [new.tenant.uuid().into(), idempotency.key.clone().into()]
        }),
    )
    .push(")");
    let rows = KeyRow::find_by_statement(sql.on(tx)).all(tx).await?;
    for (index, new, idempotency) in known {
        if let Some(row) = rows
            .iter()
            .find(|row| row.tenant_id == new.tenant.uuid() && row.key == idempotency.key)
        {
            received[index] = if row.fingerprint == idempotency.fingerprint {
                Received::Replayed(row.message_id.into())
            } else {
                Received::KeyReused
            };
        }
    }
    Ok(())
}

fn row(new: &NewMessage) -> Result<ActiveModel, StoreError> {
    let (status, phase) = new.starts_in();
    let draft = &new.draft;
    let at = millis(new.received_at);
    Ok(ActiveModel {
        id: Set(new.id.uuid()),
        tenant_id: Set(new.tenant.uuid()),
        appid: Set(new.appid.as_str().to_owned()),
        touser: Set(draft.touser.clone()),
        template_id: Set(draft.template_id.clone()),
        priority: Set(rank(draft.priority)),
        status: Set(status.as_str().to_owned()),
        phase: Set(phase),
        content: Set(to_json(&draft.content, "message.content")?),
        metadata: Set(draft
            .metadata
            .as_ref()
            .map(|metadata| to_json(metadata, "message.metadata"))
            .transpose()?),
        reference: Set(draft.reference.clone()),
        on_uncertain: Set(on_uncertain_word(draft.on_uncertain).to_owned()),
        send_at: Set(draft.send_at.map(millis)),
        ttl_seconds: Set(draft.ttl.as_secs().cast_signed()),
        due_at: Set(millis(draft.due_at(new.received_at))),
        expires_at: Set(millis(draft.expires_at(new.received_at))),
        attempt_count: Set(0),
        attempts: Set("[]".to_owned()),
        lease: Set(None),
        lease_until: Set(None),
        retried_at: Set(None),
        msgid: Set(None),
        failure_code: Set(None),
        failure_detail: Set(None),
        payload_dropped_at: Set(None),
        created_at: Set(at),
        updated_at: Set(at),
    })
}
