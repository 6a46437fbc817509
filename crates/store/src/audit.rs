//! The audit log: who did what to which thing. Lines are added and read, never changed.

use chrono::{DateTime, Utc};
use domain::id::{self, EventId, TenantId};
use sea_orm::{
    ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect, Select, SqlErr,
};
use uuid::Uuid;

use crate::{
    DisabledWebhook, Listing, Page, PlatformStore, Store, StoreError, TenantStore,
    entity::audit::{ActiveModel, Column, Entity, Model},
    millis, time,
};

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAuditLine {
    /// Its id, which sorts by time.
    pub id: EventId,
    /// Who did it: the id of a key, or a part of the gateway.
    pub actor: String,
    /// What was done, in one word.
    pub action: String,
    /// To what.
    pub target: String,
    /// How it ended, in one word.
    pub outcome: String,
    /// More, in a sentence.
    pub detail: Option<String>,
    /// The request that asked for it; none: nobody asked.
    pub request_id: Option<String>,
}

/// A line of the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditLine {
    /// What it says.
    pub line: NewAuditLine,
    /// Whose it is; none: the platform's.
    pub tenant: Option<TenantId>,
    /// When it was written.
    pub at: DateTime<Utc>,
}

impl TenantStore {
    /// Adds a line to the tenant's log.
    pub async fn append_audit(
        &self,
        line: NewAuditLine,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        append(&self.store.write, Some(self.tenant), line, now).await
    }

    /// The tenant's log, newest first.
    pub async fn audit(&self, page: &Page) -> Result<Listing<AuditLine>, StoreError> {
        let own = Entity::find().filter(Column::TenantId.eq(self.tenant.uuid()));
        list(&self.store, own, page).await
    }
}

impl PlatformStore {
    /// Adds a line that belongs to no tenant.
    pub async fn append_audit(
        &self,
        line: NewAuditLine,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        append(&self.store.write, None, line, now).await
    }

    /// The log of all tenants and of the platform, newest first.
    pub async fn audit(&self, page: &Page) -> Result<Listing<AuditLine>, StoreError> {
        list(&self.store, Entity::find(), page).await
    }
}

pub(crate) async fn append(
    connection: &impl ConnectionTrait,
    tenant: Option<TenantId>,
    line: NewAuditLine,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let row = Model {
        id: line.id.uuid(),
        tenant_id: tenant.map(|tenant| tenant.uuid()),
        actor: line.actor,
        action: line.action,
        target: line.target,
        outcome: line.outcome,
        detail: line.detail,
        request_id: line.request_id,
        at: millis(now),
    };
    let inserted = Entity::insert(ActiveModel::from(row))
        .exec_without_returning(connection)
        .await;
    inserted.map(drop).map_err(|error| match error.sql_err() {
        Some(SqlErr::UniqueConstraintViolation(_)) => StoreError::Taken("this audit line"),
        _ => error.into(),
    })
}

/// Says that the gateway disabled an endpoint.
pub(crate) async fn append_disabled(
    connection: &impl ConnectionTrait,
    disabled: &DisabledWebhook,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let line = NewAuditLine {
        id: id::new(now, 0, disabled.webhook.uuid().as_u64_pair().1),
        actor: "gateway".to_owned(),
        action: "webhook.disable".to_owned(),
        target: disabled.webhook.to_string(),
        outcome: "disabled".to_owned(),
        detail: Some(disabled.reason.clone()),
        request_id: None,
    };
    append(connection, Some(disabled.tenant), line, now).await
}

async fn list(
    store: &Store,
    lines: Select<Entity>,
    page: &Page,
) -> Result<Listing<AuditLine>, StoreError> {
    let mut query = lines.order_by_desc(Column::Id).limit(page.limit + 1);
    if let Some(after) = page.after {
        query = query.filter(Column::Id.lt(after));
    }
    let rows = query.all(&store.read).await?;
    Listing::of(rows, page, |row| row.id).try_map(|row| Ok(audit_line(row)))
}

fn audit_line(row: Model) -> AuditLine {
    AuditLine {
        tenant: row.tenant_id.map(|tenant: Uuid| tenant.into()),
        at: time(row.at),
        line: NewAuditLine {
            id: row.id.into(),
            actor: row.actor,
            action: row.action,
            target: row.target,
            outcome: row.outcome,
            detail: row.detail,
            request_id: row.request_id,
        },
    }
}
