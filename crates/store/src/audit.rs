//! The audit log: actions with actor, target, outcome and origin. Lines are appended and read, and never changed.
//! [`PlatformStore::forget_audit`] deletes old lines.
//!
//! A change and its audit line commit together: [`TenantStore::with_audit_line`] and [`PlatformStore::with_audit_line`] return a
//! store whose next change also writes the line.

mod origin;

use chrono::{DateTime, Utc};
use domain::id::{self, EventId, TenantId};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
};
use uuid::Uuid;

use crate::{
    Listing, Page, PlatformStore, Store, StoreError, TenantStore,
    entity::audit::{ActiveModel, Column, Entity, Model},
    timestamp::{millis, time},
};

pub use origin::{Actor, NewAuditLine, Origin};

/// A line of the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditLine {
    /// The id of the line, which sorts by time.
    pub id: EventId,
    /// The content of the line.
    pub line: NewAuditLine,
    /// The tenant that the line belongs to, or `None` for the platform.
    pub tenant: Option<TenantId>,
    /// When the line was written.
    pub at: DateTime<Utc>,
}

/// Which audit lines to read. An absent field does not filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Only lines with this action.
    pub action: Option<String>,
    /// Only lines about this target.
    pub target: Option<String>,
    /// Only lines of this time or later.
    pub created_after: Option<DateTime<Utc>>,
    /// Only lines before this time.
    pub created_before: Option<DateTime<Utc>>,
}

impl TenantStore {
    /// This store, with `line` as the audit line of the next change. The change and the line commit together or not at
    /// all.
    #[must_use]
    pub fn with_audit_line(mut self, line: NewAuditLine) -> Self {
        self.record = Some(line);
        self
    }

    /// Appends a line to the tenant's log.
    pub async fn append_audit(
        &self,
        line: NewAuditLine,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let (store, tenant) = (&self.store, Some(self.tenant));
        append(store, store.write(), tenant, line, now).await
    }

    /// The tenant's log, newest first.
    pub async fn audit(
        &self,
        filter: &AuditFilter,
        page: &Page,
    ) -> Result<Listing<AuditLine>, StoreError> {
        list(&self.store, Some(self.tenant), filter, page).await
    }
}

impl PlatformStore {
    /// This store, with `line` as the audit line of the next change. The change and the line commit together or not at
    /// all.
    #[must_use]
    pub fn with_audit_line(mut self, line: NewAuditLine) -> Self {
        self.record = Some(line);
        self
    }

    /// Appends a line that belongs to no tenant.
    pub async fn append_audit(
        &self,
        line: NewAuditLine,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        append(&self.store, self.store.write(), None, line, now).await
    }

    /// The log of all tenants and of the platform, newest first.
    pub async fn audit(
        &self,
        filter: &AuditFilter,
        page: &Page,
    ) -> Result<Listing<AuditLine>, StoreError> {
        list(&self.store, None, filter, page).await
    }
}

/// Appends a line to the log of `tenant`, or of the platform for `None`.
pub(crate) async fn append(
    store: &Store,
    place: &impl ConnectionTrait,
    tenant: Option<TenantId>,
    line: NewAuditLine,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let id: EventId = store.lines.id(now, rand::random());
    let row = Model {
        id: id.uuid(),
        tenant_id: tenant.map(|tenant| tenant.uuid()),
        actor: line.actor,
        action: line.action,
        target: line.target,
        outcome: line.outcome,
        detail: line.detail,
        request_id: line.request_id,
        address: line.address,
        at: millis(now),
    };
    Entity::insert(ActiveModel::from(row))
        .exec_without_returning(place)
        .await?;
    Ok(())
}

async fn list(
    store: &Store,
    tenant: Option<TenantId>,
    filter: &AuditFilter,
    page: &Page,
) -> Result<Listing<AuditLine>, StoreError> {
    let AuditFilter {
        action,
        target,
        created_after,
        created_before,
    } = filter;
    let start = [created_before.map(id::lower_bound), page.after];
    let wanted = Condition::all()
        .add_option(tenant.map(|tenant| Column::TenantId.eq(tenant.uuid())))
        .add_option(action.as_ref().map(|action| Column::Action.eq(action)))
        .add_option(target.as_ref().map(|target| Column::Target.eq(target)))
        .add_option(created_after.map(|time| Column::Id.gte(id::lower_bound(time))))
        .add_option(
            start
                .into_iter()
                .flatten()
                .min()
                .map(|id| Column::Id.lt(id)),
        );
    let rows = Entity::find()
        .filter(wanted)
        .order_by_desc(Column::Id)
        .limit(page.limit + 1)
        .all(store.read())
        .await?;
    Listing::of(rows, page, |row| row.id).try_map(|row| Ok(audit_line(row)))
}

fn audit_line(row: Model) -> AuditLine {
    AuditLine {
        id: row.id.into(),
        tenant: row.tenant_id.map(|tenant: Uuid| tenant.into()),
        at: time(row.at),
        line: NewAuditLine {
            actor: row.actor,
            action: row.action,
            target: row.target,
            outcome: row.outcome,
            detail: row.detail,
            request_id: row.request_id,
            address: row.address,
        },
    }
}
