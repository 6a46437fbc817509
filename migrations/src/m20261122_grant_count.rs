//! Stored counts of the reach of apps with many grants.

use sea_orm_migration::prelude::*;

use crate::columns::{int, text, uuid};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

/// One row for each app with too many grants for a count at every request. `due_at` is when the next count is due.
#[derive(DeriveIden)]
enum GrantCount {
    Table,
    Appid,
    TenantId,
    Pool,
    Templates,
    AsOf,
    DueAt,
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let table = Table::create()
            .table(GrantCount::Table)
            .col(text(GrantCount::Appid).primary_key())
            .col(uuid(GrantCount::TenantId))
            .col(text(GrantCount::Pool))
            .col(text(GrantCount::Templates))
            .col(int(GrantCount::AsOf))
            .col(int(GrantCount::DueAt))
            .to_owned();
        manager.create_table(table).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let table = Table::drop().table(GrantCount::Table).to_owned();
        manager.drop_table(table).await
    }
}
