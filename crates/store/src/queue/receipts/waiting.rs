//! Counts the receipts that wait for messages, and chooses the receipts to try next.
//!
//! A holder of an app's Token can invent receipts, so the cost of receipts is bounded: the number of waiting receipts
//! of one app has a limit, receipts wait for a shorter time the more of the limit is used, and a sweep serves the apps
//! in rotation.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Duration, Utc};
use sea_orm::FromQueryResult;

use super::{NewReceipt, WaitingRow};
use crate::{PlatformStore, StoreError, queue::sql::Sql, timestamp::millis};

/// The most receipts that one statement handles.
pub(super) const PIECE: usize = 512;
/// The most receipts of one app that may wait. Further receipts are not stored.
const ROOM: i64 = 10_000;
/// The most apps that one sweep visits.
const VISITS: i64 = 256;
/// The most apps from which one sweep takes receipts.
const SERVED: usize = 32;
/// The most receipts that one sweep takes.
const SWEEP: usize = 200;

/// How long a receipt waits for a message: longer than an answer of WeChat can wait for the record. Shorter in an app
/// that has used half of [`ROOM`], and shorter still in an app that has used three quarters.
const PATIENCE: Duration = Duration::hours(1);
const CROWDED: (i64, Duration) = (ROOM / 2, Duration::minutes(1));
const NEARLY_FULL: (i64, Duration) = (ROOM / 4 * 3, Duration::seconds(4));

/// The number of waiting receipts of each app, counted up to [`ROOM`].
#[derive(Debug, Default)]
pub(super) struct WaitingCounts(BTreeMap<String, i64>);

#[derive(FromQueryResult)]
struct Visit {
    appid: String,
    due: bool,
}

#[derive(FromQueryResult)]
struct WaitingCount {
    appid: String,
    waiting: i64,
}

/// The receipts that a sweep tries.
pub(super) struct DueReceipts {
    pub(super) rows: Vec<WaitingRow>,
    /// The app after which the next sweep continues. Empty: the next sweep starts at the first app.
    pub(super) after: String,
    /// Whether an app may have more due receipts.
    pub(super) more: bool,
}

impl WaitingCounts {
    /// Counts one more waiting receipt of the app. Returns false if the app has no room for the receipt.
    pub(super) fn take(&mut self, appid: &str) -> bool {
        let waiting = self.0.entry(appid.to_owned()).or_default();
        *waiting += 1;
        *waiting <= ROOM
    }

    /// How long a receipt of the app may wait.
    pub(super) fn patience(&self, appid: &str) -> Duration {
        let waiting = self.0.get(appid).copied().unwrap_or_default();
        let shortest = [NEARLY_FULL, CROWDED].into_iter();
        let mut shortest = shortest.filter(|(from, _)| waiting >= *from);
        shortest.next().map_or(PATIENCE, |(_, patience)| patience)
    }
}

