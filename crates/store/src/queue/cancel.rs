//! Cancel: a tenant withdraws a message that has not been sent.

use chrono::{DateTime, Utc};
use domain::{
    id::MessageId,
    lifecycle::{Event, ImpossibleEvent, Status},
};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QuerySelect, sea_query::Expr};

use super::{ENDED, READY, events::write_message_events, record::release_behind};
use crate::{
    Message, StoreError, TenantStore,
    entity::message::{Column, Entity, Model},
    messages::facts,
    timestamp::millis,
};

/// The result of a request to cancel.
#[derive(Clone, Debug, PartialEq)]
pub enum Canceled {
    /// The message will not be sent any more. The message is `uncertain` if an earlier attempt may have reached WeChat.
    Now {
        /// The message.
        message: Message,
        /// Whether another message to the same recipient is ready instead.
        released: bool,
    },
    /// The message was canceled before.
    Before(Message),
    /// The message is in a state that cannot be canceled.
    Refused(ImpossibleEvent),
    /// The tenant has no such message.
    NoSuchMessage,
}

impl TenantStore {
    /// Cancels a message. The first transaction that locks the row decides, this one or a claim.
    pub async fn cancel(&self, id: MessageId, now: DateTime<Utc>) -> Result<Canceled, StoreError> {
        let tx = self.begin(now).await?;
        let found = Entity::find_by_id(id.uuid())
            .filter(Column::TenantId.eq(self.tenant.uuid()))
            .lock_exclusive()
            .one(&tx)
            .await?;
        let Some(row) = found else {
            return Ok(Canceled::NoSuchMessage);
        };
        if row.status == "canceled" {
            return Ok(Canceled::Before(row.try_into()?));
        }
        let transition = match facts(&row)?.apply(&Event::Cancel, now, 0.0) {
            Ok(transition) => transition,
            Err(refusal) => return Ok(Canceled::Refused(refusal)),
        };
        let status = transition.status.as_str();
        let updated_at = changed_at(row.updated_at, now);
        let failure = transition.failure.map(|code| code.as_str().to_owned());
        Entity::update_many()
            .col_expr(Column::Status, Expr::value(status))
            .col_expr(Column::Phase, Expr::value(ENDED))
            .col_expr(Column::FailureCode, Expr::value(failure.clone()))
            .col_expr(Column::UpdatedAt, Expr::value(updated_at))
            .filter(Column::Id.eq(row.id))
            .exec(&tx)
            .await?;
        if transition.status == Status::Uncertain {
            write_message_events(&tx, &[(row.id, row.tenant_id)], now).await?;
        }
        // Other messages to the recipient may be behind a message that was ready.
        let person = (row.appid.clone(), row.touser.clone());
        let released = row.phase == READY && release_behind(&tx, &[person], now).await?;
        tx.commit().await?;
        let row = Model {
            status: status.to_owned(),
            phase: ENDED,
            failure_code: failure,
            updated_at,
            ..row
        };
        Ok(Canceled::Now {
            message: row.try_into()?,
            released,
        })
    }
}

/// The time of a change at `now` of a row that was last changed at `last`, by the rule of `Sql::touch`.
pub(super) fn changed_at(last: i64, now: DateTime<Utc>) -> i64 {
    millis(now).max(last + 1)
}
