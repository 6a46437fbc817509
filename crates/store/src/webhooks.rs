//! The webhook endpoints of tenants.

use chrono::{DateTime, Utc};
use domain::{
    id::{TenantId, WebhookId},
    webhook::EventFilter,
};
use sea_orm::{
    ActiveValue::{NotSet, Set},
    ColumnTrait, EntityTrait, PaginatorTrait, QueryFilter, QueryOrder, QuerySelect, SqlErr,
    sea_query::LockType,
};

use crate::{
    Listing, Page, StoreError, TenantStore,
    entity::{
        tenant,
        webhook::{ActiveModel, Column, Entity, Model},
    },
    error::unknown,
    timestamp::{millis, time},
};

/// The status of an endpoint that gets events.
pub(crate) const ENABLED: &str = "enabled";
/// The status of an endpoint that gets no events.
pub(crate) const DISABLED: &str = "disabled";

/// A webhook endpoint: a tenant's URL for events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// The id of the endpoint.
    pub id: WebhookId,
    /// The tenant that owns the endpoint.
    pub tenant: TenantId,
    /// The URL to which events are posted.
    pub url: String,
    /// The types of events that the endpoint gets.
    pub events: EventFilter,
    /// The tenant's description of the endpoint.
    pub description: Option<String>,
    /// Whether the endpoint gets events.
    pub enabled: bool,
    /// Why the gateway disabled the endpoint, where the gateway did so.
    pub disabled_reason: Option<String>,
    /// Until when the secret before the last rotation also signs.
    pub previous_secret_until: Option<DateTime<Utc>>,
    /// Since when every attempt has failed, or `None` where the last attempt succeeded.
    pub failing_since: Option<DateTime<Utc>>,
    /// The number of failed attempts since then.
    pub failures: u64,
    /// When the endpoint was created.
    pub created_at: DateTime<Utc>,
    /// When the endpoint last changed.
    pub updated_at: DateTime<Utc>,
}

/// The data of a new endpoint.
#[derive(Clone, Debug)]
pub struct NewWebhook {
    /// The id of the endpoint.
    pub id: WebhookId,
    /// The URL to which events are posted.
    pub url: String,
    /// The types of events that the endpoint gets.
    pub events: EventFilter,
    /// The tenant's description of the endpoint.
    pub description: Option<String>,
    /// The endpoint's secret, sealed.
    pub secret_sealed: Vec<u8>,
}

impl NewWebhook {
    /// The endpoint that [`TenantStore::create_webhook`] creates from this data.
    pub fn made(&self, tenant: TenantId, now: DateTime<Utc>) -> Webhook {
        let now = time(millis(now));
        Webhook {
            id: self.id,
            tenant,
            url: self.url.clone(),
            events: self.events.clone(),
            description: self.description.clone(),
            enabled: true,
            disabled_reason: None,
            previous_secret_until: None,
            failing_since: None,
            failures: 0,
            created_at: now,
            updated_at: now,
        }
    }
}

/// A change of an endpoint. `None` leaves a field as is.
#[derive(Clone, Debug, Default)]
pub struct WebhookPatch {
    /// The URL to which events are posted.
    pub url: Option<String>,
    /// The types of events that the endpoint gets.
    pub events: Option<EventFilter>,
    /// The tenant's description of the endpoint; `Some(None)` deletes the description.
    pub description: Option<Option<String>>,
    /// Whether the endpoint gets events. Enabling an endpoint resets the count of failures.
    pub enabled: Option<bool>,
}

impl TenantStore {
    /// Creates an endpoint of the tenant, or returns `None` where the tenant has `most` endpoints already. The tenant's
    /// row is locked during the transaction, so that concurrent requests count each other's endpoints.
    pub async fn create_webhook(
        &self,
        new: NewWebhook,
        most: u64,
        now: DateTime<Utc>,
    ) -> Result<Option<Webhook>, StoreError> {
        let created = new.made(self.tenant, now);
        let row = Model {
            id: new.id.uuid(),
            tenant_id: self.tenant.uuid(),
            url: new.url,
            events: new.events.to_string(),
            description: new.description,
            status: ENABLED.to_owned(),
            disabled_reason: None,
            secret_sealed: new.secret_sealed,
            previous_secret_sealed: None,
            previous_secret_until: None,
            failing_since: None,
            failures: 0,
            created_at: millis(now),
            updated_at: millis(now),
        };
        let transaction = self.begin(now).await?;
        // This lock leaves the key unchanged, so intake can go on for messages of the tenant.
        let held = tenant::Entity::find_by_id(self.tenant.uuid())
            .lock(LockType::NoKeyUpdate)
            .one(&transaction)
            .await?;
        held.ok_or(StoreError::NotFound("tenant"))?;
        let own = Entity::find().filter(Column::TenantId.eq(self.tenant.uuid()));
        if own.count(&transaction).await? >= most {
            return Ok(None);
        }
        let inserted = Entity::insert(ActiveModel::from(row))
            .exec_without_returning(&transaction)
            .await;
        inserted.map_err(|error| match error.sql_err() {
            Some(SqlErr::UniqueConstraintViolation(_)) => StoreError::Taken("this webhook"),
            _ => error.into(),
        })?;
        transaction.commit().await?;
        Ok(Some(created))
    }

