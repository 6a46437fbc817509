//! The heartbeat: a write that says whether the database takes writes, and since when.
//!
//! `SELECT 1` is answered by a standby, by a database that is read-only and by one whose disk is full. The heartbeat is
//! answered where messages can be accepted, sent and recorded. All replicas write the same row, by the database's own
//! clock, so that each knows of an outage that any of them may have slept through.

use std::time::{Duration, Instant};

use sea_orm::{ConnectionTrait, DbBackend, Statement};

use crate::{Store, StoreError};

/// A pause between two beats that is longer than this is a gap. Every running replica beats about once a second.
const GAP: Duration = Duration::from_secs(3);

/// What a beat found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// For how long the database has taken writes without a gap, as far as any replica knows.
    pub steady_for: Duration,
}

/// `message` is in it because that table may be locked, or closed to the gateway's user, while others are not. It finds
/// no row, so it changes nothing. `clock_timestamp()` and not `now()`: the beat may have waited for that of another replica.
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

/// SQLite has one lock for all tables.
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
        let backend = self.write.get_database_backend();
        let sql = if backend == DbBackend::Postgres {
            POSTGRES
        } else {
            SQLITE
        };
        let gap = i64::try_from(GAP.as_millis()).unwrap_or(i64::MAX);
        let beat = Statement::from_sql_and_values(backend, sql, [gap.into()]);
        let row = self.write.query_one_raw(beat).await?;
        let row = row.ok_or_else(|| StoreError::Broken("the heartbeat has no row".to_owned()))?;
        let steady_for: i64 = row.try_get("", "steady_for")?;
        Ok(Heartbeat {
            steady_for: Duration::from_millis(u64::try_from(steady_for).unwrap_or_default()),
        })
    }

    /// Whether a statement has failed since then: what was known of the database may not be so any more.
    pub fn has_failed_since(&self, moment: Instant) -> bool {
        self.doubt.raised_at().is_some_and(|at| at > moment)
    }
}
