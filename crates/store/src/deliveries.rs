//! Webhook deliveries as the owners of the endpoints see the deliveries, and redelivery.

use chrono::{DateTime, SecondsFormat, Utc};
use domain::{
    app::AppId,
    id::{self, EventId, MessageId, TenantId, WebhookId},
    quota,
    webhook::EventType,
};
use sea_orm::{
    ColumnTrait, ConnectionTrait, EntityTrait, FromQueryResult, QueryFilter, QueryOrder,
    QuerySelect, Statement,
};
use uuid::Uuid;

use crate::{
    AppEvent, Keep, Listing, NewAuditLine, Page, PlatformStore, StoreError, Swept, TenantStore,
    entity::webhook_delivery::{Column, Entity, Model},
    error::unknown,
    queue,
    timestamp::{millis, time},
};

/// The shares of an app's daily quota that cause a warning, in percent.
const WARNINGS: [i64; 2] = [80, 95];

/// How many deliveries one request repeats at most. SQLite writes this number quickly, so messages do not wait long.
const REDELIVERED_AT_ONCE: i64 = 10_000;

/// One event for one endpoint, with the state of the delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookDelivery {
    /// The endpoint.
    pub webhook: WebhookId,
    /// The event's id.
    pub event: EventId,
    /// The type of the event.
    pub kind: EventType,
    /// The message that the event is about, if any.
    pub message: Option<MessageId>,
    /// The status of the delivery.
    pub status: DeliveryStatus,
    /// The number of attempts so far.
    pub attempts: u32,
    /// When the next attempt is due, or `None` where the delivery has ended.
    pub next_attempt_at: Option<DateTime<Utc>>,
    /// The HTTP status of the endpoint's last response, if any.
    pub response_status: Option<u16>,
    /// The beginning of the last response.
    pub response_excerpt: Option<String>,
    /// The error of the last attempt.
    pub error: Option<String>,
    /// When the event happened.
    pub created_at: DateTime<Utc>,
    /// When the last attempt was made.
    pub attempted_at: Option<DateTime<Utc>>,
    /// When the delivery succeeded, or was given up.
    pub ended_at: Option<DateTime<Utc>>,
}

impl WebhookDelivery {
    /// The delivery that [`TenantStore::create_delivery`] creates.
    pub fn pending(webhook: WebhookId, event: &AppEvent, now: DateTime<Utc>) -> Self {
        let now = time(millis(now));
        Self {
            webhook,
            event: event.id,
            kind: event.kind,
            message: None,
            status: DeliveryStatus::Pending,
            attempts: 0,
            next_attempt_at: Some(now),
            response_status: None,
            response_excerpt: None,
            error: None,
            created_at: now,
            attempted_at: None,
            ended_at: None,
        }
    }

    /// This delivery after a call of [`TenantStore::redeliver`].
    #[must_use]
    pub fn again(self, now: DateTime<Utc>) -> Self {
        if self.status == DeliveryStatus::Pending {
            return self;
        }
        Self {
            status: DeliveryStatus::Pending,
            attempts: 0,
            next_attempt_at: Some(time(millis(now))),
            ended_at: None,
            ..self
        }
    }
}

/// The status of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryStatus {
    /// The gateway attempts the delivery until the endpoint accepts the event or the time for attempts is over.
    Pending,
    /// The endpoint has accepted the event.
    Delivered,
    /// The gateway has given the delivery up.
    Failed,
}

impl DeliveryStatus {
    /// The word in the API and the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
        }
    }

    /// The status named `text`.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Pending, Self::Delivered, Self::Failed]
            .into_iter()
            .find(|status| status.as_str() == text)
    }
}

impl TenantStore {
    /// The deliveries to the tenant's endpoint, newest first.
    pub async fn webhook_deliveries(
        &self,
        webhook: WebhookId,
        status: Option<DeliveryStatus>,
        page: &Page,
    ) -> Result<Listing<WebhookDelivery>, StoreError> {
        self.webhook(webhook).await?;
        let mut query = Entity::find()
            .filter(Column::WebhookId.eq(webhook.uuid()))
            .filter(Column::TenantId.eq(self.tenant.uuid()))
            .order_by_desc(Column::EventId)
            .limit(page.limit + 1);
        if let Some(status) = status {
            query = query.filter(Column::Status.eq(status.as_str()));
        }
        if let Some(after) = page.after {
            query = query.filter(Column::EventId.lt(after));
        }
        let rows = query.all(self.store.read()).await?;
        Listing::of(rows, page, |row| row.event_id).try_map(WebhookDelivery::try_from)
    }

