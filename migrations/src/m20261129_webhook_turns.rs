//! The index of pending deliveries by tenant: claims take the tenants in rotation.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[derive(DeriveIden)]
enum WebhookDelivery {
    Table,
    TenantId,
    WebhookId,
    EventId,
    Status,
    DueAt,
}

/// The index that claims used before. The new index covers the columns of this one.
const BEFORE: &str = "webhook_delivery_due";
const NAME: &str = "webhook_delivery_turn";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        use WebhookDelivery as D;
        let by_tenant = pending(NAME)
            .col(D::TenantId)
            .col(D::WebhookId)
            .col(D::DueAt)
            .col(D::EventId)
            .to_owned();
        manager.create_index(by_tenant).await?;
        manager.drop_index(drop_index(BEFORE)).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        use WebhookDelivery as D;
        let by_endpoint = pending(BEFORE)
            .col(D::WebhookId)
            .col(D::DueAt)
            .col(D::EventId)
            .to_owned();
        manager.create_index(by_endpoint).await?;
        manager.drop_index(drop_index(NAME)).await
    }
}

fn pending(name: &str) -> IndexCreateStatement {
    Index::create()
        .name(name)
        .table(WebhookDelivery::Table)
        .and_where(Expr::col(WebhookDelivery::Status).eq(Expr::cust("'pending'")))
        .to_owned()
}

fn drop_index(name: &str) -> IndexDropStatement {
    Index::drop()
        .name(name)
        .table(WebhookDelivery::Table)
        .to_owned()
}
