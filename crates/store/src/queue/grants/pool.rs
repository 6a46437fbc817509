//! The form-id pool: ids that permit messages, collected by tenants.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, Duration, Utc};
use domain::{
    app::AppId,
    grant::{IdKind, usable_until},
    id::TenantId,
};
use sea_orm::{ConnectionTrait, DbBackend, FromQueryResult};
use uuid::Uuid;

use super::PooledId;
use crate::{
    PlatformStore, StoreError, Swept,
    error::unknown,
    queue::{sql::Sql, sweep::BATCH},
    timestamp::{millis, time},
};

/// How long an expired id is still remembered: a late report of the same id is then recognised.
const MEMORY: Duration = Duration::days(1);

/// An id to add to the pool.
pub(super) struct NewId<'a> {
    pub(super) kind: IdKind,
    pub(super) openid: &'a str,
    pub(super) value: &'a str,
    pub(super) collected_at: DateTime<Utc>,
}

#[derive(FromQueryResult)]
pub(super) struct PooledRow {
    openid: String,
    value: String,
    kind: String,
    uses_left: i64,
    held_by: Option<Uuid>,
    collected_at: i64,
    expires_at: i64,
}

/// The columns of [`PooledRow`], of an id `s`.
pub(super) const POOLED_COLUMNS: &str =
    "s.openid, s.value, s.kind, s.uses_left, s.held_by, s.collected_at, s.expires_at";

/// The condition that joins the id of a row of `v`.
pub(super) const KEY: &str = "s.appid = v.a AND s.value = v.id";

/// The beginning and, in [`CHANGED`], the end of a statement that sets `uses_left` and `held_by` of the ids found for
/// `v`, like [`ledger::CHANGE`](super::ledger::CHANGE).
pub(super) const CHANGE: &str = "INSERT INTO form_id (appid, value, tenant_id, openid, kind, collected_at, expires_at, uses_left, held_by) \
                                 SELECT s.appid, s.value, s.tenant_id, s.openid, s.kind, s.collected_at, s.expires_at,";
pub(super) const CHANGED: &str = " ON CONFLICT (appid, value) DO UPDATE SET uses_left = excluded.uses_left, held_by = excluded.held_by";

impl TryFrom<PooledRow> for PooledId {
    type Error = StoreError;

    fn try_from(row: PooledRow) -> Result<Self, StoreError> {
        Ok(Self {
            kind: IdKind::parse(&row.kind).ok_or_else(|| unknown("form_id.kind", &row.kind))?,
            openid: row.openid,
            value: row.value,
            uses_left: u32::try_from(row.uses_left).unwrap_or_default(),
            is_held: row.held_by.is_some(),
            collected_at: time(row.collected_at),
            usable_until: time(row.expires_at),
        })
    }
}