    /// The tenant's endpoints, newest first.
    pub async fn webhooks(&self, page: &Page) -> Result<Listing<Webhook>, StoreError> {
        let mut query = Entity::find()
            .filter(Column::TenantId.eq(self.tenant.uuid()))
            .order_by_desc(Column::Id)
            .limit(page.limit + 1);
        if let Some(after) = page.after {
            query = query.filter(Column::Id.lt(after));
        }
        let rows = query.all(self.store.read()).await?;
        Listing::of(rows, page, |row| row.id).try_map(Webhook::try_from)
    }

    /// The tenant's endpoint with this id.
    pub async fn webhook(&self, id: WebhookId) -> Result<Webhook, StoreError> {
        let found = Entity::find_by_id(id.uuid())
            .filter(Column::TenantId.eq(self.tenant.uuid()))
            .one(self.store.read())
            .await?;
        found.ok_or(StoreError::NotFound("webhook"))?.try_into()
    }

    /// Changes the tenant's endpoint and returns the changed endpoint.
    pub async fn update_webhook(
        &self,
        id: WebhookId,
        patch: WebhookPatch,
        now: DateTime<Utc>,
    ) -> Result<Webhook, StoreError> {
        let fresh = |enabled: Option<bool>| enabled == Some(true);
        let changes = ActiveModel {
            url: patch.url.map_or(NotSet, Set),
            events: patch
                .events
                .map_or(NotSet, |events| Set(events.to_string())),
            description: patch.description.map_or(NotSet, Set),
            status: patch.enabled.map_or(NotSet, |enabled| {
                Set(if enabled { ENABLED } else { DISABLED }.to_owned())
            }),
            disabled_reason: patch.enabled.map_or(NotSet, |_| Set(None)),
            failing_since: if fresh(patch.enabled) {
                Set(None)
            } else {
                NotSet
            },
            failures: if fresh(patch.enabled) { Set(0) } else { NotSet },
            updated_at: Set(millis(now)),
            ..ActiveModel::default()
        };
        let transaction = self.begin(now).await?;
        let updated = Entity::update_many()
            .set(changes)
            .filter(Column::Id.eq(id.uuid()))
            .filter(Column::TenantId.eq(self.tenant.uuid()))
            .exec(&transaction)
            .await?;
        if updated.rows_affected == 0 {
            return Err(StoreError::NotFound("webhook"));
        }
        transaction.commit().await?;
        self.reread_webhook(id).await
    }

    /// Gives the tenant's endpoint a new secret. The previous secret also signs until `previous_until`.
    pub async fn rotate_webhook_secret(
        &self,
        id: WebhookId,
        secret_sealed: Vec<u8>,
        previous_until: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<Webhook, StoreError> {
        use sea_orm::sea_query::Expr;
        let transaction = self.begin(now).await?;
        let rotated = Entity::update_many()
            .col_expr(
                Column::PreviousSecretSealed,
                Expr::col(Column::SecretSealed),
            )
            .col_expr(
                Column::PreviousSecretUntil,
                Expr::value(Some(millis(previous_until))),
            )
            .col_expr(Column::SecretSealed, Expr::value(secret_sealed))
            .col_expr(Column::UpdatedAt, Expr::value(millis(now)))
            .filter(Column::Id.eq(id.uuid()))
            .filter(Column::TenantId.eq(self.tenant.uuid()))
            .exec(&transaction)
            .await?;
        if rotated.rows_affected == 0 {
            return Err(StoreError::NotFound("webhook"));
        }
        transaction.commit().await?;
        self.reread_webhook(id).await
    }

    /// Removes the tenant's endpoint. The announcer drops the endpoint's pending deliveries later.
    pub async fn remove_webhook(
        &self,
        id: WebhookId,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let transaction = self.begin(now).await?;
        let removed = Entity::delete_many()
            .filter(Column::Id.eq(id.uuid()))
            .filter(Column::TenantId.eq(self.tenant.uuid()))
            .exec(&transaction)
            .await?;
        if removed.rows_affected == 0 {
            return Err(StoreError::NotFound("webhook"));
        }
        transaction.commit().await
    }

    async fn reread_webhook(&self, id: WebhookId) -> Result<Webhook, StoreError> {
        let found = Entity::find_by_id(id.uuid())
            .one(self.store.write())
            .await?;
        found.ok_or(StoreError::NotFound("webhook"))?.try_into()
    }
}

impl TryFrom<Model> for Webhook {
    type Error = StoreError;

    fn try_from(row: Model) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id.into(),
            tenant: row.tenant_id.into(),
            events: EventFilter::parse(&row.events)
                .ok_or_else(|| unknown("webhook.events", &row.events))?,
            url: row.url,
            description: row.description,
            enabled: row.status == ENABLED,
            disabled_reason: row.disabled_reason,
            previous_secret_until: row.previous_secret_until.map(time),
            failing_since: row.failing_since.map(time),
            failures: row.failures.unsigned_abs(),
            created_at: time(row.created_at),
            updated_at: time(row.updated_at),
        })
    }
}
