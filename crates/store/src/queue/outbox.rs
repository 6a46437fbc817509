//! The outbox: what is on its way to webhook endpoints, claimed, tried and recorded in batches.
//!
//! A delivery that is claimed stays `pending` and is due again when its lease ends, so that one whose worker died comes
//! back by itself: an endpoint is told at least once, and perhaps twice. Claims go round the endpoints that have
//! something pending; at most a few of each are under way, over all replicas.
//!
//! Events of one message go out in order: one that is due while an earlier one is still pending is put behind it.
//!
//! **Locks.** Endpoints in the order of their ids, then deliveries.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use domain::{
    id::{EventId, MessageId, TenantId, WebhookId},
    webhook::{EventType, GIVE_UP},
};
use sea_orm::{ConnectionTrait, DbBackend, FromQueryResult};
use uuid::Uuid;

use super::{
    sql::Sql,
    sweep::{BATCH, Swept},
    tell::{MessageFacts, message_id},
};
use crate::{PlatformStore, StoreError, error::unknown, messages::json, millis, time};

/// How many endpoints one claim looks at.
const VISITS: i64 = 256;
/// How many it serves.
const SERVED: usize = 16;
/// How long one that stands behind another waits before it is looked at again, at least.
const BEHIND: i64 = 1_000;

/// What an announcer asks for.
#[derive(Clone, Copy, Debug)]
pub struct OutboxRequest {
    /// How many deliveries it can try now.
    pub slots: usize,
    /// How many to one endpoint may be under way.
    pub each: usize,
    /// After which endpoint to go on, from the claim before; nil at first.
    pub cursor: Uuid,
    /// A random number that names this claim.
    pub lease: i64,
    /// Until when the deliveries are the announcer's.
    pub lease_until: DateTime<Utc>,
}

/// What an announcer gets.
#[derive(Clone, Debug, Default)]
pub struct OutboxClaim {
    /// What to try now.
    pub due: Vec<DueDelivery>,
    /// After which endpoint to go on; nil: from the start.
    pub cursor: Uuid,
    /// Whether there may be more at once.
    pub more: bool,
}

/// One event on its way to one endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct DueDelivery {
    /// Whose it is.
    pub tenant: TenantId,
    /// To which endpoint.
    pub webhook: WebhookId,
    /// Where that is.
    pub url: String,
    /// The secrets that sign it, sealed, the newest first.
    pub secrets_sealed: Vec<Vec<u8>>,
    /// The event's id.
    pub event: EventId,
    /// What happened.
    pub kind: EventType,
    /// The message that it happened to, if any.
    pub message: Option<MessageId>,
    /// What was so then.
    pub facts: Facts,
    /// Which try this is, 1 for the first.
    pub attempt: u32,
    /// From when its tries count.
    pub retry_from: DateTime<Utc>,
    /// When it happened.
    pub created_at: DateTime<Utc>,
    /// The claim it belongs to.
    pub lease: i64,
}

/// What an event says.
#[derive(Clone, Debug, PartialEq)]
pub enum Facts {
    /// What was so with its message.
    Message(MessageFacts),
    /// The `data` of its payload.
    Data(serde_json::Value),
}

/// What a try came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryOutcome {
    /// To which endpoint.
    pub webhook: WebhookId,
    /// Which event.
    pub event: EventId,
    /// The claim it was tried under.
    pub lease: i64,
    /// What becomes of it.
    pub next: DeliveryNext,
    /// The status that the endpoint answered, if it did.
    pub response_status: Option<u16>,
    /// The beginning of what it answered.
    pub response_excerpt: Option<String>,
    /// What went wrong.
    pub error: Option<String>,
}

/// What becomes of a delivery after a try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeliveryNext {
    /// The endpoint has it.
    Delivered,
    /// It is tried again.
    Later(DateTime<Utc>),
    /// It is tried no more.
    Failed,
    /// The endpoint does not want to be told of anything any more: it is disabled.
    Gone,
}

