//! Tenants: the customers of the operator.

use chrono::{DateTime, Utc};
use domain::{
    id::TenantId,
    tenant::{TenantLimits, TenantStatus},
};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, Condition, EntityTrait, ExprTrait, QueryFilter, QueryOrder,
    QuerySelect, sea_query::Expr,
};

use crate::{
    Listing, Page, PlatformStore, StoreError, TenantStore,
    entity::tenant::{ActiveModel, Column, Entity, Model},
    error::unknown,
    timestamp::{millis, time},
};

/// A customer of the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// The id of the tenant.
    pub id: TenantId,
    /// The operators' name for the tenant. Not unique.
    pub name: String,
    /// Whether the tenant may use the gateway.
    pub status: TenantStatus,
    /// The tenant's limits on requests and messages.
    pub limits: TenantLimits,
    /// When the tenant was created.
    pub created_at: DateTime<Utc>,
    /// When the tenant last changed. Each change has a different time.
    pub updated_at: DateTime<Utc>,
}

/// A change of a tenant. `None` leaves a field as is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantPatch {
    /// The name.
    pub name: Option<String>,
    /// Whether the tenant may use the gateway.
    pub status: Option<TenantStatus>,
    /// API requests a second.
    pub requests_per_second: Option<u32>,
    /// Messages a Beijing day; `Some(None)` removes the limit.
    pub messages_per_day: Option<Option<u64>>,
    /// [`Tenant::updated_at`] as the caller has read it. Where the stored value differs, nothing changes and the call
    /// fails with [`StoreError::Changed`].
    pub known_at: Option<DateTime<Utc>>,
}

impl Tenant {
    /// The tenant that [`PlatformStore::create_tenant`] creates.
    pub fn new(id: TenantId, name: &str, limits: TenantLimits, now: DateTime<Utc>) -> Self {
        let now = time(millis(now));
        Self {
            id,
            name: name.to_owned(),
            status: TenantStatus::Active,
            limits,
            created_at: now,
            updated_at: now,
        }
    }
}

impl PlatformStore {
    /// Creates a tenant with the status active.
    pub async fn create_tenant(
        &self,
        id: TenantId,
        name: &str,
        limits: TenantLimits,
        now: DateTime<Utc>,
    ) -> Result<Tenant, StoreError> {
        let new = Tenant::new(id, name, limits, now);
        let row = Model {
            id: id.uuid(),
            name: name.to_owned(),
            status: status_text(new.status).to_owned(),
            requests_per_second: limits.requests_per_second.into(),
            messages_per_day: limits.messages_per_day.map(count),
            created_at: millis(now),
            updated_at: millis(now),
        };
        let transaction = self.begin_for(id, now).await?;
        Entity::insert(ActiveModel::from(row))
            .exec_without_returning(&transaction)
            .await?;
        transaction.commit().await?;
        Ok(new)
    }

    /// One tenant.
    pub async fn tenant(&self, id: TenantId) -> Result<Tenant, StoreError> {
        let row = Entity::find_by_id(id.uuid()).one(self.store.read()).await?;
        tenant(row.ok_or(StoreError::NotFound("tenant"))?)
    }

    /// All tenants, newest first.
    pub async fn tenants(&self, page: &Page) -> Result<Listing<Tenant>, StoreError> {
        let mut query = Entity::find()
            .order_by_desc(Column::Id)
            .limit(page.limit + 1);
        if let Some(after) = page.after {
            query = query.filter(Column::Id.lt(after));
        }
        let rows = query.all(self.store.read()).await?;
        Listing::of(rows, page, |row| row.id).try_map(tenant)
    }

    /// Changes a tenant and returns the changed tenant.
    pub async fn update_tenant(
        &self,
        id: TenantId,
        patch: &TenantPatch,
        now: DateTime<Utc>,
    ) -> Result<Tenant, StoreError> {
        let change = ActiveModel {
            name: maybe(patch.name.clone()),
            status: maybe(patch.status.map(|status| status_text(status).to_owned())),
            requests_per_second: maybe(patch.requests_per_second.map(i64::from)),
            messages_per_day: maybe(patch.messages_per_day.map(|limit| limit.map(count))),
            ..ActiveModel::default()
        };
        let known = patch.known_at.map(|at| Column::UpdatedAt.eq(millis(at)));
        let transaction = self.begin_for(id, now).await?;
        let rows = Entity::update_many()
            .set(change)
            .col_expr(Column::UpdatedAt, later(Column::UpdatedAt, now))
            .filter(Column::Id.eq(id.uuid()))
            .filter(Condition::all().add_option(known))
            .exec_with_returning(&transaction)
            .await?;
        let Some(row) = rows.into_iter().next() else {
            let there = Entity::find_by_id(id.uuid()).one(&transaction).await?;
            return Err(match there {
                Some(_) => StoreError::Changed("tenant"),
                None => StoreError::NotFound("tenant"),
            });
        };
        let changed = tenant(row)?;
        transaction.commit().await?;
        Ok(changed)
    }
}

impl TenantStore {
    /// The tenant of this store.
    pub async fn itself(&self) -> Result<Tenant, StoreError> {
        self.store.platform().tenant(self.tenant).await
    }
}

/// Converts a row into a tenant.
pub(crate) fn tenant(row: Model) -> Result<Tenant, StoreError> {
    Ok(Tenant {
        id: row.id.into(),
        status: parse_status(&row.status)?,
        limits: TenantLimits {
            requests_per_second: u32::try_from(row.requests_per_second).unwrap_or(u32::MAX),
            messages_per_day: row
                .messages_per_day
                .map(|limit| u64::try_from(limit).unwrap_or(0)),
        },
        name: row.name,
        created_at: time(row.created_at),
        updated_at: time(row.updated_at),
    })
}

/// A column of a patch: set where there is a value, else unchanged.
pub(crate) fn maybe<V: Into<sea_orm::Value>>(value: Option<V>) -> sea_orm::ActiveValue<V> {
    value.map_or(sea_orm::ActiveValue::NotSet, Set)
}

/// `now`, or the row's time plus a millisecond where that is later: each time names one state of the row.
pub(crate) fn later(column: impl ColumnTrait, now: DateTime<Utc>) -> Expr {
    let is_past = Expr::col(column).lt(millis(now));
    Expr::case(is_past, millis(now))
        .finally(Expr::col(column).add(1))
        .into()
}

/// A count in the database's form.
pub(crate) fn count(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn status_text(status: TenantStatus) -> &'static str {
    match status {
        TenantStatus::Active => "active",
        TenantStatus::Suspended => "suspended",
    }
}

fn parse_status(text: &str) -> Result<TenantStatus, StoreError> {
    match text {
        "active" => Ok(TenantStatus::Active),
        "suspended" => Ok(TenantStatus::Suspended),
        other => Err(unknown("tenant.status", other)),
    }
}
