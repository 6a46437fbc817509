//! Pauses: what the answer to one message means for all of its app.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use domain::app::AppId;
use sea_orm::{ConnectionTrait, DbBackend};

use super::{
    QUOTA_EXHAUSTED,
    meter::{SLOWEST, minute_number},
    sql::Sql,
    tell::tell_pause,
};
use crate::{StoreError, millis};

/// Why a lane rests to which WeChat said that a minute's limit is spent.
pub const THROTTLED: &str = "throttled";

/// What was learnt about an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LaneNews {
    /// It must not send for a while.
    Pause(LanePause),
    /// The probe was answered: the reason of its pause is over.
    Open(AppId),
    /// The probe came to nothing: the pause goes on until the given time, for the same reason.
    StillPaused(AppId, DateTime<Utc>),
}

/// An app that must not send until a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LanePause {
    /// Which app.
    pub appid: AppId,
    /// Until when.
    pub until: DateTime<Utc>,
    /// Why, in one word.
    pub reason: String,
    /// Why, in WeChat's words and what to do.
    pub detail: String,
    /// How many sends WeChat refused for it: with [`THROTTLED`], those of this minute that were too many.
    pub refused: u32,
    /// Whether the app's probe says so: then it counts whatever pause there is.
    pub by_probe: bool,
}

impl LaneNews {
    /// Which app it is about.
    pub fn appid(&self) -> &AppId {
        match self {
            Self::Pause(pause) => &pause.appid,
            Self::Open(appid) | Self::StillPaused(appid, _) => appid,
        }
    }
}

/// Writes it into the app's lane.
pub(super) async fn tell(
    tx: &impl ConnectionTrait,
    news: &LaneNews,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    match news {
        LaneNews::Pause(pause) => {
            if pause.reason == THROTTLED {
                slow_down(tx, pause, now).await?;
            }
            tell_pause(tx, pause, now).await?;
            rest(tx, pause).await
        }
        LaneNews::Open(appid) => {
            let mut sql = Sql::new(
                "UPDATE lane SET paused_until = NULL, pause_reason = NULL, pause_detail = NULL WHERE appid = ",
            );
            sql.bind(appid.as_str());
            tx.execute_raw(sql.on(tx)).await?;
            Ok(())
        }
        LaneNews::StillPaused(appid, until) => {
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
        // A longer one that is there already stays.
        sql.push(" AND (paused_until IS NULL OR paused_until < ")
            .bind(millis(pause.until))
            .push(")");
    }
    tx.execute_raw(sql.on(tx)).await?;
    Ok(())
}

/// Learns the limit of a minute: what was sent in it and not refused, less a tenth; not under [`SLOWEST`].
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
    // The answer to a send at the end of a minute comes in the next.
    sql.push(" AND minute >= ").bind(minute_number(now) - 1);
    tx.execute_raw(sql.on(tx)).await?;
    Ok(())
}

/// Holds the lanes of these apps until the end of the transaction: lanes before messages, and in the order of their
/// appids, as everybody locks them. Nobody else writes beside a transaction of SQLite's.
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

/// Gives quota back. A lane that rested because it was spent goes on.
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