/// An endpoint that the gateway has just disabled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DisabledWebhook {
    /// Whose it is.
    pub tenant: TenantId,
    /// Which.
    pub webhook: WebhookId,
    /// Why.
    pub reason: String,
}

#[derive(FromQueryResult)]
struct Visit {
    id: Uuid,
    /// None: it was removed.
    status: Option<String>,
    due: bool,
}

#[derive(FromQueryResult)]
struct EndpointRow {
    id: Uuid,
    url: String,
    secret_sealed: Vec<u8>,
    previous_secret_sealed: Option<Vec<u8>>,
    previous_secret_until: Option<i64>,
}

impl EndpointRow {
    fn secrets(&self, now: DateTime<Utc>) -> Vec<Vec<u8>> {
        let previous = self.previous_secret_sealed.iter().filter(|_| {
            self.previous_secret_until
                .is_some_and(|until| until > millis(now))
        });
        std::iter::once(&self.secret_sealed)
            .chain(previous)
            .cloned()
            .collect()
    }
}

#[derive(FromQueryResult)]
struct CandidateRow {
    webhook_id: Uuid,
    event_id: Uuid,
    /// When the last of those before it is due.
    behind: Option<i64>,
}

#[derive(FromQueryResult)]
struct DueRow {
    webhook_id: Uuid,
    event_id: Uuid,
    tenant_id: Uuid,
    kind: String,
    message_id: Option<Uuid>,
    facts: String,
    attempt_count: i64,
    retry_from: i64,
    created_at: i64,
}

#[derive(FromQueryResult)]
struct FailingRow {
    id: Uuid,
    tenant_id: Uuid,
    status: String,
    failing_since: Option<i64>,
    failures: i64,
}

impl PlatformStore {
    /// Claims deliveries that are due: fair over endpoints, the oldest of each first, those of one message in order.
    pub async fn claim_deliveries(
        &self,
        request: &OutboxRequest,
        now: DateTime<Utc>,
    ) -> Result<OutboxClaim, StoreError> {
        let (open, closed, cursor) = self.visit_endpoints(request.cursor, now).await?;
        for (endpoint, is_gone) in &closed {
            self.drop_pending(*endpoint, *is_gone, now).await?;
        }
        if open.is_empty() {
            return Ok(OutboxClaim {
                cursor,
                more: !closed.is_empty(),
                ..OutboxClaim::default()
            });
        }
        let tx = self.store.begin().await?;
        let endpoints = lock_endpoints(&tx, &open).await?;
        let candidates = candidates(&tx, &endpoints, request, now).await?;
        let (mut fly, mut behind) = (Vec::new(), Vec::new());
        for candidate in candidates {
            let key = (candidate.webhook_id, candidate.event_id);
            match candidate.behind {
                Some(due_at) => behind.push((key, due_at.max(millis(now)) + BEHIND)),
                None if fly.len() < request.slots => fly.push(key),
                None => {}
            }
        }
        let moved = !fly.is_empty() || !behind.is_empty();
        put_behind(&tx, behind).await?;
        let rows = take(&tx, fly, request, now).await?;
        tx.commit().await?;
        let due = rows
            .into_iter()
            .filter_map(|row| {
                let endpoint = endpoints.iter().find(|one| one.id == row.webhook_id)?;
                let event = row.event_id;
                // It comes back when its lease ends, perhaps to a newer replica.
                let read = due_delivery(row, endpoint, request.lease, now);
                read.inspect_err(
                    |error| tracing::error!(%event, %error, "a webhook delivery cannot be read"),
                )
                .ok()
            })
            .collect();
        Ok(OutboxClaim {
            due,
            cursor,
            more: moved || !closed.is_empty(),
        })
    }

