//! Templates: what WeChat lists for each app, and when the gateway asks next.

use sea_orm_migration::prelude::*;

use crate::columns::{int, maybe_int, maybe_text, text, uuid};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

/// A template that WeChat lists, or has listed.
#[derive(DeriveIden)]
enum Template {
    Table,
    Appid,
    Id,
    Kind,
    Title,
    Content,
    Example,
    /// The values that keys may have, as JSON.
    KeyValues,
    CreatedAt,
    ChangedAt,
    GoneAt,
}

/// One row for each app: the last sync with WeChat, and the next one.
#[derive(DeriveIden)]
enum TemplateSync {
    Table,
    Appid,
    TenantId,
    Kind,
    /// Grows with every change of the app's templates, and when a sync begins to fail or to succeed.
    Revision,
    SyncedAt,
    TriedAt,
    Failure,
    DueAt,
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.create_table(template()).await?;
        manager.create_table(template_sync()).await?;
        let due = Index::create()
            .name("template_sync_due")
            .table(TemplateSync::Table)
            .col(TemplateSync::DueAt)
            .to_owned();
        manager.create_index(due).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in [TemplateSync::Table.into_iden(), Template::Table.into_iden()] {
            manager
                .drop_table(Table::drop().table(table).to_owned())
                .await?;
        }
        Ok(())
    }
}

fn template() -> TableCreateStatement {
    use Template as T;
    Table::create()
        .table(T::Table)
        .col(text(T::Appid))
        .col(text(T::Id))
        .col(text(T::Kind))
        .col(text(T::Title))
        .col(text(T::Content))
        .col(text(T::Example))
        .col(text(T::KeyValues))
        .col(int(T::CreatedAt))
        .col(int(T::ChangedAt))
        .col(maybe_int(T::GoneAt))
        .primary_key(Index::create().col(T::Appid).col(T::Id))
        .to_owned()
}

fn template_sync() -> TableCreateStatement {
    use TemplateSync as T;
    Table::create()
        .table(T::Table)
        .col(text(T::Appid).primary_key())
        .col(uuid(T::TenantId))
        .col(text(T::Kind))
        .col(int(T::Revision))
        .col(maybe_int(T::SyncedAt))
        .col(maybe_int(T::TriedAt))
        .col(maybe_text(T::Failure))
        .col(int(T::DueAt))
        .to_owned()
}
