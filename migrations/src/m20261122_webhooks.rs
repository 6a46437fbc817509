//! Webhooks: the endpoints of tenants, and what is on its way to them.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[derive(DeriveIden)]
enum Tenant {
    Table,
    Id,
}

#[derive(DeriveIden)]
enum Webhook {
    Table,
    Id,
    TenantId,
    Url,
    Events,
    Description,
    Status,
    DisabledReason,
    SecretSealed,
    PreviousSecretSealed,
    PreviousSecretUntil,
    FailingSince,
    Failures,
    CreatedAt,
    UpdatedAt,
}

/// One event for one endpoint. Names its endpoint without a foreign key: a message's record must not fail because
/// an endpoint was removed at the same moment.
#[derive(DeriveIden)]
enum WebhookDelivery {
    Table,
    WebhookId,
    EventId,
    TenantId,
    Kind,
    MessageId,
    Facts,
    Status,
    AttemptCount,
    DueAt,
    RetryFrom,
    Lease,
    ResponseStatus,
    ResponseExcerpt,
    Error,
    CreatedAt,
    AttemptedAt,
    EndedAt,
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.create_table(webhook()).await?;
        manager.create_table(webhook_delivery()).await?;
        for index in indexes() {
            manager.create_index(index).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in [
            WebhookDelivery::Table.into_iden(),
            Webhook::Table.into_iden(),
        ] {
            manager
                .drop_table(Table::drop().table(table).to_owned())
                .await?;
        }
        Ok(())
    }
}

fn webhook() -> TableCreateStatement {
    Table::create()
        .table(Webhook::Table)
        .col(ColumnDef::new(Webhook::Id).uuid().not_null().primary_key())
        .col(ColumnDef::new(Webhook::TenantId).uuid().not_null())
        .col(ColumnDef::new(Webhook::Url).text().not_null())
        .col(ColumnDef::new(Webhook::Events).text().not_null())
        .col(ColumnDef::new(Webhook::Description).text())
        .col(ColumnDef::new(Webhook::Status).text().not_null())
        .col(ColumnDef::new(Webhook::DisabledReason).text())
        .col(
            ColumnDef::new(Webhook::SecretSealed)
                .var_binary(1024)
                .not_null(),
        )
        .col(ColumnDef::new(Webhook::PreviousSecretSealed).var_binary(1024))
        .col(ColumnDef::new(Webhook::PreviousSecretUntil).big_integer())
        .col(ColumnDef::new(Webhook::FailingSince).big_integer())
        .col(ColumnDef::new(Webhook::Failures).big_integer().not_null())
        .col(ColumnDef::new(Webhook::CreatedAt).big_integer().not_null())
        .col(ColumnDef::new(Webhook::UpdatedAt).big_integer().not_null())
        .foreign_key(
            ForeignKey::create()
                .from(Webhook::Table, Webhook::TenantId)
                .to(Tenant::Table, Tenant::Id),
        )
        .to_owned()
}

fn webhook_delivery() -> TableCreateStatement {
    use WebhookDelivery as D;
    Table::create()
        .table(D::Table)
        .col(ColumnDef::new(D::WebhookId).uuid().not_null())
        .col(ColumnDef::new(D::EventId).uuid().not_null())
        .col(ColumnDef::new(D::TenantId).uuid().not_null())
        .col(ColumnDef::new(D::Kind).text().not_null())
        .col(ColumnDef::new(D::MessageId).uuid())
        .col(ColumnDef::new(D::Facts).text().not_null())
        .col(ColumnDef::new(D::Status).text().not_null())
        .col(ColumnDef::new(D::AttemptCount).big_integer().not_null())
        .col(ColumnDef::new(D::DueAt).big_integer().not_null())
        .col(ColumnDef::new(D::RetryFrom).big_integer().not_null())
        .col(ColumnDef::new(D::Lease).big_integer())
        .col(ColumnDef::new(D::ResponseStatus).big_integer())
        .col(ColumnDef::new(D::ResponseExcerpt).text())
        .col(ColumnDef::new(D::Error).text())
        .col(ColumnDef::new(D::CreatedAt).big_integer().not_null())
        .col(ColumnDef::new(D::AttemptedAt).big_integer())
        .col(ColumnDef::new(D::EndedAt).big_integer())
        .primary_key(Index::create().col(D::WebhookId).col(D::EventId))
        .to_owned()
}

/// As with messages, the partial indexes hold what is still to be done and nothing of the history.
fn indexes() -> Vec<IndexCreateStatement> {
    use WebhookDelivery as D;
    let pending = || Expr::col(D::Status).eq(Expr::cust("'pending'"));
    vec![
        Index::create()
            .name("webhook_tenant")
            .table(Webhook::Table)
            .col(Webhook::TenantId)
            .to_owned(),
        Index::create()
            .name("webhook_delivery_due")
            .table(D::Table)
            .col(D::WebhookId)
            .col(D::DueAt)
            .col(D::EventId)
            .and_where(pending())
            .to_owned(),
        Index::create()
            .name("webhook_delivery_order")
            .table(D::Table)
            .col(D::WebhookId)
            .col(D::MessageId)
            .col(D::EventId)
            .and_where(pending())
            .to_owned(),
        Index::create()
            .name("webhook_delivery_flying")
            .table(D::Table)
            .col(D::WebhookId)
            .and_where(Expr::col(D::Lease).is_not_null())
            .to_owned(),
        Index::create()
            .name("webhook_delivery_age")
            .table(D::Table)
            .col(D::CreatedAt)
            .to_owned(),
    ]
}