    /// Writes what tries came to. Returns the endpoints that are disabled by it, each with an audit line.
    pub async fn record_deliveries(
        &self,
        outcomes: &[DeliveryOutcome],
        now: DateTime<Utc>,
    ) -> Result<Vec<DisabledWebhook>, StoreError> {
        if outcomes.is_empty() {
            return Ok(Vec::new());
        }
        let tx = self.store.begin().await?;
        let ids: std::collections::BTreeSet<Uuid> =
            outcomes.iter().map(|one| one.webhook.uuid()).collect();
        let ids: Vec<Uuid> = ids.into_iter().collect();
        let mut sql = Sql::new(
            "SELECT id, tenant_id, status, failing_since, failures FROM webhook WHERE id IN ",
        );
        sql.list(&ids).push(" ORDER BY id");
        if tx.get_database_backend() == DbBackend::Postgres {
            sql.push(" FOR UPDATE");
        }
        let endpoints = FailingRow::find_by_statement(sql.on(&tx)).all(&tx).await?;
        write_outcomes(&tx, outcomes, now).await?;
        release_next(&tx, outcomes, now).await?;
        let mut disabled = Vec::new();
        for endpoint in endpoints {
            disabled.extend(note_health(&tx, endpoint, outcomes, now).await?);
        }
        tx.commit().await?;
        Ok(disabled)
    }

    /// Forgets deliveries, whatever became of them, whose event is older than `before`.
    pub async fn forget_deliveries(&self, before: DateTime<Utc>) -> Result<Swept, StoreError> {
        let mut sql = Sql::new(
            "DELETE FROM webhook_delivery WHERE (webhook_id, event_id) IN (SELECT webhook_id, event_id FROM webhook_delivery \
             WHERE created_at < ",
        );
        sql.bind(millis(before))
            .push(" AND status <> 'pending' ORDER BY created_at LIMIT ")
            .bind(BATCH)
            .push(")");
        let connection = &self.store.write;
        let result = connection.execute_raw(sql.on(connection)).await?;
        Ok(Swept::of(result.rows_affected()))
    }

    /// Goes round the endpoints that have something pending, by hops over the index. Those that are served, those that
    /// are not told any more (and whether they were removed), and where to go on.
    async fn visit_endpoints(
        &self,
        cursor: Uuid,
        now: DateTime<Utc>,
    ) -> Result<(Vec<Uuid>, Vec<(Uuid, bool)>, Uuid), StoreError> {
        let next = |after: &str| {
            format!(
                "(SELECT d.webhook_id FROM webhook_delivery d WHERE d.status = 'pending' AND d.webhook_id > {after} \
                 ORDER BY d.webhook_id LIMIT 1)"
            )
        };
        let mut sql = Sql::new("WITH RECURSIVE active(id, n) AS (SELECT ");
        sql.push(&next("$1"))
            .push(", 1 UNION ALL SELECT ")
            .push(&next("active.id"));
        sql.push(", n + 1 FROM active WHERE active.id IS NOT NULL AND n < $2) ");
        sql.push("SELECT active.id, webhook.status, EXISTS (SELECT 1 FROM webhook_delivery d WHERE d.status = 'pending' AND ");
        sql.push("d.webhook_id = active.id AND d.due_at <= $3) AS due FROM active LEFT JOIN webhook ON webhook.id = active.id ");
        sql.push("WHERE active.id IS NOT NULL ORDER BY active.id");
        let statement = sql
            .with_values([cursor.into(), VISITS.into(), millis(now).into()])
            .on(&self.store.read);
        let visits = Visit::find_by_statement(statement)
            .all(&self.store.read)
            .await?;
        let seen = i64::try_from(visits.len()).unwrap_or(VISITS);
        let last = visits.last().map(|visit| visit.id).unwrap_or_default();
        let (mut open, mut closed) = (Vec::new(), Vec::new());
        for visit in visits {
            match visit.status.as_deref() {
                None => closed.push((visit.id, true)),
                Some(crate::webhooks::ENABLED) if visit.due => open.push(visit.id),
                Some(crate::webhooks::ENABLED) => {}
                Some(_) => closed.push((visit.id, false)),
            }
        }
        let cursor = if open.len() > SERVED {
            open.truncate(SERVED);
            open[SERVED - 1]
        } else if seen >= VISITS {
            last
        } else {
            Uuid::nil()
        };
        Ok((open, closed, cursor))
    }

