//! Events: writes a webhook delivery for each endpoint that wants an event, in the transaction of the event's cause.
//!
//! A tenant without endpoints costs one query of the small `webhook` table for the whole batch. For other tenants one
//! query reads the batch's messages again, and one insert writes all deliveries. A delivery stores only the fields of a
//! message that can change. The announcer reads the other fields when it posts the delivery.
//!
//! The id of an event is made of the time, the event's type and the event's subject, so that no event is written twice
//! and no randomness is needed here. For a message that time is the time of the message's change, which never goes back
//! ([`Sql::touch`]), so that the events of a message sort in the order in which they happened. The statement that wrote
//! the end of a message also writes the event of that end.
//!
//! Causes include: a record, a receipt, an expiry (in the sweeper or in a claim), a pause of an app, the audit
//! line of a foreign refresh, template drift. A pause for a full minute (45011) causes no event. The announcer reads
//! the content of the message at the time of the post, so an event has no payload that retention has deleted.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use domain::{
    app::AppId,
    id::{self, EventId, MessageId, TenantId},
    lifecycle::Status,
    verdict::FailureCode,
    webhook::{EventFilter, EventType},
};
use sea_orm::{ConnectionTrait, DbBackend, FromQueryResult};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    pause::LanePause,
    sql::{Sql, SqlValue, pieces},
};
use crate::{
    Failure, Message, StoreError,
    error::unknown,
    messages::to_json,
    queue::THROTTLED,
    timestamp::{millis, time},
};

/// The part of an event that describes a message at the time of the event. The other fields of a message never change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageFacts {
    status: Status,
    tries: usize,
    msgid: Option<String>,
    failure: Option<(String, Option<String>)>,
    updated_at: i64,
}

impl MessageFacts {
    /// Restores the message to the state at the time of the event.
    pub fn apply(&self, message: &mut Message) -> Result<(), StoreError> {
        message.status = self.status;
        message.attempts.truncate(self.tries);
        message.msgid.clone_from(&self.msgid);
        message.updated_at = time(self.updated_at);
        message.failure = match &self.failure {
            None => None,
            Some((code, detail)) => {
                let code = FailureCode::parse(code)
                    .ok_or_else(|| unknown("webhook_delivery.facts", code))?;
                Some(Failure {
                    code,
                    detail: detail.clone().unwrap_or_else(|| code.advice().to_owned()),
                })
            }
        };
        Ok(())
    }
}

/// An event of an app or of a webhook endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct AppEvent {
    /// The event's id.
    pub id: EventId,
    /// The event's type.
    pub kind: EventType,
    /// The `data` of the event's payload.
    pub data: serde_json::Value,
}

impl AppEvent {
    /// An event of `kind` about the app. Two events with the same kind, app and millisecond have the same id.
    pub fn new(
        kind: EventType,
        appid: &AppId,
        data: serde_json::Value,
        now: DateTime<Utc>,
    ) -> Self {
        Self::about(kind, appid.as_str(), data, now)
    }

    /// An event of `kind` about any subject `what`, with the same rule for the id.
    pub(crate) fn about(
        kind: EventType,
        what: &str,
        data: serde_json::Value,
        now: DateTime<Utc>,
    ) -> Self {
        Self {
            id: id::derived(now, kind.ordinal(), what),
            kind,
            data,
        }
    }
}

#[derive(FromQueryResult)]
struct EndpointFilter {
    id: Uuid,
    tenant_id: Uuid,
    events: String,
}

#[derive(FromQueryResult)]
struct Changed {
    id: Uuid,
    tenant_id: Uuid,
    status: String,
    attempt_count: i64,
    msgid: Option<String>,
    failure_code: Option<String>,
    failure_detail: Option<String>,
    updated_at: i64,
}

/// A delivery to insert, without the fields that all deliveries of the insert share.
struct Due {
    webhook: Uuid,
    event: Uuid,
    tenant: Uuid,
    kind: EventType,
    message: Option<Uuid>,
    facts: String,
}