    /// One delivery to the tenant's endpoint.
    pub async fn webhook_delivery(
        &self,
        webhook: WebhookId,
        event: EventId,
    ) -> Result<WebhookDelivery, StoreError> {
        let found = Entity::find_by_id((webhook.uuid(), event.uuid()))
            .filter(Column::TenantId.eq(self.tenant.uuid()))
            .one(self.store.write())
            .await?;
        found.ok_or(StoreError::NotFound("delivery"))?.try_into()
    }

    /// Repeats a delivery that has ended in any status, with the number of attempts reset. A pending delivery goes on
    /// unchanged, and the audit log gets no line.
    pub async fn redeliver(
        &self,
        webhook: WebhookId,
        event: EventId,
        now: DateTime<Utc>,
    ) -> Result<WebhookDelivery, StoreError> {
        let mut transaction = self.begin(now).await?;
        let sql = format!(
            "{AGAIN} WHERE webhook_id = $2 AND event_id = $3 AND tenant_id = $4 AND status <> 'pending'"
        );
        let values = [
            millis(now).into(),
            webhook.uuid().into(),
            event.uuid().into(),
            self.tenant.uuid().into(),
        ];
        let backend = transaction.get_database_backend();
        let again = Statement::from_sql_and_values(backend, sql, values);
        let moved = transaction.execute_raw(again).await?.rows_affected();
        let found = Entity::find_by_id((webhook.uuid(), event.uuid()))
            .filter(Column::TenantId.eq(self.tenant.uuid()))
            .one(&transaction)
            .await?;
        let row = found.ok_or(StoreError::NotFound("delivery"))?;
        if moved == 0 {
            transaction.drop_lines();
        }
        transaction.commit().await?;
        row.try_into()
    }

    /// Repeats the failed deliveries of events from `since` until `until`, the oldest first and at most 10,000. The
    /// transaction also stores the answer that `keep` builds. The audit line states the number of deliveries; without
    /// deliveries there is no line.
    pub async fn redeliver_failed(
        &self,
        webhook: WebhookId,
        since: DateTime<Utc>,
        until: DateTime<Utc>,
        keep: Keep<Swept>,
        now: DateTime<Utc>,
    ) -> Result<Swept, StoreError> {
        let mut transaction = self.begin(now).await?;
        let sql = format!(
            "{AGAIN} WHERE webhook_id = $2 AND status = 'failed' AND event_id IN (SELECT event_id FROM webhook_delivery \
             WHERE webhook_id = $2 AND tenant_id = $3 AND status = 'failed' AND event_id >= $4 AND event_id < $5 \
             ORDER BY event_id LIMIT $6)"
        );
        let values = [
            millis(now).into(),
            webhook.uuid().into(),
            self.tenant.uuid().into(),
            id::lower_bound(since).into(),
            id::lower_bound(until).into(),
            REDELIVERED_AT_ONCE.into(),
        ];
        let backend = transaction.get_database_backend();
        let again = Statement::from_sql_and_values(backend, sql, values);
        let moved = transaction.execute_raw(again).await?.rows_affected();
        if moved == 0 {
            transaction.drop_lines();
        } else {
            let time = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Millis, true);
            transaction.describe(&format!(
                "{moved} failed deliveries, from {} until {}",
                time(since),
                time(until)
            ));
        }
        let swept = Swept {
            moved,
            more: moved >= REDELIVERED_AT_ONCE.unsigned_abs(),
        };
        transaction.set_answer(keep.answer(&swept), now);
        transaction.commit().await?;
        Ok(swept)
    }

    /// Creates a delivery of an event to one endpoint of the tenant, also where the endpoint does not subscribe to such
    /// events.
    pub async fn create_delivery(
        &self,
        webhook: WebhookId,
        event: &AppEvent,
        now: DateTime<Utc>,
    ) -> Result<WebhookDelivery, StoreError> {
        let transaction = self.begin(now).await?;
        queue::events::tell_one(&transaction, self.tenant, webhook.uuid(), event, now).await?;
        transaction.commit().await?;
        self.webhook_delivery(webhook, event.id).await
    }

    /// Appends a line to the tenant's audit log and creates the deliveries of the event to the tenant's endpoints, in
    /// one transaction.
    pub async fn append_audit_with_event(
        &self,
        line: NewAuditLine,
        event: &AppEvent,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin(now).await?;
        tx.add_line(Some(self.tenant), line, now);
        queue::events::tell_event(&tx, self.tenant, event, now).await?;
        tx.commit().await
    }
}

