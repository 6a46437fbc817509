//! Callbacks about messages: receipts that wait for their message, and events that must not count twice.

use sea_orm_migration::prelude::*;

use crate::columns::{int, maybe_text, text};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

/// A receipt whose message is not known yet: the receipt came before the answer of the send was recorded.
#[derive(DeriveIden)]
enum Receipt {
    Table,
    Appid,
    Touser,
    Msgid,
    Status,
    FailureDetail,
    ReceivedAt,
    LookAt,
}

/// A processed event, by a digest of the event: WeChat sends some events more than once.
#[derive(DeriveIden)]
enum HeardEvent {
    Table,
    Appid,
    Digest,
    ReceivedAt,
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.create_table(receipt()).await?;
        manager.create_table(heard_event()).await?;
        let due = Index::create()
            .name("receipt_due")
            .table(Receipt::Table)
            .col(Receipt::LookAt)
            .to_owned();
        let age = Index::create()
            .name("heard_event_age")
            .table(HeardEvent::Table)
            .col(HeardEvent::ReceivedAt)
            .to_owned();
        manager.create_index(due).await?;
        manager.create_index(age).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in [HeardEvent::Table.into_iden(), Receipt::Table.into_iden()] {
            manager
                .drop_table(Table::drop().table(table).to_owned())
                .await?;
        }
        Ok(())
    }
}

fn receipt() -> TableCreateStatement {
    Table::create()
        .table(Receipt::Table)
        .col(text(Receipt::Appid))
        .col(text(Receipt::Touser))
        .col(text(Receipt::Msgid))
        .col(text(Receipt::Status))
        .col(maybe_text(Receipt::FailureDetail))
        .col(int(Receipt::ReceivedAt))
        .col(int(Receipt::LookAt))
        .primary_key(
            Index::create()
                .col(Receipt::Appid)
                .col(Receipt::Touser)
                .col(Receipt::Msgid),
        )
        .to_owned()
}

fn heard_event() -> TableCreateStatement {
    Table::create()
        .table(HeardEvent::Table)
        .col(text(HeardEvent::Appid))
        .col(ColumnDef::new(HeardEvent::Digest).var_binary(32).not_null())
        .col(int(HeardEvent::ReceivedAt))
        .primary_key(
            Index::create()
                .col(HeardEvent::Appid)
                .col(HeardEvent::Digest),
        )
        .to_owned()
}
