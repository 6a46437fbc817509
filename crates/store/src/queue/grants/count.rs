//! Counts how many users an app's grants reach.
//!
//! A count scans all grants of the app. For an app with many grants the table `grant_count` keeps the last count with
//! its time. Readers find that row by its key, and a reader that finds the row due starts a new count.

use chrono::{DateTime, Utc};
use domain::{app::AppId, id::TenantId};
use sea_orm::{ConnectionTrait, FromQueryResult};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    PlatformStore, StoreError, TenantStore,
    error::unknown,
    messages::{json, to_json},
    queue::sql::Sql,
    timestamp::{millis, time},
};

/// The most templates that a count shows.
const TEMPLATES: i64 = 1000;

/// The number of users that an app's grants reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantCount {
    /// The users that the pool reaches.
    pub pool: PoolCount,
    /// The users that the ledger reaches, for each template.
    pub templates: Vec<TemplateCount>,
    /// The time of the count.
    pub as_of: DateTime<Utc>,
}

/// The number of users that an app's pool reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolCount {
    /// Users with at least one usable grant.
    pub users: u64,
    /// Messages that can be sent.
    pub sends: u64,
    /// The time at which the next id expires. `None` if the pool has no usable id.
    pub next_expiry: Option<DateTime<Utc>>,
}

/// The number of users that one template reaches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateCount {
    /// The template's id.
    pub template_id: String,
    /// Users with at least one usable grant.
    pub users: u64,
    /// Messages that can be sent. For a long-term template the real number is higher.
    pub sends: u64,
}

/// A stored count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptCount {
    /// The count.
    pub count: GrantCount,
    /// The time from which a new count is due.
    pub due_at: DateTime<Utc>,
}

#[derive(FromQueryResult)]
struct KeptRow {
    pool: String,
    templates: String,
    as_of: i64,
    due_at: i64,
}

impl TryFrom<KeptRow> for KeptCount {
    type Error = StoreError;

    fn try_from(row: KeptRow) -> Result<Self, StoreError> {
        Ok(Self {
            count: GrantCount {
                pool: json(&row.pool, "grant_count.pool")?,
                templates: json(&row.templates, "grant_count.templates")?,
                as_of: time(row.as_of),
            },
            due_at: time(row.due_at),
        })
    }
}

impl TenantStore {
    /// Whether the app has more ids or more ledger rows than `limit`, of those that a count scans. Reads at most one
    /// row more than `limit`.
    pub async fn has_more_grants(&self, appid: &AppId, limit: u32) -> Result<bool, StoreError> {
        let first = i64::from(limit) + 1;
        let mut sql = Sql::new(
            "SELECT (SELECT COUNT(*) FROM (SELECT openid FROM form_id WHERE uses_left > 0 AND appid = ",
        );
        sql.bind(appid.as_str())
            .push(" ORDER BY appid, openid, expires_at, value LIMIT ")
            .bind(first)
            .push(") AS ids) AS ids, (SELECT COUNT(*) FROM (SELECT template_id FROM subscription WHERE remaining > 0 AND appid = ")
            .bind(appid.as_str())
            .push(" ORDER BY appid, template_id, remaining LIMIT ")
            .bind(first)
            .push(") AS accounts) AS accounts");
        let connection = self.store.read();
        let Some(row) = connection.query_one_raw(sql.on(connection)).await? else {
            return Ok(false);
        };
        let (ids, accounts): (i64, i64) = (row.try_get("", "ids")?, row.try_get("", "accounts")?);
        Ok(ids.max(accounts) >= first)
    }

    /// The number of users that the app's grants reach. Scans all usable grants of the app.
    pub async fn count_grants(
        &self,
        appid: &AppId,
        now: DateTime<Utc>,
    ) -> Result<GrantCount, StoreError> {
        self.app(appid).await?;
        Ok(GrantCount {
            pool: self.count_pool(appid, now).await?,
            templates: self.count_subscriptions(appid).await?,
            as_of: now,
        })
    }

    async fn count_pool(&self, appid: &AppId, now: DateTime<Utc>) -> Result<PoolCount, StoreError> {
        let mut sql = Sql::new(
            "SELECT COUNT(*) AS users, CAST(SUM(uses) AS BIGINT) AS sends, MIN(ends) AS next_expiry FROM \
             (SELECT openid, SUM(uses_left) AS uses, MIN(expires_at) AS ends FROM form_id WHERE uses_left > 0 \
             AND held_by IS NULL AND appid = ",
        );
        sql.bind(appid.as_str())
            .push(" AND tenant_id = ")
            .bind(self.tenant.uuid())
            .push(" AND expires_at > ")
            .bind(millis(now))
            .push(" GROUP BY appid, openid) AS people");
        let connection = self.store.read();
        let Some(row) = connection.query_one_raw(sql.on(connection)).await? else {
            return Ok(PoolCount::default());
        };
        let sends: Option<i64> = row.try_get("", "sends")?;
        let next_expiry: Option<i64> = row.try_get("", "next_expiry")?;
        Ok(PoolCount {
            users: row.try_get::<i64>("", "users")?.unsigned_abs(),
            sends: sends.unwrap_or_default().unsigned_abs(),
            next_expiry: next_expiry.map(time),
        })
    }

