//! The index of waiting receipts by app: a sweep takes the apps in rotation.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[derive(DeriveIden)]
enum Receipt {
    Table,
    Appid,
    LookAt,
}

/// The index that sweeps used before.
const BEFORE: &str = "receipt_due";
const NAME: &str = "receipt_turn";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let by_app = index(NAME)
            .col(Receipt::Appid)
            .col(Receipt::LookAt)
            .to_owned();
        manager.create_index(by_app).await?;
        manager.drop_index(drop_index(BEFORE)).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let by_time = index(BEFORE).col(Receipt::LookAt).to_owned();
        manager.create_index(by_time).await?;
        manager.drop_index(drop_index(NAME)).await
    }
}

fn index(name: &str) -> IndexCreateStatement {
    Index::create().name(name).table(Receipt::Table).to_owned()
}

fn drop_index(name: &str) -> IndexDropStatement {
    Index::drop().name(name).table(Receipt::Table).to_owned()
}
