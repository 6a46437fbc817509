//! The heartbeat: a write that shows whether the database takes writes, and since when.
//!
//! A standby, a read-only database and a database with a full disk answer `SELECT 1`. The heartbeat succeeds only where
//! messages can be accepted, sent and recorded. All replicas write the same row by the database's own clock, so each
//! replica learns of an outage that the replica may have slept through.

use std::time::{Duration, Instant};

use sea_orm::{ConnectionTrait, DbBackend, Statement};

use crate::{Store, StoreError};

/// A longer pause between two heartbeats is a gap. Every running replica writes about one heartbeat a second.
const GAP: Duration = Duration::from_secs(3);

/// The result of a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// For how long the database has taken writes without a gap, by the heartbeats of all replicas.
    pub steady_for: Duration,
}

/// The statement updates `message` too, because that table may be locked, or closed to the gateway's user, while others
/// are not. That update matches no row and changes nothing. The time is `clock_timestamp()` and not `now()`, because the
/// statement may have waited for the heartbeat of another replica.
const POSTGRES: &str = "
WITH usable AS (
    UPDATE message SET followed = followed WHERE id = '00000000-0000-0000-0000-000000000000' RETURNING 1
)
INSERT INTO heartbeat AS known (id, beat_at, steady_since)
SELECT 1, at, at FROM (SELECT (EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::BIGINT AS at) AS beat
ON CONFLICT (id) DO UPDATE SET
    beat_at = excluded.beat_at,
    steady_since = CASE
        WHEN excluded.beat_at - known.beat_at BETWEEN -$1 AND $1 THEN known.steady_since
        ELSE excluded.beat_at
    END
RETURNING known.beat_at - known.steady_since AS steady_for";

/// This statement needs no update of `message`: SQLite has one lock for all tables.
const SQLITE: &str = "
INSERT INTO heartbeat AS known (id, beat_at, steady_since)
SELECT 1, at, at FROM (SELECT CAST(unixepoch('now', 'subsec') * 1000 AS INTEGER) AS at) AS beat WHERE TRUE
ON CONFLICT (id) DO UPDATE SET
    beat_at = excluded.beat_at,
    steady_since = CASE
        WHEN excluded.beat_at - known.beat_at BETWEEN -$1 AND $1 THEN known.steady_since
        ELSE excluded.beat_at
    END
RETURNING beat_at - steady_since AS steady_for";

impl Store {
    /// Writes the heartbeat.
    pub async fn beat(&self) -> Result<Heartbeat, StoreError> {
        let backend = self.write().get_database_backend();
        let sql = if backend == DbBackend::Postgres {
            POSTGRES
        } else {
            SQLITE
        };
        let gap = i64::try_from(GAP.as_millis()).unwrap_or(i64::MAX);
        let beat = Statement::from_sql_and_values(backend, sql, [gap.into()]);
        // SQLite commits when the statement has returned its last row. `query_one_raw` stops after the first row and
        // loses the error of the commit, as on a full disk.
        let rows = self.write().query_all_raw(beat).await?;
        let row = rows
            .first()
            .ok_or_else(|| StoreError::Broken("the heartbeat has no row".to_owned()))?;
        let steady_for: i64 = row.try_get("", "steady_for")?;
        Ok(Heartbeat {
            steady_for: Duration::from_millis(u64::try_from(steady_for).unwrap_or_default()),
        })
    }

    /// Whether a statement has failed since `moment`, so that earlier knowledge about the database may be out of date.
    pub fn has_failed_since(&self, moment: Instant) -> bool {
        self.doubt.raised_at().is_some_and(|at| at > moment)
    }
}
