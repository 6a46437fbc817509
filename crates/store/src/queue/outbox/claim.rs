//! Chooses the deliveries to attempt next.
//!
//! A claim visits the tenants with pending deliveries in rotation, by hops over an index that holds pending deliveries
//! only, and examines the endpoints of each tenant. [`share`](super::share) decides how many slots each tenant gets.

use std::collections::{BTreeMap, VecDeque};

use chrono::{DateTime, Utc};
use domain::webhook::EventType;
use sea_orm::{ConnectionTrait, DbBackend, FromQueryResult};
use uuid::Uuid;

use super::{DueDelivery, EventContent, OutboxClaim, OutboxRequest, share::Queue};
use crate::{
    PlatformStore, StoreError,
    error::unknown,
    messages::json,
    queue::{sql::Sql, sweep::BATCH},
    timestamp::{millis, time},
    webhooks::ENABLED,
};

/// The most tenants that one claim visits.
const VISITS: i64 = 128;
/// The most endpoints of one tenant that a claim examines: more than a tenant may have, plus some removed endpoints.
const ENDPOINTS: i64 = 64;
/// The number of endpoints after which a claim takes no further tenant. The last tenant is still served completely.
const SERVED: usize = 64;
/// The most posts in flight to an endpoint with a failed last attempt.
const FAILING: i64 = 2;
/// The minimum wait of a delivery that is behind another one before a claim examines that delivery again, in
/// milliseconds.
const BEHIND: i64 = 1_000;

#[derive(FromQueryResult)]
struct TenantVisit {
    tenant_id: Uuid,
    id: Uuid,
    /// `None` if the endpoint is removed.
    status: Option<String>,
    due: bool,
}

/// The result of a visit to the tenants.
struct VisitedTenants {
    /// The endpoints to serve.
    open: Vec<Uuid>,
    /// The endpoints that get no more events.
    closed: Vec<Closed>,
    /// The tenant after which the next claim continues.
    cursor: Uuid,
}

struct Closed {
    tenant: Uuid,
    endpoint: Uuid,
    /// True if the endpoint is removed, false if the endpoint is only disabled.
    is_gone: bool,
}

#[derive(FromQueryResult)]
struct EndpointRow {
    id: Uuid,
    tenant_id: Uuid,
    failures: i64,
    url: String,
    secret_sealed: Vec<u8>,
    previous_secret_sealed: Option<Vec<u8>>,
    previous_secret_until: Option<i64>,
}

