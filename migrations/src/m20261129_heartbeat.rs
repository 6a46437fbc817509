//! The heartbeat: since when the database has taken writes.

use sea_orm_migration::prelude::*;

use crate::columns::int;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

/// A single row. All replicas write the row every second, by the database's own clock.
#[derive(DeriveIden)]
enum Heartbeat {
    Table,
    Id,
    /// The time of the last write.
    BeatAt,
    /// Since when replicas have written the row without a gap.
    SteadySince,
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let table = Table::create()
            .table(Heartbeat::Table)
            .col(int(Heartbeat::Id).primary_key())
            .col(int(Heartbeat::BeatAt))
            .col(int(Heartbeat::SteadySince))
            .to_owned();
        manager.create_table(table).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let table = Table::drop().table(Heartbeat::Table).to_owned();
        manager.drop_table(table).await
    }
}
