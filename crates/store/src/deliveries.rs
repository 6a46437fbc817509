//! Deliveries to webhook endpoints as their owners see them: what was told, and telling it again.

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
    answers, audit,
    entity::webhook_delivery::{Column, Entity, Model},
    error::unknown,
    millis, queue, time,
};

/// How much of an app's day is worth a warning, in percent.
const WARNINGS: [i64; 2] = [80, 95];

/// How many deliveries one request puts on their way again: what SQLite writes in a moment, so that messages do not wait
/// for it.
const REDELIVERED_AT_ONCE: i64 = 10_000;

/// One event and one endpoint: whether it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookDelivery {
    /// To which endpoint.
    pub webhook: WebhookId,
    /// The event's id.
    pub event: EventId,
    /// What happened.
    pub kind: EventType,
    /// The message that it happened to, if any.
    pub message: Option<MessageId>,
    /// How it stands.
    pub status: DeliveryStatus,
    /// How many times it was tried.
    pub attempts: u32,
    /// When it is tried again; none: it has ended.
    pub next_attempt_at: Option<DateTime<Utc>>,
    /// What the endpoint answered last, if it did.
    pub response_status: Option<u16>,
    /// The beginning of what it answered.
    pub response_excerpt: Option<String>,
    /// What went wrong last.
    pub error: Option<String>,
    /// When it happened.
    pub created_at: DateTime<Utc>,
    /// When it was last tried.
    pub attempted_at: Option<DateTime<Utc>>,
    /// When it was delivered, or given up.
    pub ended_at: Option<DateTime<Utc>>,
}

impl WebhookDelivery {
    /// What [`TenantStore::tell_webhook`] begins.
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

    /// What [`TenantStore::redeliver`] makes of it.
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

/// How it stands with a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryStatus {
    /// It is tried until it succeeds or its time is over.
    Pending,
    /// The endpoint has it.
    Delivered,
    /// It was given up.
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
    /// What the tenant's endpoint was told, or is to be told, newest first.
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
        let rows = query.all(&self.store.read).await?;
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
            .one(&self.store.write)
            .await?;
        found.ok_or(StoreError::NotFound("delivery"))?.try_into()
    }

    /// Tells one event once more, whatever became of it before: its tries begin anew. One that is on its way goes on, and
    /// nothing is on record then.
    pub async fn redeliver(
        &self,
        webhook: WebhookId,
        event: EventId,
        now: DateTime<Utc>,
    ) -> Result<WebhookDelivery, StoreError> {
        let transaction = self.store.begin().await?;
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
            answers::keep(&transaction, self.kept.as_ref(), now).await?;
        } else {
            self.note(&transaction, now).await?;
        }
        transaction.commit().await?;
        row.try_into()
    }

    /// Tells the events once more that happened from `since` until `until` and were given up, the oldest first and
    /// 10,000 at most. What came of it is answered as `keep` words it, in the same transaction, and the line on record
    /// says how many; none has none.
    pub async fn redeliver_failed(
        &self,
        webhook: WebhookId,
        since: DateTime<Utc>,
        until: DateTime<Utc>,
        keep: Keep<Swept>,
        now: DateTime<Utc>,
    ) -> Result<Swept, StoreError> {
        let transaction = self.store.begin().await?;
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
        if moved > 0 {
            let time = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Millis, true);
            let words = format!(
                "{moved} that were given up, from {} until {}",
                time(since),
                time(until)
            );
            let line = self.record.clone().map(|line| line.saying(words));
            audit::note(&self.store, &transaction, Some(self.tenant), line, now).await?;
        }
        let swept = Swept {
            moved,
            more: moved >= REDELIVERED_AT_ONCE.unsigned_abs(),
        };
        answers::keep(&transaction, keep.answer(&swept).as_ref(), now).await?;
        transaction.commit().await?;
        Ok(swept)
    }

    /// Puts an event on its way to one endpoint of the tenant, whatever that asks for.
    pub async fn tell_webhook(
        &self,
        webhook: WebhookId,
        event: &AppEvent,
        now: DateTime<Utc>,
    ) -> Result<WebhookDelivery, StoreError> {
        let transaction = self.store.begin().await?;
        queue::tell::tell_one(&transaction, self.tenant, webhook.uuid(), event, now).await?;
        self.note(&transaction, now).await?;
        transaction.commit().await?;
        self.webhook_delivery(webhook, event.id).await
    }

    /// Adds a line to the tenant's log and tells its endpoints, both or neither.
    pub async fn append_audit_and_tell(
        &self,
        line: NewAuditLine,
        event: &AppEvent,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let tx = self.store.begin().await?;
        audit::append(&self.store, &tx, Some(self.tenant), line, now).await?;
        queue::tell::tell_event(&tx, self.tenant, event, now).await?;
        tx.commit().await?;
        Ok(())
    }
}

/// The beginning of every redelivery; `$1` is the time.
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
    /// Tells tenants with endpoints which of their apps have used most of today's quota: once a day for each mark that
    /// is passed.
    pub async fn warn_quotas(&self, now: DateTime<Utc>) -> Result<(), StoreError> {
        let day = queue::day_number(now);
        let sql = "SELECT app.appid, app.tenant_id, lane.quota_used AS used_today, app.daily_quota FROM lane \
                   JOIN app ON app.appid = lane.appid WHERE lane.quota_day = $1 \
                   AND lane.quota_used * 100 >= app.daily_quota * $2 \
                   AND EXISTS (SELECT 1 FROM webhook WHERE webhook.tenant_id = app.tenant_id AND webhook.status = 'enabled')";
        let backend = self.store.read.get_database_backend();
        let look = Statement::from_sql_and_values(backend, sql, [day.into(), WARNINGS[0].into()]);
        let rows = Spending::find_by_statement(look)
            .all(&self.store.read)
            .await?;
        for row in rows {
            self.warn_quota(row, now).await?;
        }
        Ok(())
    }

    async fn warn_quota(&self, row: Spending, now: DateTime<Utc>) -> Result<(), StoreError> {
        let reset_at = quota::reset_at(now);
        // The day's warning has the day's beginning in its id: the second of a day is the first.
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
            queue::tell::tell_event(&self.store.write, tenant, &event, now).await?;
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
