//! More data of a waiting receipt, to match a message without a known msgid.

use sea_orm_migration::prelude::*;

use crate::columns::{maybe_int, maybe_text};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[derive(Clone, Copy, DeriveIden)]
enum Receipt {
    Table,
    Channel,
    TemplateId,
    HappenedAt,
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // SQLite adds one column in each statement.
        for column in [
            maybe_text(Receipt::Channel),
            maybe_text(Receipt::TemplateId),
            maybe_int(Receipt::HappenedAt),
        ] {
            let table = Table::alter()
                .table(Receipt::Table)
                .add_column(column)
                .to_owned();
            manager.alter_table(table).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for column in [Receipt::Channel, Receipt::TemplateId, Receipt::HappenedAt] {
            let table = Table::alter()
                .table(Receipt::Table)
                .drop_column(column)
                .to_owned();
            manager.alter_table(table).await?;
        }
        Ok(())
    }
}