    /// Ends what is on its way to an endpoint that is not told any more, a batch at a time; forgets it where the
    /// endpoint was removed.
    async fn drop_pending(
        &self,
        endpoint: Uuid,
        is_gone: bool,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let mut sql = if is_gone {
            Sql::new("DELETE FROM webhook_delivery")
        } else {
            let mut sql =
                Sql::new("UPDATE webhook_delivery SET status = 'failed', lease = NULL, error = ");
            sql.bind("the endpoint was disabled before it was told: enable it, then redeliver")
                .push(", ended_at = ")
                .bind(millis(now));
            sql
        };
        sql.push(" WHERE status = 'pending' AND webhook_id = ")
            .bind(endpoint)
            .push(" AND event_id IN (SELECT event_id FROM webhook_delivery WHERE status = 'pending' AND webhook_id = ")
            .bind(endpoint)
            .push(" LIMIT ")
            .bind(BATCH)
            .push(")");
        let connection = &self.store.write;
        connection.execute_raw(sql.on(connection)).await?;
        Ok(())
    }
}

/// While an announcer holds an endpoint, no other claims from it.
async fn lock_endpoints(
    tx: &impl ConnectionTrait,
    ids: &[Uuid],
) -> Result<Vec<EndpointRow>, StoreError> {
    let mut sql = Sql::new(
        "SELECT id, url, secret_sealed, previous_secret_sealed, previous_secret_until FROM webhook WHERE status = 'enabled' AND id IN ",
    );
    sql.list(ids).push(" ORDER BY id");
    if tx.get_database_backend() == DbBackend::Postgres {
        sql.push(" FOR UPDATE SKIP LOCKED");
    }
    Ok(EndpointRow::find_by_statement(sql.on(tx)).all(tx).await?)
}

/// The first deliveries of each endpoint that are due, as many as it may have more under way.
async fn candidates(
    tx: &impl ConnectionTrait,
    endpoints: &[EndpointRow],
    request: &OutboxRequest,
    now: DateTime<Utc>,
) -> Result<Vec<CandidateRow>, StoreError> {
    if endpoints.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<Uuid> = endpoints.iter().map(|one| one.id).collect();
    let mut sql = Sql::new(
        "SELECT webhook_id, COUNT(*) AS flying FROM webhook_delivery WHERE lease IS NOT NULL AND status = 'pending' AND due_at > ",
    );
    sql.bind(millis(now))
        .push(" AND webhook_id IN ")
        .list(&ids)
        .push(" GROUP BY webhook_id");
    let mut flying: BTreeMap<Uuid, i64> = BTreeMap::new();
    for row in tx.query_all_raw(sql.on(tx)).await? {
        flying.insert(row.try_get("", "webhook_id")?, row.try_get("", "flying")?);
    }
    let fair = request.slots.div_ceil(endpoints.len()).min(request.each);
    let fair = i64::try_from(fair).unwrap_or(i64::MAX);
    let each = i64::try_from(request.each).unwrap_or(i64::MAX);
    let mut sql = Sql::default();
    let mut count = 0;
    for id in ids {
        let free = each - flying.get(&id).copied().unwrap_or(0);
        if free <= 0 {
            continue;
        }
        if count > 0 {
            sql.push(" UNION ALL ");
        }
        sql.push("SELECT * FROM (SELECT d.webhook_id, d.event_id, (SELECT MAX(e.due_at) FROM webhook_delivery e WHERE e.status = 'pending' ");
        sql.push("AND e.webhook_id = d.webhook_id AND e.message_id = d.message_id AND e.event_id < d.event_id) AS behind ");
        sql.push("FROM webhook_delivery d WHERE d.status = 'pending' AND d.webhook_id = ")
            .bind(id)
            .push(" AND d.due_at <= ")
            .bind(millis(now));
        sql.push(" ORDER BY d.due_at, d.event_id LIMIT ")
            .bind(free.min(fair));
        sql.push(&format!(") AS endpoint{count}"));
        count += 1;
    }
    if count == 0 {
        return Ok(Vec::new());
    }
    Ok(CandidateRow::find_by_statement(sql.on(tx)).all(tx).await?)
}