/// Writes the events of messages, each given with its tenant, as the messages are in this transaction.
pub(super) async fn write_message_events(
    tx: &impl ConnectionTrait,
    changed: &[(Uuid, Uuid)],
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let tenants: BTreeSet<Uuid> = changed.iter().map(|(_, tenant)| *tenant).collect();
    let endpoints = endpoints(tx, tenants).await?;
    let concerned: Vec<Uuid> = changed
        .iter()
        .filter(|(_, tenant)| endpoints.iter().any(|one| one.tenant_id == *tenant))
        .map(|(message, _)| *message)
        .collect();
    if concerned.is_empty() {
        return Ok(());
    }
    let mut sql = Sql::new(
        "SELECT id, tenant_id, status, attempt_count, msgid, failure_code, failure_detail, updated_at FROM message WHERE id",
    );
    sql.one_of(&concerned);
    let rows = Changed::find_by_statement(sql.on(tx)).all(tx).await?;
    let mut due = Vec::new();
    for row in rows {
        let status =
            Status::parse(&row.status).ok_or_else(|| unknown("message.status", &row.status))?;
        let Some(kind) = EventType::of(status) else {
            continue;
        };
        // One change of a message gives the same event id, whichever statement writes the event.
        let event: EventId = id::new(time(row.updated_at), kind.ordinal(), row.id.as_u64_pair().1);
        let facts = MessageFacts {
            status,
            tries: usize::try_from(row.attempt_count).unwrap_or_default(),
            msgid: row.msgid,
            failure: row.failure_code.map(|code| (code, row.failure_detail)),
            updated_at: row.updated_at,
        };
        let facts = to_json(&facts, "webhook_delivery.facts")?;
        for endpoint in wanting(&endpoints, row.tenant_id, kind) {
            due.push(Due {
                webhook: endpoint,
                event: event.uuid(),
                tenant: row.tenant_id,
                kind,
                message: Some(row.id),
                facts: facts.clone(),
            });
        }
    }
    insert(tx, due, now).await
}

/// A message that has ended, or that a receipt has settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The message.
    pub id: MessageId,
    /// The present status of the message.
    pub status: Status,
}

#[derive(FromQueryResult)]
struct EndedRow {
    id: Uuid,
    tenant_id: Uuid,
    status: String,
}

/// Executes `update`, which ends messages, and writes the events of the messages that the update has changed. Only the
/// statement that wrote an end writes the event of that end. Returns the ended messages.
pub(super) async fn end_with_events(
    tx: &impl ConnectionTrait,
    mut update: Sql,
    now: DateTime<Utc>,
) -> Result<Vec<Settled>, StoreError> {
    update.push(" RETURNING id, tenant_id, status");
    let rows = EndedRow::find_by_statement(update.on(tx)).all(tx).await?;
    let changed: Vec<_> = rows.iter().map(|row| (row.id, row.tenant_id)).collect();
    write_message_events(tx, &changed, now).await?;
    let ended = rows.into_iter().map(|row| {
        let status = Status::parse(&row.status);
        Ok(Settled {
            id: row.id.into(),
            status: status.ok_or_else(|| unknown("message.status", &row.status))?,
        })
    });
    ended.collect()
}

/// Writes an event of one of the tenant's apps. Returns the number of endpoints that get the event.
pub(crate) async fn tell_event(
    tx: &impl ConnectionTrait,
    tenant: TenantId,
    event: &AppEvent,
    now: DateTime<Utc>,
) -> Result<usize, StoreError> {
    let tenant = tenant.uuid();
    let endpoints = endpoints(tx, BTreeSet::from([tenant])).await?;
    let facts = to_json(&event.data, "webhook_delivery.facts")?;
    let due: Vec<Due> = wanting(&endpoints, tenant, event.kind)
        .map(|webhook| Due {
            webhook,
            event: event.id.uuid(),
            tenant,
            kind: event.kind,
            message: None,
            facts: facts.clone(),
        })
        .collect();
    let told = due.len();
    insert(tx, due, now).await?;
    Ok(told)
}

