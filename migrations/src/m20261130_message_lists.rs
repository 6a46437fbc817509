//! Indexes for the lists of an app's messages with a rare status, and of one template.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[derive(DeriveIden)]
enum Message {
    Table,
    Appid,
    Status,
    TemplateId,
    Id,
}

const RARE: &str = "message_rare";
const TEMPLATE: &str = "message_template";
/// The statuses that the index `RARE` leaves out. The index never holds a message that is accepted, sent and delivered.
const COMMON: [&str; 4] = ["queued", "sending", "sent", "delivered"];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut rare = index(RARE)
            .col(Message::Appid)
            .col(Message::Status)
            .col(Message::Id)
            .to_owned();
        for status in COMMON {
            rare.and_where(Expr::col(Message::Status).ne(Expr::cust(format!("'{status}'"))));
        }
        manager.create_index(rare).await?;
        let template = index(TEMPLATE)
            .col(Message::Appid)
            .col(Message::TemplateId)
            .col(Message::Id)
            .to_owned();
        manager.create_index(template).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for name in [TEMPLATE, RARE] {
            let drop = Index::drop().name(name).table(Message::Table).to_owned();
            manager.drop_index(drop).await?;
        }
        Ok(())
    }
}

fn index(name: &str) -> IndexCreateStatement {
    Index::create().name(name).table(Message::Table).to_owned()
}
