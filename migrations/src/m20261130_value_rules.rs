//! What happens to an app's messages with values that break the rules of their types.

use sea_orm_migration::prelude::*;

use crate::columns::text;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[derive(DeriveIden)]
enum App {
    Table,
    ValueRules,
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let table = Table::alter()
            .table(App::Table)
            .add_column(text(App::ValueRules).default("strict"))
            .to_owned();
        manager.alter_table(table).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let table = Table::alter()
            .table(App::Table)
            .drop_column(App::ValueRules)
            .to_owned();
        manager.alter_table(table).await
    }
}
