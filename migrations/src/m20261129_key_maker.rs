//! The maker of a key: the revocation of a key also revokes the keys made with that key.

use sea_orm_migration::prelude::*;

use crate::columns::maybe_text;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[derive(DeriveIden)]
enum ApiKey {
    Table,
    CreatedBy,
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    /// Existing keys get no maker: the revocation of the key that made an existing key does not revoke the existing key.
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let table = Table::alter()
            .table(ApiKey::Table)
            .add_column(maybe_text(ApiKey::CreatedBy))
            .to_owned();
        manager.alter_table(table).await?;
        let index = Index::create()
            .name("api_key_maker")
            .table(ApiKey::Table)
            .col(ApiKey::CreatedBy)
            .to_owned();
        manager.create_index(index).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let index = Index::drop()
            .name("api_key_maker")
            .table(ApiKey::Table)
            .to_owned();
        manager.drop_index(index).await?;
        let table = Table::alter()
            .table(ApiKey::Table)
            .drop_column(ApiKey::CreatedBy)
            .to_owned();
        manager.alter_table(table).await
    }
}