impl PlatformStore {
    /// The number of waiting receipts of the apps in `receipts`.
    pub(super) async fn rooms<'a>(
        &self,
        receipts: impl Iterator<Item = &'a NewReceipt>,
    ) -> Result<WaitingCounts, StoreError> {
        let appids: BTreeSet<&str> = receipts.map(|receipt| receipt.appid.as_str()).collect();
        if appids.is_empty() {
            return Ok(WaitingCounts::default());
        }
        let mut sql = Sql::new("WITH v(a) AS (");
        sql.rows(appids.into_iter().map(|appid| [appid.into()]).collect::<Vec<_>>().into_iter())
            .push(") SELECT v.a AS appid, (SELECT COUNT(*) FROM (SELECT 1 AS one FROM receipt r WHERE r.appid = v.a LIMIT ")
            .bind(ROOM)
            .push(") AS counted) AS waiting FROM v");
        let connection = self.store.read();
        let rooms = WaitingCount::find_by_statement(sql.on(connection)).all(connection);
        let rooms = rooms
            .await?
            .into_iter()
            .map(|room| (room.appid, room.waiting));
        Ok(WaitingCounts(rooms.collect()))
    }

    /// The due receipts, of the apps after `after` in rotation.
    pub(super) async fn due_receipts(
        &self,
        after: &str,
        now: DateTime<Utc>,
    ) -> Result<DueReceipts, StoreError> {
        let visits = self.visit_waiting(after, now).await?;
        let seen = i64::try_from(visits.len()).unwrap_or(VISITS);
        let last = visits.last().map(|visit| visit.appid.clone());
        let mut open: Vec<String> = visits
            .into_iter()
            .filter(|visit| visit.due)
            .map(|visit| visit.appid)
            .collect();
        let after = if open.len() > SERVED {
            open.truncate(SERVED);
            open[SERVED - 1].clone()
        } else if seen >= VISITS {
            last.unwrap_or_default()
        } else {
            String::new()
        };
        if open.is_empty() {
            return Ok(DueReceipts {
                rows: Vec::new(),
                after,
                more: false,
            });
        }
        let share = SWEEP / open.len();
        let mut sql = Sql::default();
        for (number, appid) in open.iter().enumerate() {
            sql.push(if number > 0 { " UNION ALL " } else { "" });
            sql.push("SELECT * FROM (SELECT COALESCE(tenant_id, (SELECT app.tenant_id FROM app WHERE app.appid = receipt.appid)) AS tenant_id, appid, touser, msgid, status, failure_detail, received_at, channel, template_id, happened_at FROM receipt WHERE appid = ")
                .bind(appid.as_str())
                .push(" AND look_at <= ")
                .bind(millis(now))
                .push(" ORDER BY look_at LIMIT ")
                .bind(i64::try_from(share).unwrap_or(i64::MAX))
                .push(&format!(") AS app{number}"));
        }
        let connection = self.store.read();
        let rows = WaitingRow::find_by_statement(sql.on(connection));
        let rows = rows.all(connection).await?;
        let of = |appid: &String| rows.iter().filter(|row| row.appid == *appid).count();
        let more = open.iter().any(|appid| of(appid) >= share);
        Ok(DueReceipts { rows, after, more })
    }

    /// Visits the apps with waiting receipts in rotation, by hops over the index.
    async fn visit_waiting(
        &self,
        after: &str,
        now: DateTime<Utc>,
    ) -> Result<Vec<Visit>, StoreError> {
        let next = "(SELECT r.appid FROM receipt r WHERE r.appid > ";
        let first = " ORDER BY r.appid LIMIT 1)";
        let mut sql = Sql::new("WITH RECURSIVE active(appid, n) AS (SELECT ");
        sql.push(next).bind(after).push(first);
        sql.push(", 1 UNION ALL SELECT ")
            .push(next)
            .push("active.appid")
            .push(first)
            .push(", n + 1 FROM active WHERE active.appid IS NOT NULL AND n < ")
            .bind(VISITS)
            .push(") SELECT active.appid, (SELECT r.look_at FROM receipt r WHERE r.appid = active.appid AND r.look_at <= ")
            .bind(millis(now))
            .push(" ORDER BY r.look_at LIMIT 1) IS NOT NULL AS due FROM active WHERE active.appid IS NOT NULL ORDER BY active.appid");
        let connection = self.store.read();
        let visits = Visit::find_by_statement(sql.on(connection));
        Ok(visits.all(connection).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fuller_a_room_the_shorter_a_receipt_waits() {
        let mut rooms = WaitingCounts::default();
        let waits = [(4_999, PATIENCE), (1, CROWDED.1), (2_500, NEARLY_FULL.1)];
        for (more, patience) in waits {
            assert!((0..more).all(|_| rooms.take("wx1")));
            assert_eq!(rooms.patience("wx1"), patience);
        }
        assert!((0..2_500).all(|_| rooms.take("wx1")));
        assert!(!rooms.take("wx1") && rooms.take("wx2"));
        assert_eq!(rooms.patience("wx2"), PATIENCE);
    }
}
