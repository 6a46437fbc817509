//! The rights of the database user, for `wxgate doctor`, which must check the rights without a write to any table.

use sea_orm::{ConnectionTrait, DbBackend, Statement};

use crate::{Engine, Store, StoreError};

/// The rights that a gateway needs and the user lacks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// Whether the user may create tables, as migrations do.
    pub may_create: bool,
    /// Whether the session is read-only.
    pub is_read_only: bool,
    /// The gateway's tables that the user may not read and write.
    pub closed: Vec<String>,
}

const LOOK: &str = "
SELECT
    COALESCE(has_schema_privilege(current_schema(), 'CREATE'), FALSE) AS may_create,
    current_setting('transaction_read_only') = 'on' AS is_read_only,
    COALESCE((
        SELECT string_agg(tablename, ', ' ORDER BY tablename)
        FROM pg_tables
        WHERE schemaname = current_schema()
            AND NOT (
                has_table_privilege(format('%I.%I', schemaname, tablename), 'SELECT')
                AND has_table_privilege(format('%I.%I', schemaname, tablename), 'INSERT')
                AND has_table_privilege(format('%I.%I', schemaname, tablename), 'UPDATE')
                AND has_table_privilege(format('%I.%I', schemaname, tablename), 'DELETE')
            )
    ), '') AS closed";

impl Store {
    /// The rights of the user, or `None` for SQLite: a file has no users.
    pub async fn rights(&self) -> Result<Option<Rights>, StoreError> {
        if self.engine() == Engine::Sqlite {
            return Ok(None);
        }
        let look = Statement::from_string(DbBackend::Postgres, LOOK);
        let row = self.write().query_one_raw(look).await?;
        let row = row.ok_or_else(|| StoreError::Broken("the rights have no row".to_owned()))?;
        let closed: String = row.try_get("", "closed")?;
        let closed = closed.split(", ").filter(|name| !name.is_empty());
        Ok(Some(Rights {
            may_create: row.try_get("", "may_create")?,
            is_read_only: row.try_get("", "is_read_only")?,
            closed: closed.map(str::to_owned).collect(),
        }))
    }
}
