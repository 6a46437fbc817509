//! Lanes: the sending state of an app, and the functions by which the tenant reads and repairs this state.
//!
//! WeChat counts the messages of a day by appid. The removal of an app closes the lane and keeps the counts. Whichever
//! tenant registers the appid again continues with these counts. The janitor deletes the lanes of removed apps when the
//! day of the counts is over.

use chrono::{DateTime, Utc};
use domain::app::AppId;
use sea_orm::{
    ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QuerySelect,
    sea_query::{Expr, SimpleExpr},
};

use super::{
    QUOTA_EXHAUSTED,
    meter::day_number,
    sql::Sql,
    sweep::{BATCH, Swept},
};
use crate::{
    PlatformStore, StoreError, TenantStore,
    entity::{app, lane},
};

/// The use of an app's daily quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaUse {
    /// The number of messages that the app may send in a Beijing day.
    pub limit: u64,
    /// The number of sends counted today.
    pub used: u64,
}

/// Opens the lane of a new app. WeChat counts by appid, so the lane of a removed app keeps the count of the day.
pub(crate) async fn open_lane(
    connection: &impl ConnectionTrait,
    appid: &AppId,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let mut sql =
        Sql::new("INSERT INTO lane (appid, quota_day, quota_used, minute, minute_used) VALUES (");
    sql.bind(appid.as_str())
        .push(", ")
        .bind(day_number(now))
        .push(
            ", 0, 0, 0) ON CONFLICT (appid) DO UPDATE SET quota_day = excluded.quota_day, \
             quota_used = CASE WHEN lane.quota_day = excluded.quota_day THEN lane.quota_used ELSE 0 END",
        );
    connection.execute_raw(sql.on(connection)).await?;
    Ok(())
}

/// Closes the lane of a removed app: clears the pause and keeps the counts. Waits for a claim that holds the lane.
pub(crate) async fn close_lane(
    connection: &impl ConnectionTrait,
    appid: &AppId,
) -> Result<(), StoreError> {
    let mut sql = Sql::new(
        "UPDATE lane SET paused_until = NULL, pause_reason = NULL, pause_detail = NULL WHERE appid = ",
    );
    sql.bind(appid.as_str());
    connection.execute_raw(sql.on(connection)).await?;
    Ok(())
}

impl PlatformStore {
    /// Deletes the lanes of removed apps with counts of past days.
    pub async fn forget_lanes(&self, now: DateTime<Utc>) -> Result<Swept, StoreError> {
        // Not the lanes of yesterday: an app that was added just before midnight may be in a transaction without a
        // commit yet.
        let kept_from = day_number(now) - 1;
        let mut sql = Sql::new("DELETE FROM lane WHERE quota_day < ");
        // The condition also stands on the row itself: a lane that an app takes over meanwhile has today's number.
        sql.bind(kept_from)
            .push(" AND appid IN (SELECT l.appid FROM lane l WHERE l.quota_day < ")
            .bind(kept_from)
            .push(" AND NOT EXISTS (SELECT 1 FROM app WHERE app.appid = l.appid) LIMIT ")
            .bind(BATCH)
            .push(")");
        let connection = self.store.write();
        let result = connection.execute_raw(sql.on(connection)).await?;
        Ok(Swept::of(result.rows_affected()))
    }

    /// Adopts WeChat's count of an app's day: at most `remain` sends are left of the day.
    pub async fn cap_quota(
        &self,
        appid: &AppId,
        remain: u64,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let (today, remain) = (day_number(now), i64::try_from(remain).unwrap_or(i64::MAX));
        let mut sql = Sql::new("UPDATE lane SET quota_day = ");
        sql.bind(today)
            .push(", quota_used = app.daily_quota - ")
            .bind(remain)
            .push(" FROM app WHERE app.appid = lane.appid AND lane.appid = ")
            .bind(appid.as_str())
            .push(" AND app.daily_quota - CASE WHEN lane.quota_day = ")
            .bind(today)
            .push(" THEN lane.quota_used ELSE 0 END > ")
            .bind(remain);
        let connection = self.store.write();
        connection.execute_raw(sql.on(connection)).await?;
        Ok(())
    }
}

impl TenantStore {
    /// The tenant's use of the app's daily quota today.
    pub async fn quota_use(
        &self,
        appid: &AppId,
        now: DateTime<Utc>,
    ) -> Result<QuotaUse, StoreError> {
        let app = self.app(appid).await?;
        let lane = lane::Entity::find_by_id(appid.as_str())
            .one(self.store.read())
            .await?;
        let used = lane
            .filter(|lane| lane.quota_day == day_number(now))
            .map_or(0, |lane| lane.quota_used.unsigned_abs());
        Ok(QuotaUse {
            limit: app.daily_quota,
            used,
        })
    }

    /// Ends the pause of the tenant's app after a repair. A pause for a spent daily quota stays.
    pub async fn resume_lane(&self, appid: &AppId) -> Result<(), StoreError> {
        self.clear_pause(appid, lane::Column::PauseReason.ne(QUOTA_EXHAUSTED))
            .await
    }

    /// Ends the pause of the tenant's app for a spent daily quota, after a change of the quota.
    pub async fn reopen_quota(&self, appid: &AppId) -> Result<(), StoreError> {
        self.clear_pause(appid, lane::Column::PauseReason.eq(QUOTA_EXHAUSTED))
            .await
    }

    async fn clear_pause(&self, appid: &AppId, why: SimpleExpr) -> Result<(), StoreError> {
        let tx = self.store.begin_batch().await?;
        let owned = app::Entity::find()
            .filter(app::Column::TenantId.eq(self.tenant.uuid()))
            .filter(app::Column::Appid.eq(appid.as_str()));
        if owned.one(&tx).await?.is_none() {
            return Err(StoreError::NotFound("app"));
        }
        // Waits for a claim that holds the lane: that claim may be about to write a pause, which must be cleared here.
        lane::Entity::find_by_id(appid.as_str())
            .lock_exclusive()
            .one(&tx)
            .await?;
        lane::Entity::update_many()
            .col_expr(lane::Column::PausedUntil, Expr::value(None::<i64>))
            .col_expr(lane::Column::PauseReason, Expr::value(None::<String>))
            .col_expr(lane::Column::PauseDetail, Expr::value(None::<String>))
            .filter(lane::Column::Appid.eq(appid.as_str()))
            .filter(why)
            .exec(&tx)
            .await?;
        tx.commit().await
    }
}