impl EndpointRow {
    /// Whether the last attempt at this endpoint failed.
    fn is_failing(&self) -> bool {
        self.failures > 0
    }

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
    /// The due time of the last earlier delivery of the same message. `None` if there is no earlier one.
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

impl PlatformStore {
    /// Claims due deliveries: the tenants in rotation, the endpoints of each tenant in rotation, the oldest delivery of
    /// each endpoint first, the deliveries of one message in order.
    pub async fn claim_deliveries(
        &self,
        request: &OutboxRequest,
        now: DateTime<Utc>,
    ) -> Result<OutboxClaim, StoreError> {
        let VisitedTenants {
            open,
            closed,
            mut cursor,
        } = self.visit_tenants(request, now).await?;
        for one in &closed {
            self.drop_pending(one, now).await?;
        }
        if open.is_empty() {
            return Ok(OutboxClaim {
                cursor,
                more: !closed.is_empty(),
                ..OutboxClaim::default()
            });
        }
        let tx = self.store.begin_batch().await?;
        let endpoints = lock_endpoints(&tx, &open).await?;
        let (mut due, mut behind) = (BTreeMap::<Uuid, VecDeque<_>>::new(), Vec::new());
        for candidate in candidates(&tx, &endpoints, request, now).await? {
            let key = (candidate.webhook_id, candidate.event_id);
            match candidate.behind {
                Some(due_at) => behind.push((key, due_at.max(millis(now)) + BEHIND)),
                None => due.entry(candidate.webhook_id).or_default().push_back(key),
            }
        }
        let queues = endpoints.iter().filter_map(|endpoint| {
            Some(Queue {
                tenant: endpoint.tenant_id,
                failing: endpoint.is_failing(),
                due: due.remove(&endpoint.id)?,
            })
        });
        let (fly, last) = request.slots.clone().share_out(queues.collect());
        // The slots were too few: the next claim starts with the tenants that got no slot.
        cursor = last.unwrap_or(cursor);
        let moved = !fly.is_empty() || !behind.is_empty();
        put_behind(&tx, behind).await?;
        let rows = take(&tx, fly, request, now).await?;
        tx.commit().await?;
        let due = rows
            .into_iter()
            .filter_map(|row| {
                let endpoint = endpoints.iter().find(|one| one.id == row.webhook_id)?;
                let event = row.event_id;
                // The delivery is due again when the lease ends, and perhaps a newer replica claims it then.
                let read = due_delivery(&row, endpoint, request.lease, now);
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

    /// Visits the tenants that have pending deliveries and may have more in flight, and finds the endpoints with due
    /// deliveries.
    async fn visit_tenants(
        &self,
        request: &OutboxRequest,
        now: DateTime<Utc>,
    ) -> Result<VisitedTenants, StoreError> {
        let pending = "FROM webhook_delivery d WHERE d.status = 'pending' AND d.tenant_id ";
        let mut sql =
            Sql::new("WITH RECURSIVE active(tenant_id, n) AS (SELECT (SELECT d.tenant_id ");
        sql.push(pending).push("> ").bind(request.cursor);
        sql.push(" ORDER BY d.tenant_id LIMIT 1), 1 UNION ALL SELECT (SELECT d.tenant_id ")
            .push(pending)
            .push("> active.tenant_id ORDER BY d.tenant_id LIMIT 1), n + 1 FROM active WHERE active.tenant_id IS NOT NULL AND n < ")
            .bind(VISITS)
            .push("), endpoint(tenant_id, id, n) AS (SELECT active.tenant_id, (SELECT d.webhook_id ")
            .push(pending)
            .push("= active.tenant_id ORDER BY d.webhook_id LIMIT 1), 1 FROM active WHERE active.tenant_id IS NOT NULL ")
            .push("UNION ALL SELECT endpoint.tenant_id, (SELECT d.webhook_id ")
            .push(pending)
            .push("= endpoint.tenant_id AND d.webhook_id > endpoint.id ORDER BY d.webhook_id LIMIT 1), n + 1 FROM endpoint ")
            .push("WHERE endpoint.id IS NOT NULL AND n < ")
            .bind(ENDPOINTS)
            .push(") SELECT endpoint.tenant_id, endpoint.id, webhook.status, (SELECT d.due_at ")
            .push(pending)
            .push("= endpoint.tenant_id AND d.webhook_id = endpoint.id AND d.due_at <= ")
            .bind(millis(now))
            .push(" ORDER BY d.due_at LIMIT 1) IS NOT NULL AS due FROM endpoint LEFT JOIN webhook ON webhook.id = endpoint.id ")
            .push("WHERE endpoint.id IS NOT NULL ORDER BY endpoint.tenant_id, endpoint.id");
        let statement = sql.on(self.store.read());
        let visits = TenantVisit::find_by_statement(statement)
            .all(self.store.read())
            .await?;
        Ok(VisitedTenants::of(visits, request))
    }

    /// Ends one batch of pending deliveries to a disabled endpoint, or deletes the batch if the endpoint is removed.
    async fn drop_pending(&self, closed: &Closed, now: DateTime<Utc>) -> Result<(), StoreError> {
        let Closed {
            tenant,
            endpoint,
            is_gone,
        } = *closed;
        let mut sql = if is_gone {
            Sql::new("DELETE FROM webhook_delivery")
        } else {
            let mut sql =
                Sql::new("UPDATE webhook_delivery SET status = 'failed', lease = NULL, error = ");
            sql.bind("the endpoint was disabled before the delivery was sent: enable the endpoint, then redeliver the event")
                .push(", ended_at = ")
                .bind(millis(now));
            sql
        };
        sql.push(" WHERE status = 'pending' AND webhook_id = ")
            .bind(endpoint)
            .push(" AND event_id IN (SELECT event_id FROM webhook_delivery WHERE status = 'pending' AND tenant_id = ")
            .bind(tenant)
            .push(" AND webhook_id = ")
            .bind(endpoint)
            .push(" LIMIT ")
            .bind(BATCH)
            .push(")");
        let connection = self.store.write();
        connection.execute_raw(sql.on(connection)).await?;
        Ok(())
    }
}

impl VisitedTenants {
    fn of(visits: Vec<TenantVisit>, request: &OutboxRequest) -> Self {
        let (mut open, mut closed) = (Vec::new(), Vec::new());
        let (mut tenants, mut last) = (0, Uuid::nil());
        for visit in visits {
            if visit.tenant_id != last {
                if open.len() >= SERVED {
                    return Self {
                        open,
                        closed,
                        cursor: last,
                    };
                }
                (tenants, last) = (tenants + 1, visit.tenant_id);
            }
            let is_gone = match visit.status.as_deref() {
                Some(ENABLED) => {
                    if visit.due && request.slots.has_room(visit.tenant_id) {
                        open.push(visit.id);
                    }
                    continue;
                }
                status => status.is_none(),
            };
            closed.push(Closed {
                tenant: visit.tenant_id,
                endpoint: visit.id,
                is_gone,
            });
        }
        Self {
            open,
            closed,
            cursor: if tenants >= VISITS { last } else { Uuid::nil() },
        }
    }
}

/// Locks the endpoints. While an announcer holds the lock of an endpoint, no other announcer claims from that endpoint.
async fn lock_endpoints(
    tx: &impl ConnectionTrait,
    ids: &[Uuid],
) -> Result<Vec<EndpointRow>, StoreError> {
    let mut sql = Sql::new(
        "SELECT id, tenant_id, failures, url, secret_sealed, previous_secret_sealed, previous_secret_until FROM webhook WHERE status = 'enabled' AND id",
    );
    sql.one_of(ids).push(" ORDER BY id");
    if tx.get_database_backend() == DbBackend::Postgres {
        sql.push(" FOR UPDATE SKIP LOCKED");
    }
    Ok(EndpointRow::find_by_statement(sql.on(tx)).all(tx).await?)
}

/// The first due deliveries of each endpoint, as many as may still be put in flight to that endpoint.
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
    let slots = i64::try_from(request.slots.free).unwrap_or(i64::MAX);
    let mut sql = Sql::new(
        "SELECT webhook_id, COUNT(*) AS flying FROM webhook_delivery WHERE lease IS NOT NULL AND status = 'pending' AND due_at > ",
    );
    sql.bind(millis(now))
        .push(" AND webhook_id")
        .one_of(&ids)
        .push(" GROUP BY webhook_id");
    let mut flying: BTreeMap<Uuid, i64> = BTreeMap::new();
    for row in tx.query_all_raw(sql.on(tx)).await? {
        flying.insert(row.try_get("", "webhook_id")?, row.try_get("", "flying")?);
    }
    let each = i64::try_from(request.each).unwrap_or(i64::MAX);
    let mut sql = Sql::default();
    let mut count = 0;
    for endpoint in endpoints {
        let each = if endpoint.is_failing() {
            each.min(FAILING)
        } else {
            each
        };
        let free = each - flying.get(&endpoint.id).copied().unwrap_or(0);
        if free <= 0 {
            continue;
        }
        if count > 0 {
            sql.push(" UNION ALL ");
        }
        sql.push("SELECT * FROM (SELECT d.webhook_id, d.event_id, (SELECT MAX(e.due_at) FROM webhook_delivery e WHERE e.status = 'pending' ");
        sql.push("AND e.webhook_id = d.webhook_id AND e.message_id = d.message_id AND e.event_id < d.event_id) AS behind ");
        sql.push("FROM webhook_delivery d WHERE d.status = 'pending' AND d.tenant_id = ")
            .bind(endpoint.tenant_id)
            .push(" AND d.webhook_id = ")
            .bind(endpoint.id)
            .push(" AND d.due_at <= ")
            .bind(millis(now));
        sql.push(" ORDER BY d.due_at, d.event_id LIMIT ")
            .bind(free.min(slots));
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
    let mut sql = Sql::new("WITH v(w, e, next_due) AS (");
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
    let mut sql = Sql::new("WITH v(w, e) AS (");
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
    row: &DueRow,
    endpoint: &EndpointRow,
    lease: i64,
    now: DateTime<Utc>,
) -> Result<DueDelivery, StoreError> {
    let facts = if row.message_id.is_some() {
        EventContent::Message(json(&row.facts, "webhook_delivery.facts")?)
    } else {
        EventContent::Data(json(&row.facts, "webhook_delivery.facts")?)
    };
    Ok(DueDelivery {
        tenant: row.tenant_id.into(),
        webhook: row.webhook_id.into(),
        url: endpoint.url.clone(),
        secrets_sealed: endpoint.secrets(now),
        event: row.event_id.into(),
        kind: EventType::parse(&row.kind)
            .ok_or_else(|| unknown("webhook_delivery.kind", &row.kind))?,
        message: row.message_id.map(Into::into),
        facts,
        failing: endpoint.is_failing(),
        attempt: u32::try_from(row.attempt_count).unwrap_or(u32::MAX),
        retry_from: time(row.retry_from),
        created_at: time(row.created_at),
        lease,
    })
}
