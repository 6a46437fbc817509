//! The gateway's own keys, sealed with the master key. These keys stay the same when the master key changes.

use sea_orm_migration::prelude::*;

use crate::columns::{blob, int, text};

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
            .col(text(SealedKey::Name).primary_key())
            .col(blob(SealedKey::Sealed))
            .col(int(SealedKey::CreatedAt))
            .to_owned();
        manager.create_table(table).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let table = Table::drop().table(SealedKey::Table).to_owned();
        manager.drop_table(table).await
    }
}
