//! The tenant that owned the app when a waiting receipt arrived: the app may have another owner at the next look.

use sea_orm_migration::prelude::*;

use crate::columns::maybe_uuid;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[derive(DeriveIden)]
enum Receipt {
    Table,
    TenantId,
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    /// A receipt without an owner comes from a replica of the version before, and belongs to the present owner of the
    /// app.
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let table = Table::alter()
            .table(Receipt::Table)
            .add_column(maybe_uuid(Receipt::TenantId))
            .to_owned();
        manager.alter_table(table).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let table = Table::alter()
            .table(Receipt::Table)
            .drop_column(Receipt::TenantId)
            .to_owned();
        manager.alter_table(table).await
    }
}