/// Writes an event for one endpoint, whichever events that endpoint wants.
pub(crate) async fn tell_one(
    tx: &impl ConnectionTrait,
    tenant: TenantId,
    webhook: Uuid,
    event: &AppEvent,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let due = Due {
        webhook,
        event: event.id.uuid(),
        tenant: tenant.uuid(),
        kind: event.kind,
        message: None,
        facts: to_json(&event.data, "webhook_delivery.facts")?,
    };
    insert(tx, vec![due], now).await
}

/// Writes the event that the app is paused, unless the app is paused for the same reason already. To be called before
/// the pause is written, because the function reads the lane's present reason. A pause for a full minute has no event.
pub(super) async fn tell_pause(
    tx: &impl ConnectionTrait,
    pause: &LanePause,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    if pause.reason == THROTTLED {
        return Ok(());
    }
    let mut sql = Sql::new(
        "SELECT app.tenant_id, lane.pause_reason FROM lane JOIN app ON app.appid = lane.appid WHERE lane.appid = ",
    );
    sql.bind(pause.appid.as_str());
    if tx.get_database_backend() == DbBackend::Postgres {
        sql.push(" FOR UPDATE OF lane");
    }
    let Some(row) = tx.query_one_raw(sql.on(tx)).await? else {
        return Ok(());
    };
    let known: Option<String> = row.try_get("", "pause_reason")?;
    if known.as_deref() == Some(pause.reason.as_str()) {
        return Ok(());
    }
    let tenant: Uuid = row.try_get("", "tenant_id")?;
    let data = serde_json::json!({
        "appid": pause.appid.as_str(),
        "reason": pause.reason,
        "detail": pause.detail,
        "paused_until": pause.until.to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
    });
    let event = AppEvent::new(EventType::AppBreakerOpened, &pause.appid, data, now);
    tell_event(tx, tenant.into(), &event, now).await?;
    Ok(())
}

/// The enabled endpoints of these tenants.
async fn endpoints(
    tx: &impl ConnectionTrait,
    tenants: BTreeSet<Uuid>,
) -> Result<Vec<EndpointFilter>, StoreError> {
    if tenants.is_empty() {
        return Ok(Vec::new());
    }
    let tenants: Vec<Uuid> = tenants.into_iter().collect();
    let mut sql = Sql::new(
        "SELECT id, tenant_id, events FROM webhook WHERE status = 'enabled' AND tenant_id",
    );
    sql.one_of(&tenants).push(" ORDER BY id");
    Ok(EndpointFilter::find_by_statement(sql.on(tx))
        .all(tx)
        .await?)
}

fn wanting(
    endpoints: &[EndpointFilter],
    tenant: Uuid,
    kind: EventType,
) -> impl Iterator<Item = Uuid> + '_ {
    endpoints
        .iter()
        .filter(move |one| one.tenant_id == tenant)
        // An event filter that a newer version has written must not prevent the record of a message.
        .filter(move |one| EventFilter::parse(&one.events).is_some_and(|filter| filter.wants(kind)))
        .map(|one| one.id)
}

async fn insert(
    tx: &impl ConnectionTrait,
    due: Vec<Due>,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    const LARGEST: usize = 512;
    let now = millis(now);
    for piece in pieces(due, LARGEST) {
        let mut sql = Sql::new(
            "INSERT INTO webhook_delivery (webhook_id, event_id, tenant_id, kind, message_id, facts, status, attempt_count, \
             due_at, retry_from, created_at) ",
        );
        sql.rows(piece.into_iter().map(|row| -> [SqlValue; 11] {
            [
                row.webhook.into(),
                row.event.into(),
                row.tenant.into(),
                row.kind.as_str().into(),
                row.message.into(),
                row.facts.into(),
                "pending".into(),
                0i64.into(),
                now.into(),
                now.into(),
                now.into(),
            ]
        }));
        sql.push(" ON CONFLICT (webhook_id, event_id) DO NOTHING");
        tx.execute_raw(sql.on(tx)).await?;
    }
    Ok(())
}
