//! Changes of the queue that time causes. Each call handles one bounded batch; the caller repeats the call while
//! batches are full.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use domain::id::MessageId;
use sea_orm::{ConnectionTrait, DbBackend, FromQueryResult};

use super::{
    BEHIND, IN_FLIGHT, READY, WAITING,
    choice::Recipient,
    claimed::{CLAIMED_COLUMNS, ClaimedMessage, ClaimedRow, readable},
    events::{Settled, end_with_events},
    grants,
    meter::day_number,
    pause::refund,
    record::release_behind,
    sql::{Sql, still},
    unsent::Unsent,
};
use crate::{
    PlatformStore, StoreError,
    timestamp::{millis, time},
};

/// The most messages that one call moves.
pub(super) const BATCH: i64 = 500;

/// The result of one call of a sweep.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// The number of rows that the call moved.
    pub moved: u64,
    /// Whether there may be more rows to move at once.
    pub more: bool,
}

impl Swept {
    pub(super) fn of(moved: u64) -> Self {
        Self {
            moved,
            more: moved >= BATCH.unsigned_abs(),
        }
    }
}

impl PlatformStore {
    /// Makes waiting messages ready that are due.
    pub async fn promote(&self, now: DateTime<Utc>) -> Result<Swept, StoreError> {
        let mut sql = Sql::new("UPDATE message SET status = 'queued', ");
        sql.touch(now).push(", phase = ").push(&READY.to_string());
        sql.push(" WHERE ")
            .push(&still(WAITING))
            .push(" AND id IN (SELECT id FROM message WHERE phase = ");
        sql.push(&WAITING.to_string())
            .push(" AND due_at <= ")
            .bind(millis(now));
        sql.push(" ORDER BY due_at LIMIT ").bind(BATCH);
        if self.store.write().get_database_backend() == DbBackend::Postgres {
            sql.push(" FOR UPDATE SKIP LOCKED");
        }
        sql.push(")");
        let result = self
            .store
            .write()
            .execute_raw(sql.on(self.store.write()))
            .await?;
        Ok(Swept::of(result.rows_affected()))
    }

    /// The due time of the next waiting message.
    pub async fn next_due(&self) -> Result<Option<DateTime<Utc>>, StoreError> {
        let mut sql = Sql::new("SELECT MIN(due_at) AS due_at FROM message WHERE phase = ");
        sql.push(&WAITING.to_string());
        let row = self
            .store
            .read()
            .query_one_raw(sql.on(self.store.read()))
            .await?;
        let due_at = row
            .map(|row| row.try_get::<Option<i64>>("", "due_at"))
            .transpose()?
            .flatten();
        Ok(due_at.map(time))
    }

    /// Ends messages with a ttl that ran out before the send. Returns these messages.
    pub async fn expire(&self, now: DateTime<Utc>) -> Result<Vec<Settled>, StoreError> {
        let tx = self.store.begin_batch().await?;
        let mut sql = Sql::new(&Unsent::Lapsed.update());
        sql.touch(now)
            .push(&format!(" WHERE phase + 0 < {IN_FLIGHT} AND id IN (SELECT id FROM message WHERE phase < {IN_FLIGHT} AND expires_at <= "))
            .bind(millis(now))
            .push(" ORDER BY expires_at LIMIT ")
            .bind(BATCH);
        if tx.get_database_backend() == DbBackend::Postgres {
            sql.push(" FOR UPDATE SKIP LOCKED");
        }
        sql.push(")");
        let ended = end_with_events(&tx, sql, now).await?;
        tx.commit().await?;
        Ok(ended)
    }

