//! Webhooks: the endpoints of tenants, and the deliveries to the endpoints.

use sea_orm_migration::prelude::*;

use crate::columns::{blob, int, maybe_blob, maybe_int, maybe_text, maybe_uuid, text, uuid};

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

/// One event for one endpoint. The table names its endpoint without a foreign key, because the record of a message must
/// not fail when the endpoint is removed at the same moment.
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
        .col(uuid(Webhook::Id).primary_key())
        .col(uuid(Webhook::TenantId))
        .col(text(Webhook::Url))
        .col(text(Webhook::Events))
        .col(maybe_text(Webhook::Description))
        .col(text(Webhook::Status))
        .col(maybe_text(Webhook::DisabledReason))
        .col(blob(Webhook::SecretSealed))
        .col(maybe_blob(Webhook::PreviousSecretSealed))
        .col(maybe_int(Webhook::PreviousSecretUntil))
        .col(maybe_int(Webhook::FailingSince))
        .col(int(Webhook::Failures))
        .col(int(Webhook::CreatedAt))
        .col(int(Webhook::UpdatedAt))
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
        .col(uuid(D::WebhookId))
        .col(uuid(D::EventId))
        .col(uuid(D::TenantId))
        .col(text(D::Kind))
        .col(maybe_uuid(D::MessageId))
        .col(text(D::Facts))
        .col(text(D::Status))
        .col(int(D::AttemptCount))
        .col(int(D::DueAt))
        .col(int(D::RetryFrom))
        .col(maybe_int(D::Lease))
        .col(maybe_int(D::ResponseStatus))
        .col(maybe_text(D::ResponseExcerpt))
        .col(maybe_text(D::Error))
        .col(int(D::CreatedAt))
        .col(maybe_int(D::AttemptedAt))
        .col(maybe_int(D::EndedAt))
        .primary_key(Index::create().col(D::WebhookId).col(D::EventId))
        .to_owned()
}

/// As with messages, the partial indexes hold the rows with work left, and no history.
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