    async fn count_subscriptions(&self, appid: &AppId) -> Result<Vec<TemplateCount>, StoreError> {
        let mut sql = Sql::new(
            "SELECT template_id, COUNT(*) AS users, CAST(SUM(remaining) AS BIGINT) AS sends FROM subscription \
             WHERE remaining > 0 AND appid = ",
        );
        sql.bind(appid.as_str())
            .push(" AND tenant_id = ")
            .bind(self.tenant.uuid())
            .push(" GROUP BY appid, template_id ORDER BY appid, template_id LIMIT ")
            .bind(TEMPLATES);
        let connection = self.store.read();
        let rows = connection.query_all_raw(sql.on(connection)).await?;
        let counts = rows.iter().map(|row| {
            Ok(TemplateCount {
                template_id: row.try_get("", "template_id")?,
                users: row.try_get::<i64>("", "users")?.unsigned_abs(),
                sends: row.try_get::<i64>("", "sends")?.unsigned_abs(),
            })
        });
        counts.collect()
    }

    /// The app's stored count. `None` if there is no stored count, or the tenant has no such app.
    pub async fn kept_count(&self, appid: &AppId) -> Result<Option<KeptCount>, StoreError> {
        let mut sql =
            Sql::new("SELECT pool, templates, as_of, due_at FROM grant_count WHERE appid = ");
        sql.bind(appid.as_str())
            .push(" AND tenant_id = ")
            .bind(self.tenant.uuid());
        let connection = self.store.read();
        let row = KeptRow::find_by_statement(sql.on(connection))
            .one(connection)
            .await?;
        row.map(KeptCount::try_from).transpose()
    }

    /// Claims the app's count if the count is due: no other replica claims the count before `until`. Returns whether
    /// this call has the claim.
    pub async fn claim_count(
        &self,
        appid: &AppId,
        now: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let mut sql = Sql::new("UPDATE grant_count SET due_at = ");
        sql.bind(millis(until))
            .push(" WHERE appid = ")
            .bind(appid.as_str())
            .push(" AND tenant_id = ")
            .bind(self.tenant.uuid())
            .push(" AND due_at <= ")
            .bind(millis(now));
        let connection = self.store.write();
        let taken = connection.execute_raw(sql.on(connection)).await?;
        Ok(taken.rows_affected() > 0)
    }

    /// Stores a count that is good until `due_at`, in place of the count before.
    pub async fn keep_count(
        &self,
        appid: &AppId,
        count: &GrantCount,
        due_at: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let mut sql = Sql::new(
            "INSERT INTO grant_count (appid, tenant_id, pool, templates, as_of, due_at) VALUES (",
        );
        sql.bind(appid.as_str())
            .push(", ")
            .bind(self.tenant.uuid())
            .push(", ")
            .bind(to_json(&count.pool, "grant_count.pool")?)
            .push(", ")
            .bind(to_json(&count.templates, "grant_count.templates")?)
            .push(", ")
            .bind(millis(count.as_of))
            .push(", ")
            .bind(millis(due_at))
            .push(
                ") ON CONFLICT (appid) DO UPDATE SET tenant_id = excluded.tenant_id, pool = excluded.pool, \
                 templates = excluded.templates, as_of = excluded.as_of, due_at = excluded.due_at",
            );
        let connection = self.store.write();
        connection.execute_raw(sql.on(connection)).await?;
        Ok(())
    }

    /// Deletes the app's stored count.
    pub async fn forget_count(&self, appid: &AppId) -> Result<(), StoreError> {
        let mut sql = Sql::new("DELETE FROM grant_count WHERE appid = ");
        sql.bind(appid.as_str())
            .push(" AND tenant_id = ")
            .bind(self.tenant.uuid());
        let connection = self.store.write();
        connection.execute_raw(sql.on(connection)).await?;
        Ok(())
    }
}

impl PlatformStore {
    /// The apps with a stored count from before `before`, the oldest first.
    pub async fn old_counts(
        &self,
        before: DateTime<Utc>,
        limit: u32,
    ) -> Result<Vec<(TenantId, AppId)>, StoreError> {
        let mut sql = Sql::new("SELECT appid, tenant_id FROM grant_count WHERE as_of < ");
        sql.bind(millis(before))
            .push(" ORDER BY as_of LIMIT ")
            .bind(i64::from(limit));
        let connection = self.store.read();
        let rows = connection.query_all_raw(sql.on(connection)).await?;
        let apps = rows.iter().map(|row| {
            let appid: String = row.try_get("", "appid")?;
            let tenant: Uuid = row.try_get("", "tenant_id")?;
            let appid =
                AppId::parse(appid.as_str()).map_err(|_| unknown("grant_count.appid", &appid))?;
            Ok((tenant.into(), appid))
        });
        apps.collect()
    }
}
