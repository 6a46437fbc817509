//! Grants: the pool of form ids and prepay ids, and the ledger of accepted templates.

use sea_orm_migration::{prelude::*, sea_orm::DatabaseBackend};

use crate::columns::{int, maybe_int, maybe_uuid, text, uuid};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

/// An id of the pool. `held_by` is the message that holds the id.
#[derive(DeriveIden)]
enum FormId {
    Table,
    Appid,
    Value,
    TenantId,
    Openid,
    Kind,
    UsesLeft,
    HeldBy,
    CollectedAt,
    ExpiresAt,
}

/// The ledger entry for one recipient and one template.
#[derive(DeriveIden)]
enum Subscription {
    Table,
    Appid,
    Openid,
    TemplateId,
    TenantId,
    Remaining,
    LongTerm,
    Untold,
    ReportedAt,
    ConfirmedAt,
    RevokedAt,
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.create_table(form_id()).await?;
        manager.create_table(subscription()).await?;
        for index in indexes() {
            manager.create_index(index).await?;
        }
        if manager.get_database_backend() == DatabaseBackend::Postgres {
            // A pool id changes twice within seconds of its use: vacuum early.
            let tuning = "ALTER TABLE form_id SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02)";
            manager.get_connection().execute_unprepared(tuning).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in [Subscription::Table.into_iden(), FormId::Table.into_iden()] {
            manager
                .drop_table(Table::drop().table(table).to_owned())
                .await?;
        }
        Ok(())
    }
}

fn form_id() -> TableCreateStatement {
    Table::create()
        .table(FormId::Table)
        .col(text(FormId::Appid))
        .col(text(FormId::Value))
        .col(uuid(FormId::TenantId))
        .col(text(FormId::Openid))
        .col(text(FormId::Kind))
        .col(int(FormId::UsesLeft))
        .col(maybe_uuid(FormId::HeldBy))
        .col(int(FormId::CollectedAt))
        .col(int(FormId::ExpiresAt))
        .primary_key(Index::create().col(FormId::Appid).col(FormId::Value))
        .to_owned()
}

fn subscription() -> TableCreateStatement {
    Table::create()
        .table(Subscription::Table)
        .col(text(Subscription::Appid))
        .col(text(Subscription::Openid))
        .col(text(Subscription::TemplateId))
        .col(uuid(Subscription::TenantId))
        .col(int(Subscription::Remaining))
        .col(int(Subscription::LongTerm))
        .col(text(Subscription::Untold))
        .col(maybe_int(Subscription::ReportedAt))
        .col(maybe_int(Subscription::ConfirmedAt))
        .col(maybe_int(Subscription::RevokedAt))
        .primary_key(
            Index::create()
                .col(Subscription::Appid)
                .col(Subscription::Openid)
                .col(Subscription::TemplateId),
        )
        .to_owned()
}

/// The index `form_id_unspent` finds a recipient's next id and counts the ids of an app. A spent id leaves the index;
/// its row stays only so that the same id is not collected again.
fn indexes() -> Vec<IndexCreateStatement> {
    vec![
        Index::create()
            .name("form_id_unspent")
            .table(FormId::Table)
            .col(FormId::Appid)
            .col(FormId::Openid)
            .col(FormId::ExpiresAt)
            .col(FormId::Value)
            .col(FormId::UsesLeft)
            .col(FormId::HeldBy)
            .col(FormId::TenantId)
            .and_where(Expr::col(FormId::UsesLeft).gt(Expr::cust("0")))
            .to_owned(),
        Index::create()
            .name("form_id_held")
            .table(FormId::Table)
            .col(FormId::HeldBy)
            .and_where(Expr::col(FormId::HeldBy).is_not_null())
            .to_owned(),
        Index::create()
            .name("form_id_end")
            .table(FormId::Table)
            .col(FormId::ExpiresAt)
            .to_owned(),
        Index::create()
            .name("subscription_reach")
            .table(Subscription::Table)
            .col(Subscription::Appid)
            .col(Subscription::TemplateId)
            .col(Subscription::Remaining)
            .col(Subscription::TenantId)
            .and_where(Expr::col(Subscription::Remaining).gt(Expr::cust("0")))
            .to_owned(),
    ]
}
