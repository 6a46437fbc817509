//! How much of a daily limit each tenant has used.

use sea_orm_migration::prelude::*;

use crate::columns::{int, uuid};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

/// One row for each tenant that has, or had, a limit. Every intake for such a tenant locks the row, and no other intake
/// does.
#[derive(DeriveIden)]
enum TenantUsage {
    Table,
    TenantId,
    Day,
    Messages,
}

#[derive(DeriveIden)]
enum Tenant {
    Table,
    Id,
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let table = Table::create()
            .table(TenantUsage::Table)
            .col(uuid(TenantUsage::TenantId).primary_key())
            .col(int(TenantUsage::Day))
            .col(int(TenantUsage::Messages))
            .foreign_key(
                ForeignKey::create()
                    .from(TenantUsage::Table, TenantUsage::TenantId)
                    .to(Tenant::Table, Tenant::Id),
            )
            .to_owned();
        manager.create_table(table).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let table = Table::drop().table(TenantUsage::Table).to_owned();
        manager.drop_table(table).await
    }
}
