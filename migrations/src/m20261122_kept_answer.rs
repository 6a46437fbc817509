//! The sealed answer to a request under an idempotency key.

use sea_orm_migration::prelude::*;

use crate::columns::maybe_blob;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[derive(DeriveIden)]
enum Idempotency {
    Table,
    AnswerSealed,
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let table = Table::alter()
            .table(Idempotency::Table)
            .add_column(maybe_blob(Idempotency::AnswerSealed))
            .to_owned();
        manager.alter_table(table).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let table = Table::alter()
            .table(Idempotency::Table)
            .drop_column(Idempotency::AnswerSealed)
            .to_owned();
        manager.alter_table(table).await
    }
}