async fn put_behind(
    tx: &impl ConnectionTrait,
    behind: Vec<((Uuid, Uuid), i64)>,
) -> Result<(), StoreError> {
    if behind.is_empty() {
        return Ok(());
    }
    let mut sql = Sql::new("WITH v(w, e, next_due) AS (VALUES ");
    sql.rows(
        behind
            .into_iter()
            .map(|((webhook, event), due_at)| [webhook.into(), event.into(), due_at.into()]),
    );
    sql.push(") UPDATE webhook_delivery SET due_at = v.next_due FROM v WHERE status = 'pending' AND webhook_id = v.w AND event_id = v.e");
    tx.execute_raw(sql.on(tx)).await?;
    Ok(())
}

async fn take(
    tx: &impl ConnectionTrait,
    fly: Vec<(Uuid, Uuid)>,
    request: &OutboxRequest,
    now: DateTime<Utc>,
) -> Result<Vec<DueRow>, StoreError> {
    if fly.is_empty() {
        return Ok(Vec::new());
    }
    let mut sql = Sql::new("WITH v(w, e) AS (VALUES ");
    sql.rows(
        fly.into_iter()
            .map(|(webhook, event)| [webhook.into(), event.into()]),
    );
    sql.push(") UPDATE webhook_delivery SET attempt_count = attempt_count + 1, lease = ")
        .bind(request.lease)
        .push(", due_at = ")
        .bind(millis(request.lease_until))
        .push(", attempted_at = ")
        .bind(millis(now));
    sql.push(
        " FROM v WHERE status = 'pending' AND webhook_id = v.w AND event_id = v.e AND due_at <= ",
    )
    .bind(millis(now));
    sql.push(" RETURNING webhook_id, event_id, tenant_id, kind, message_id, facts, attempt_count, retry_from, created_at");
    Ok(DueRow::find_by_statement(sql.on(tx)).all(tx).await?)
}

fn due_delivery(
    row: DueRow,
    endpoint: &EndpointRow,
    lease: i64,
    now: DateTime<Utc>,
) -> Result<DueDelivery, StoreError> {
    let facts = if row.message_id.is_some() {
        Facts::Message(json(&row.facts, "webhook_delivery.facts")?)
    } else {
        Facts::Data(json(&row.facts, "webhook_delivery.facts")?)
    };
    Ok(DueDelivery {
        tenant: row.tenant_id.into(),
        webhook: row.webhook_id.into(),
        url: endpoint.url.clone(),
        secrets_sealed: endpoint.secrets(now),
        event: row.event_id.into(),
        kind: EventType::parse(&row.kind)
            .ok_or_else(|| unknown("webhook_delivery.kind", &row.kind))?,
        message: message_id(row.message_id),
        facts,
        attempt: u32::try_from(row.attempt_count).unwrap_or(u32::MAX),
        retry_from: time(row.retry_from),
        created_at: time(row.created_at),
        lease,
    })
}

async fn write_outcomes(
    tx: &impl ConnectionTrait,
    outcomes: &[DeliveryOutcome],
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let mut sql = Sql::new(
        "WITH v(w, e, claim, new_status, next_due, answered, excerpt, why, over) AS (VALUES ",
    );
    sql.rows(outcomes.iter().map(|one| -> [sea_orm::Value; 9] {
        let (status, due_at) = match one.next {
            DeliveryNext::Delivered => ("delivered", None),
            DeliveryNext::Later(due_at) => ("pending", Some(millis(due_at))),
            DeliveryNext::Failed | DeliveryNext::Gone => ("failed", None),
        };
        [
            one.webhook.uuid().into(),
            one.event.uuid().into(),
            one.lease.into(),
            status.into(),
            due_at.into(),
            one.response_status.map(i64::from).into(),
            one.response_excerpt.clone().into(),
            one.error.clone().into(),
            due_at.is_none().then(|| millis(now)).into(),
        ]
    }));
    sql.push(
        ") UPDATE webhook_delivery SET status = v.new_status, due_at = COALESCE(v.next_due, due_at), lease = NULL, \
         response_status = v.answered, response_excerpt = v.excerpt, error = v.why, ended_at = v.over \
         FROM v WHERE webhook_id = v.w AND event_id = v.e AND lease = v.claim",
    );
    tx.execute_raw(sql.on(tx)).await?;
    Ok(())
}

