//! Templates: what WeChat lists of each app, and when it is asked next.

use sea_orm_migration::prelude::*;

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
    /// The values that keys may take, as JSON.
    KeyValues,
    CreatedAt,
    ChangedAt,
    GoneAt,
}

/// One row for each app: the last question to WeChat, and the next one.
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
        .col(ColumnDef::new(T::Appid).text().not_null())
        .col(ColumnDef::new(T::Id).text().not_null())
        .col(ColumnDef::new(T::Kind).text().not_null())
        .col(ColumnDef::new(T::Title).text().not_null())
        .col(ColumnDef::new(T::Content).text().not_null())
        .col(ColumnDef::new(T::Example).text().not_null())
        .col(ColumnDef::new(T::KeyValues).text().not_null())
        .col(ColumnDef::new(T::CreatedAt).big_integer().not_null())
        .col(ColumnDef::new(T::ChangedAt).big_integer().not_null())
        .col(ColumnDef::new(T::GoneAt).big_integer())
        .primary_key(Index::create().col(T::Appid).col(T::Id))
        .to_owned()
}

fn template_sync() -> TableCreateStatement {
    use TemplateSync as T;
    Table::create()
        .table(T::Table)
        .col(ColumnDef::new(T::Appid).text().not_null().primary_key())
        .col(ColumnDef::new(T::TenantId).uuid().not_null())
        .col(ColumnDef::new(T::Kind).text().not_null())
        .col(ColumnDef::new(T::Revision).big_integer().not_null())
        .col(ColumnDef::new(T::SyncedAt).big_integer())
        .col(ColumnDef::new(T::TriedAt).big_integer())
        .col(ColumnDef::new(T::Failure).text())
        .col(ColumnDef::new(T::DueAt).big_integer().not_null())
        .to_owned()
}
