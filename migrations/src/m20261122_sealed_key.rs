//! Keys of the gateway's own, sealed under the master key: they stay when that is changed.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[derive(DeriveIden)]
enum SealedKey {
    Table,
    Name,
    Sealed,
    CreatedAt,
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let table = Table::create()
            .table(SealedKey::Table)
            .col(
                ColumnDef::new(SealedKey::Name)
                    .text()
                    .not_null()
                    .primary_key(),
            )
            .col(
                ColumnDef::new(SealedKey::Sealed)
                    .var_binary(1024)
                    .not_null(),
            )
            .col(
                ColumnDef::new(SealedKey::CreatedAt)
                    .big_integer()
                    .not_null(),
            )
            .to_owned();
        manager.create_table(table).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let table = Table::drop().table(SealedKey::Table).to_owned();
        manager.drop_table(table).await
    }
}