/// Adds `new` to the pool. Returns these ids as the pool has them now, by value, and the values that were not there
/// before.
pub(super) async fn add(
    tx: &impl ConnectionTrait,
    tenant: TenantId,
    appid: &AppId,
    new: &[NewId<'_>],
) -> Result<(HashMap<String, PooledId>, HashSet<String>), StoreError> {
    if new.is_empty() {
        return Ok((HashMap::new(), HashSet::new()));
    }
    // In a fixed order, so that two requests with the same ids do not block each other. Of two entries with the same id
    // the first counts.
    let mut ordered: BTreeMap<&str, &NewId<'_>> = BTreeMap::new();
    for id in new {
        ordered.entry(id.value).or_insert(id);
    }
    let mut sql = Sql::new(
        "INSERT INTO form_id (appid, value, tenant_id, openid, kind, uses_left, collected_at, expires_at) ",
    );
    sql.rows(ordered.values().map(|id| {
        [
            appid.as_str().into(),
            id.value.into(),
            tenant.uuid().into(),
            id.openid.into(),
            id.kind.as_str().into(),
            i64::from(id.kind.uses()).into(),
            millis(id.collected_at).into(),
            millis(usable_until(id.collected_at)).into(),
        ]
    }));
    sql.push(" ON CONFLICT (appid, value) DO NOTHING RETURNING value");
    let mut added = HashSet::new();
    for row in tx.query_all_raw(sql.on(tx)).await? {
        added.insert(row.try_get("", "value")?);
    }
    let mut sql = Sql::new("WITH v(a, id) AS (");
    sql.rows(
        ordered
            .into_keys()
            .map(|value| [appid.as_str().into(), value.into()]),
    )
    .push(&format!(") SELECT {POOLED_COLUMNS} FROM "))
    .found("form_id", KEY);
    let rows = PooledRow::find_by_statement(sql.on(tx)).all(tx).await?;
    let known = rows.into_iter().map(|row| {
        let id = PooledId::try_from(row)?;
        Ok((id.value.clone(), id))
    });
    Ok((known.collect::<Result<_, StoreError>>()?, added))
}

impl PlatformStore {
    /// Deletes ids that expired more than `MEMORY` ago, a batch at a time.
    pub async fn forget_form_ids(&self, now: DateTime<Utc>) -> Result<Swept, StoreError> {
        let mut sql = Sql::new(
            "DELETE FROM form_id WHERE (appid, value) IN (SELECT appid, value FROM form_id WHERE expires_at < ",
        );
        sql.bind(millis(now - MEMORY))
            .push(" ORDER BY expires_at LIMIT ")
            .bind(BATCH);
        let connection = self.store.write();
        if connection.get_database_backend() == DbBackend::Postgres {
            sql.push(" FOR UPDATE SKIP LOCKED");
        }
        sql.push(")");
        let forgotten = connection.execute_raw(sql.on(connection)).await?;
        Ok(Swept::of(forgotten.rows_affected()))
    }

    /// Deletes the pool, the ledger and the count of a tenant's removed app, in batches.
    pub(crate) async fn forget_grants(
        &self,
        tenant: TenantId,
        appid: &AppId,
    ) -> Result<(), StoreError> {
        let connection = self.store.write();
        for (table, key) in [
            ("form_id", "appid, value"),
            ("subscription", "appid, openid, template_id"),
        ] {
            loop {
                let mut sql = Sql::new(&format!(
                    "DELETE FROM {table} WHERE ({key}) IN (SELECT {key} FROM {table} WHERE appid = "
                ));
                sql.bind(appid.as_str())
                    .push(" AND tenant_id = ")
                    .bind(tenant.uuid())
                    .push(" LIMIT ")
                    .bind(BATCH)
                    .push(")");
                let forgotten = connection.execute_raw(sql.on(connection)).await?;
                if !Swept::of(forgotten.rows_affected()).more {
                    break;
                }
            }
        }
        self.store.tenant(tenant).forget_count(appid).await
    }

    /// Deletes all leftover data of an appid without an app, in batches, so that the next owner finds nothing of the
    /// last owner's data.
    pub(crate) async fn forget_leftovers(&self, appid: &AppId) -> Result<(), StoreError> {
        let connection = self.store.write();
        for (table, key) in [
            ("form_id", "appid, value"),
            ("subscription", "appid, openid, template_id"),
            ("receipt", "appid, touser, msgid"),
            ("heard_event", "appid, digest"),
            ("grant_count", "appid"),
        ] {
            loop {
                let mut sql = Sql::new(&format!(
                    "DELETE FROM {table} WHERE ({key}) IN (SELECT {key} FROM {table} WHERE appid = "
                ));
                sql.bind(appid.as_str())
                    .push(" AND NOT EXISTS (SELECT 1 FROM app WHERE app.appid = ")
                    .bind(appid.as_str())
                    .push(") LIMIT ")
                    .bind(BATCH)
                    .push(")");
                let forgotten = connection.execute_raw(sql.on(connection)).await?;
                if !Swept::of(forgotten.rows_affected()).more {
                    break;
                }
            }
        }
        Ok(())
    }
}