    /// Messages in flight with a lease that has ended without a record, because the worker is gone.
    pub async fn overdue(&self, now: DateTime<Utc>) -> Result<Vec<ClaimedMessage>, StoreError> {
        let mut sql = Sql::new(&format!(
            "SELECT {CLAIMED_COLUMNS} FROM message WHERE phase = {IN_FLIGHT} AND lease_until <= "
        ));
        sql.bind(millis(now)).push(" LIMIT ").bind(BATCH);
        let rows = ClaimedRow::find_by_statement(sql.on(self.store.read()))
            .all(self.store.read())
            .await?;
        let mut flights = readable(rows);
        grants::load_held(self.store.read(), &mut flights).await?;
        Ok(flights)
    }

    /// Extends the lease of a message in flight: the outcome is known, but the database does not take the record yet.
    pub async fn extend_lease(
        &self,
        id: MessageId,
        lease: i64,
        until: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let mut sql = Sql::new("UPDATE message SET lease_until = ");
        sql.bind(millis(until))
            .push(" WHERE ")
            .push(&still(IN_FLIGHT))
            .push(" AND id = ")
            .bind(id.uuid())
            .push(" AND lease = ")
            .bind(lease);
        let connection = self.store.write();
        connection.execute_raw(sql.on(connection)).await?;
        Ok(())
    }

    /// Takes back a claim, if the worker never got the claimed messages because the answer to the commit was lost. The
    /// messages are ready again, and the quota is given back. Only that worker knows that none of these messages was
    /// sent.
    pub async fn undo_claim(&self, lease: i64, now: DateTime<Utc>) -> Result<(), StoreError> {
        let tx = self.store.begin_batch().await?;
        let mut sql = Sql::new("SELECT appid, updated_at FROM message WHERE phase = ");
        sql.push(&IN_FLIGHT.to_string())
            .push(" AND lease = ")
            .bind(lease);
        let mut charged: BTreeMap<String, (i64, i64)> = BTreeMap::new();
        for row in tx.query_all_raw(sql.on(&tx)).await? {
            let claimed_at: i64 = row.try_get("", "updated_at")?;
            let (_, count) = charged
                .entry(row.try_get("", "appid")?)
                .or_insert((day_number(time(claimed_at)), 0));
            *count += 1;
        }
        // Lanes before messages, and lanes in the order of the appids: all transactions lock in this order.
        for (appid, (day, count)) in &charged {
            refund(&tx, appid, *day, *count).await?;
        }
        grants::undo(&tx, lease).await?;
        let mut sql = Sql::new("UPDATE message SET status = 'queued', phase = ");
        sql.push(&READY.to_string())
            .push(", attempt_count = attempt_count - 1, lease = NULL, lease_until = NULL, ")
            .touch(now)
            .push(" WHERE phase = ")
            .push(&IN_FLIGHT.to_string())
            .push(" AND lease = ")
            .bind(lease);
        tx.execute_raw(sql.on(&tx)).await?;
        tx.commit().await
    }

    /// Releases messages that are behind although no message to the same recipient is in flight, one for each
    /// recipient.
    ///
    /// The statement that ends a ready message or a message in flight also releases the next message behind. This
    /// function covers the remaining cases: the released message expired or was canceled, or the release after a record
    /// failed.
    pub async fn release_stranded(&self, now: DateTime<Utc>) -> Result<Swept, StoreError> {
        let mut sql = Sql::new(&format!(
            "SELECT DISTINCT m.appid, m.touser FROM message m WHERE m.phase = {BEHIND} AND NOT EXISTS \
             (SELECT 1 FROM message f WHERE f.phase = {IN_FLIGHT} AND f.appid = m.appid AND f.touser = m.touser) LIMIT "
        ));
        sql.bind(BATCH);
        let rows = self
            .store
            .read()
            .query_all_raw(sql.on(self.store.read()))
            .await?;
        let people = rows
            .iter()
            .map(|row| Ok((row.try_get("", "appid")?, row.try_get("", "touser")?)))
            .collect::<Result<Vec<Recipient>, StoreError>>()?;
        if !people.is_empty() {
            let tx = self.store.begin_batch().await?;
            release_behind(&tx, &people, now).await?;
            tx.commit().await?;
        }
        Ok(Swept::of(people.len() as u64))
    }
}
