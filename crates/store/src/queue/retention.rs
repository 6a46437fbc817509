//! Retention: deletes old data, one bounded batch at a time.

use chrono::{DateTime, Utc};
use domain::{id, message::Content};
use sea_orm::{ConnectionTrait, DbBackend, FromQueryResult};
use uuid::Uuid;

use super::{
    ENDED,
    sql::Sql,
    sweep::{BATCH, Swept},
};
use crate::{
    PlatformStore, StoreError,
    messages::{json, to_json},
    timestamp::millis,
};

/// The result of one call of [`PlatformStore::drop_payloads`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// The number of messages from which the call has removed the payload.
    pub messages: usize,
    /// The message after which the next call continues. `None` if no further message is old enough.
    pub cursor: Option<Uuid>,
}

#[derive(FromQueryResult)]
struct Payload {
    id: Uuid,
    phase: i64,
    content: String,
    updated_at: i64,
    is_empty: bool,
}

impl PlatformStore {
    /// Deletes messages that were accepted and have ended before `before`.
    pub async fn forget_messages(&self, before: DateTime<Utc>) -> Result<Swept, StoreError> {
        let mut sql = Sql::new(&format!(
            "DELETE FROM message WHERE id IN (SELECT id FROM message WHERE phase = {ENDED} AND id < "
        ));
        sql.bind(id::lower_bound(before))
            .push(" AND updated_at < ")
            .bind(millis(before))
            .push(" ORDER BY id LIMIT ")
            .bind(BATCH);
        if self.store.write().get_database_backend() == DbBackend::Postgres {
            sql.push(" FOR UPDATE SKIP LOCKED");
        }
        sql.push(")");
        let connection = self.store.write();
        let result = connection.execute_raw(sql.on(connection)).await?;
        Ok(Swept::of(result.rows_affected()))
    }

    /// Removes the values and the metadata of messages that were accepted and have ended before `before`. Examines one
    /// batch of messages after `cursor`, the oldest first.
    pub async fn drop_payloads(
        &self,
        cursor: Uuid,
        before: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<Dropped, StoreError> {
        let mut sql = Sql::new(
            "SELECT id, phase, content, updated_at, payload_dropped_at IS NOT NULL AS is_empty FROM message WHERE id > ",
        );
        sql.bind(cursor)
            .push(" AND id < ")
            .bind(id::lower_bound(before))
            .push(" ORDER BY id LIMIT ")
            .bind(BATCH);
        let rows = Payload::find_by_statement(sql.on(self.store.read()))
            .all(self.store.read())
            .await?;
        let cursor = rows.last().map(|row| row.id);
        let empty = rows
            .iter()
            .filter(|row| {
                let is_over = row.phase == ENDED && row.updated_at < millis(before);
                is_over && !row.is_empty
            })
            .map(|row| {
                let content: Content = json(&row.content, "message.content")?;
                let content = to_json(&content.without_content(), "message.content")?;
                Ok([row.id.into(), content.into()])
            })
            .collect::<Result<Vec<_>, StoreError>>()?;
        let messages = empty.len();
        if !empty.is_empty() {
            let mut sql = Sql::new("WITH v(message_id, emptied) AS (");
            sql.rows(empty.into_iter());
            sql.push(
                ") UPDATE message SET content = v.emptied, metadata = NULL, payload_dropped_at = ",
            )
            .bind(millis(now))
            .push(&format!(
                " FROM v WHERE id = v.message_id AND phase = {ENDED}"
            ));
            let connection = self.store.write();
            connection.execute_raw(sql.on(connection)).await?;
        }
        Ok(Dropped { messages, cursor })
    }

    /// Deletes lines of the audit log that were written before `before`, the oldest first. The ids sort by time, so the
    /// primary key finds the lines.
    pub async fn forget_audit(&self, before: DateTime<Utc>) -> Result<Swept, StoreError> {
        let mut sql = Sql::new("DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE id < ");
        sql.bind(id::lower_bound(before))
            .push(" ORDER BY id LIMIT ")
            .bind(BATCH);
        if self.store.write().get_database_backend() == DbBackend::Postgres {
            // Several replicas delete at the same time.
            sql.push(" FOR UPDATE SKIP LOCKED");
        }
        sql.push(")");
        let connection = self.store.write();
        let result = connection.execute_raw(sql.on(connection)).await?;
        Ok(Swept::of(result.rows_affected()))
    }

    /// Deletes expired idempotency keys.
    pub async fn forget_idempotency_keys(&self, now: DateTime<Utc>) -> Result<Swept, StoreError> {
        let mut sql = Sql::new(
            "DELETE FROM idempotency WHERE (tenant_id, key) IN (SELECT tenant_id, key FROM idempotency WHERE expires_at < ",
        );
        sql.bind(millis(now)).push(" LIMIT ").bind(BATCH);
        let connection = self.store.write();
        if connection.get_database_backend() == DbBackend::Postgres {
            // Requests take over expired keys in a different lock order.
            sql.push(" FOR UPDATE SKIP LOCKED");
        }
        sql.push(")");
        let result = connection.execute_raw(sql.on(connection)).await?;
        Ok(Swept::of(result.rows_affected()))
    }
}
