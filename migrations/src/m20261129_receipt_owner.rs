//! Whose app a waiting receipt was heard for: an app may have another owner when it is looked at again.

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
    /// A receipt without an owner, of a replica of the version before, is the present owner's.
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