/// The beginning of every redelivery statement; `$1` is the time.
const AGAIN: &str = "UPDATE webhook_delivery SET status = 'pending', due_at = $1, retry_from = $1, attempt_count = 0, lease = NULL, \
                     ended_at = NULL";

#[derive(FromQueryResult)]
struct Spending {
    appid: String,
    tenant_id: Uuid,
    used_today: i64,
    daily_quota: i64,
}

impl PlatformStore {
    /// Sends an `app.quota_warning` event to tenants with endpoints for each app that has used most of today's quota,
    /// once a day for each of the `WARNINGS`.
    pub async fn warn_quotas(&self, now: DateTime<Utc>) -> Result<(), StoreError> {
        let day = queue::day_number(now);
        let sql = "SELECT app.appid, app.tenant_id, lane.quota_used AS used_today, app.daily_quota FROM lane \
                   JOIN app ON app.appid = lane.appid WHERE lane.quota_day = $1 \
                   AND lane.quota_used * 100 >= app.daily_quota * $2 \
                   AND EXISTS (SELECT 1 FROM webhook WHERE webhook.tenant_id = app.tenant_id AND webhook.status = 'enabled')";
        let backend = self.store.read().get_database_backend();
        let look = Statement::from_sql_and_values(backend, sql, [day.into(), WARNINGS[0].into()]);
        let rows = Spending::find_by_statement(look)
            .all(self.store.read())
            .await?;
        for row in rows {
            self.warn_quota(row, now).await?;
        }
        Ok(())
    }

    async fn warn_quota(&self, row: Spending, now: DateTime<Utc>) -> Result<(), StoreError> {
        let reset_at = quota::reset_at(now);
        // The event id contains the beginning of the day, so a second warning of one day has the id of the first.
        let day = reset_at - chrono::Duration::days(1);
        let appid =
            AppId::parse(row.appid.as_str()).map_err(|_| unknown("app.appid", &row.appid))?;
        for percent in WARNINGS {
            if row.used_today * 100 < row.daily_quota * percent {
                continue;
            }
            let data = serde_json::json!({
                "appid": appid.as_str(),
                "percent": percent,
                "limit": row.daily_quota,
                "used": row.used_today,
                "remaining": (row.daily_quota - row.used_today).max(0),
                "reset_at": reset_at.to_rfc3339_opts(SecondsFormat::Millis, true),
            });
            let about = format!("{appid} {percent}");
            let event = AppEvent::about(EventType::AppQuotaWarning, &about, data, day);
            let tenant = TenantId::from(row.tenant_id);
            queue::events::tell_event(self.store.write(), tenant, &event, now).await?;
        }
        Ok(())
    }
}

impl TryFrom<Model> for WebhookDelivery {
    type Error = StoreError;

    fn try_from(row: Model) -> Result<Self, StoreError> {
        let status = DeliveryStatus::parse(&row.status)
            .ok_or_else(|| unknown("webhook_delivery.status", &row.status))?;
        Ok(Self {
            webhook: row.webhook_id.into(),
            event: row.event_id.into(),
            kind: EventType::parse(&row.kind)
                .ok_or_else(|| unknown("webhook_delivery.kind", &row.kind))?,
            message: row.message_id.map(Into::into),
            status,
            attempts: u32::try_from(row.attempt_count).unwrap_or(u32::MAX),
            next_attempt_at: (status == DeliveryStatus::Pending).then(|| time(row.due_at)),
            response_status: row
                .response_status
                .and_then(|status| u16::try_from(status).ok()),
            response_excerpt: row.response_excerpt,
            error: row.error,
            created_at: time(row.created_at),
            attempted_at: row.attempted_at.map(time),
            ended_at: row.ended_at.map(time),
        })
    }
}