/// Makes due what stood behind deliveries that have ended.
async fn release_next(
    tx: &impl ConnectionTrait,
    outcomes: &[DeliveryOutcome],
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let ended: Vec<&DeliveryOutcome> = outcomes
        .iter()
        .filter(|one| !matches!(one.next, DeliveryNext::Later(_)))
        .collect();
    if ended.is_empty() {
        return Ok(());
    }
    let mut sql = Sql::new("WITH v(w, e) AS (VALUES ");
    sql.rows(
        ended
            .iter()
            .map(|one| [one.webhook.uuid().into(), one.event.uuid().into()]),
    );
    sql.push(
        "), told AS (SELECT d.webhook_id AS w, d.message_id AS m FROM webhook_delivery d JOIN v ON d.webhook_id = v.w AND d.event_id = v.e \
         WHERE d.message_id IS NOT NULL) UPDATE webhook_delivery SET due_at = ",
    );
    sql.bind(millis(now))
        .push(
            " FROM told WHERE status = 'pending' AND webhook_id = told.w AND message_id = told.m \
             AND lease IS NULL AND attempt_count = 0 AND due_at > ",
        )
        .bind(millis(now));
    tx.execute_raw(sql.on(tx)).await?;
    Ok(())
}

/// Counts an endpoint's failures in a row, and disables it where it has failed for too long or asks for it.
async fn note_health(
    tx: &impl ConnectionTrait,
    endpoint: FailingRow,
    outcomes: &[DeliveryOutcome],
    now: DateTime<Utc>,
) -> Result<Option<DisabledWebhook>, StoreError> {
    let (mut since, mut failures) = (endpoint.failing_since.map(time), endpoint.failures);
    let mut reason = None;
    for outcome in outcomes
        .iter()
        .filter(|one| one.webhook.uuid() == endpoint.id)
    {
        match outcome.next {
            DeliveryNext::Delivered => (since, failures) = (None, 0),
            DeliveryNext::Later(_) | DeliveryNext::Failed | DeliveryNext::Gone => {
                failures += 1;
                let since = *since.get_or_insert(now);
                if outcome.next == DeliveryNext::Gone {
                    reason = Some("the endpoint answered 410 Gone".to_owned());
                } else if (now - since).to_std().is_ok_and(|time| time >= GIVE_UP) {
                    reason = Some(format!(
                        "every try has failed for {} days, the last with: {}",
                        GIVE_UP.as_secs() / 86_400,
                        outcome.error.as_deref().unwrap_or("no word")
                    ));
                }
            }
        }
    }
    let disable = reason.filter(|_| endpoint.status == crate::webhooks::ENABLED);
    if since == endpoint.failing_since.map(time)
        && failures == endpoint.failures
        && disable.is_none()
    {
        return Ok(None);
    }
    let mut sql = Sql::new("UPDATE webhook SET failing_since = ");
    sql.bind(since.map(millis))
        .push(", failures = ")
        .bind(failures);
    if let Some(reason) = &disable {
        sql.push(", status = ")
            .bind(crate::webhooks::DISABLED)
            .push(", updated_at = ")
            .bind(millis(now))
            .push(", disabled_reason = ")
            .bind(reason.as_str());
    }
    sql.push(" WHERE id = ").bind(endpoint.id);
    tx.execute_raw(sql.on(tx)).await?;
    let Some(reason) = disable else {
        return Ok(None);
    };
    let disabled = DisabledWebhook {
        tenant: endpoint.tenant_id.into(),
        webhook: endpoint.id.into(),
        reason,
    };
    crate::audit::append_disabled(tx, &disabled, now).await?;
    Ok(Some(disabled))
}
