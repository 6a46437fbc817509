//! The schema of the first release.

use sea_orm_migration::{prelude::*, sea_orm::DatabaseBackend};

use crate::sql;

const SCHEMA: &str = include_str!("m20261201_initial/schema.sql");
const POSTGRES: &str = include_str!("m20261201_initial/postgres.sql");

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        sql::run(manager, SCHEMA).await?;
        if manager.get_database_backend() == DatabaseBackend::Postgres {
            sql::run(manager, POSTGRES).await?;
        }
        Ok(())
    }

    /// Drops the tables in the reverse order of their creation, because of the foreign keys.
    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let tables: Vec<&str> = SCHEMA
            .lines()
            .filter_map(|line| line.strip_prefix("CREATE TABLE ")?.strip_suffix(" ("))
            .collect();
        for table in tables.into_iter().rev() {
            sql::run(manager, &format!("DROP TABLE {table}")).await?;
        }
        Ok(())
    }
}
