//! Pauses: the consequences of the answer to one message for the whole app.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use domain::app::AppId;
use sea_orm::{ConnectionTrait, DbBackend};

use super::{
    QUOTA_EXHAUSTED,
    events::tell_pause,
    meter::{SLOWEST, minute_number},
    sql::Sql,
};
use crate::{StoreError, timestamp::millis};

/// The pause reason of a lane after WeChat's answer that the limit of a minute is used up.
pub const THROTTLED: &str = "throttled";

/// News about an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LaneChange {
    /// The app must not send for a while.
    Pause(LanePause),
    /// The probe was answered: the reason of the pause is gone.
    Open(AppId),
    /// The probe had no result: the pause continues until the given time, for the same reason.
    StillPaused(AppId, DateTime<Utc>),
}

/// A pause of an app until a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LanePause {
    /// The app.
    pub appid: AppId,
    /// The end of the pause.
    pub until: DateTime<Utc>,
    /// The reason, in one word.
    pub reason: String,
    /// The reason in WeChat's words, and what to do.
    pub detail: String,
    /// The number of sends that WeChat refused for this reason. With [`THROTTLED`]: the refused sends of this minute.
    pub refused: u32,
    /// Whether the answer to the app's probe causes the pause. Such a pause replaces any present pause.
    pub by_probe: bool,
}

impl LaneChange {
    /// The app of the news.
    pub fn appid(&self) -> &AppId {
        match self {
            Self::Pause(pause) => &pause.appid,
            Self::Open(appid) | Self::StillPaused(appid, _) => appid,
        }
    }
}

/// Writes the news into the app's lane.
pub(super) async fn tell(
    tx: &impl ConnectionTrait,
    news: &LaneChange,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    match news {
        LaneChange::Pause(pause) => {
            if pause.reason == THROTTLED {
                slow_down(tx, pause, now).await?;
            }
            tell_pause(tx, pause, now).await?;
            rest(tx, pause).await
        }
        LaneChange::Open(appid) => {
            let mut sql = Sql::new(
                "UPDATE lane SET paused_until = NULL, pause_reason = NULL, pause_detail = NULL WHERE appid = ",
            );
            sql.bind(appid.as_str());
            tx.execute_raw(sql.on(tx)).await?;
            Ok(())
        }
        LaneChange::StillPaused(appid, until) => {
            let mut sql = Sql::new("UPDATE lane SET paused_until = ");
            sql.bind(millis(*until))
                .push(" WHERE pause_reason IS NOT NULL AND appid = ")
                .bind(appid.as_str());
            tx.execute_raw(sql.on(tx)).await?;
            Ok(())
        }
    }
}

async fn rest(tx: &impl ConnectionTrait, pause: &LanePause) -> Result<(), StoreError> {
    let mut sql = Sql::new("UPDATE lane SET paused_until = ");
    sql.bind(millis(pause.until))
        .push(", pause_reason = ")
        .bind(pause.reason.as_str())
        .push(", pause_detail = ")
        .bind(pause.detail.as_str())
        .push(" WHERE appid = ")
        .bind(pause.appid.as_str());
    if !pause.by_probe {
        // A longer pause that exists already stays.
        sql.push(" AND (paused_until IS NULL OR paused_until < ")
            .bind(millis(pause.until))
            .push(")");
    }
    tx.execute_raw(sql.on(tx)).await?;
    Ok(())
}

/// Sets the pace to nine tenths of the messages that were sent in the minute and not refused, but not below
/// [`SLOWEST`].
async fn slow_down(
    tx: &impl ConnectionTrait,
    pause: &LanePause,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let refused = i64::from(pause.refused);
    let mut sql = Sql::new("UPDATE lane SET minute_used = CASE WHEN minute_used > ");
    sql.bind(refused).push(" THEN minute_used - ").bind(refused);
    sql.push(" ELSE 0 END, minute_limit = CASE WHEN (minute_used - ")
        .bind(refused)
        .push(") * 9 / 10 > ")
        .bind(SLOWEST)
        .push(" THEN (minute_used - ")
        .bind(refused)
        .push(") * 9 / 10 ELSE ")
        .bind(SLOWEST)
        .push(" END WHERE appid = ")
        .bind(pause.appid.as_str());
    // The answer to a send at the end of a minute may come in the next minute.
    sql.push(" AND minute >= ").bind(minute_number(now) - 1);
    tx.execute_raw(sql.on(tx)).await?;
    Ok(())
}

/// Locks the lanes of these apps until the end of the transaction. All transactions lock lanes before messages, and
/// lanes in the order of the appids. SQLite has one writer at a time and needs no lock.
pub(super) async fn hold<'a>(
    tx: &impl ConnectionTrait,
    appids: impl Iterator<Item = &'a AppId>,
) -> Result<(), StoreError> {
    let appids: BTreeSet<&str> = appids.map(AppId::as_str).collect();
    if appids.is_empty() || tx.get_database_backend() != DbBackend::Postgres {
        return Ok(());
    }
    let mut sql = Sql::new("SELECT appid FROM lane WHERE appid");
    sql.one_of(&appids.into_iter().collect::<Vec<_>>())
        .push(" ORDER BY appid FOR UPDATE");
    tx.query_all_raw(sql.on(tx)).await?;
    Ok(())
}

/// Gives quota back. Ends the pause of a lane that had used up the daily quota.
pub(super) async fn refund(
    tx: &impl ConnectionTrait,
    appid: &str,
    day: i64,
    count: i64,
) -> Result<(), StoreError> {
    let mut sql = Sql::new("UPDATE lane SET quota_used = CASE WHEN quota_used < ");
    sql.bind(count)
        .push(" THEN 0 ELSE quota_used - ")
        .bind(count)
        .push(" END");
    for (column, kept) in [
        ("paused_until", "paused_until"),
        ("pause_reason", "pause_reason"),
        ("pause_detail", "pause_detail"),
    ] {
        sql.push(&format!(", {column} = CASE WHEN pause_reason = "))
            .bind(QUOTA_EXHAUSTED)
            .push(&format!(
                " AND pause_detail IS NULL THEN NULL ELSE {kept} END"
            ));
    }
    sql.push(" WHERE appid = ")
        .bind(appid)
        .push(" AND quota_day = ")
        .bind(day);
    tx.execute_raw(sql.on(tx)).await?;
    Ok(())
}
