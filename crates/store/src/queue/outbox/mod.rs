//! The outbox: what is on its way to webhook endpoints, claimed, tried and recorded in batches.
//!
//! A delivery that is claimed stays `pending` and is due again when its lease ends, so that one whose worker died comes
//! back by itself: an endpoint is told at least once, and perhaps twice. Claims go round the tenants that have something
//! pending, and each tenant holds a part of a replica's slots at most; a few posts to one endpoint are under way, over all
//! replicas.
//!
//! Events of one message go out in order: one that is due while an earlier one is still pending is put behind it.
//!
//! **Locks.** Endpoints in the order of their ids, then deliveries.

mod claim;
mod record;
mod share;

use chrono::{DateTime, Utc};
use domain::{
    id::{EventId, MessageId, TenantId, WebhookId},
    webhook::EventType,
};
use sea_orm::ConnectionTrait;
use uuid::Uuid;

use super::{
    sql::Sql,
    sweep::{BATCH, Swept},
    tell::MessageFacts,
};
use crate::{PlatformStore, StoreError, millis};

pub use share::{Held, Slots};

/// What an announcer asks for.
#[derive(Clone, Debug)]
pub struct OutboxRequest {
    /// How many deliveries it can try now, and what tenants hold of its slots already.
    pub slots: Slots,
    /// How many to one endpoint may be under way.
    pub each: usize,
    /// After which tenant to go on, from the claim before; nil at first.
    pub cursor: Uuid,
    /// A random number that names this claim.
    pub lease: i64,
    /// Until when the deliveries are the announcer's.
    pub lease_until: DateTime<Utc>,
}

/// What an announcer gets.
#[derive(Clone, Debug, Default)]
pub struct OutboxClaim {
    /// What to try now.
    pub due: Vec<DueDelivery>,
    /// After which tenant to go on; nil: from the start.
    pub cursor: Uuid,
    /// Whether there may be more at once.
    pub more: bool,
}

/// One event on its way to one endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct DueDelivery {
    /// Whose it is.
    pub tenant: TenantId,
    /// To which endpoint.
    pub webhook: WebhookId,
    /// Where that is.
    pub url: String,
    /// The secrets that sign it, sealed, the newest first.
    pub secrets_sealed: Vec<Vec<u8>>,
    /// The event's id.
    pub event: EventId,
    /// What happened.
    pub kind: EventType,
    /// The message that it happened to, if any.
    pub message: Option<MessageId>,
    /// What was so then.
    pub facts: Facts,
    /// Whether the endpoint's last try failed.
    pub failing: bool,
    /// Which try this is, 1 for the first.
    pub attempt: u32,
    /// From when its tries count.
    pub retry_from: DateTime<Utc>,
    /// When it happened.
    pub created_at: DateTime<Utc>,
    /// The claim it belongs to.
    pub lease: i64,
}

/// What an event says.
#[derive(Clone, Debug, PartialEq)]
pub enum Facts {
    /// What was so with its message.
    Message(MessageFacts),
    /// The `data` of its payload.
    Data(serde_json::Value),
}

/// What a try came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryOutcome {
    /// To which endpoint.
    pub webhook: WebhookId,
    /// Which event.
    pub event: EventId,
    /// The claim it was tried under.
    pub lease: i64,
    /// What becomes of it.
    pub next: DeliveryNext,
    /// The status that the endpoint answered, if it did.
    pub response_status: Option<u16>,
    /// The beginning of what it answered.
    pub response_excerpt: Option<String>,
    /// What went wrong.
    pub error: Option<String>,
}

/// What becomes of a delivery after a try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeliveryNext {
    /// The endpoint has it.
    Delivered,
    /// It is tried again.
    Later(DateTime<Utc>),
    /// It is tried no more.
    Failed,
    /// The endpoint does not want to be told of anything any more: it is disabled.
    Gone,
}

/// An endpoint that the gateway has just disabled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DisabledWebhook {
    /// Whose it is.
    pub tenant: TenantId,
    /// Which.
    pub webhook: WebhookId,
    /// Why.
    pub reason: String,
}

impl PlatformStore {
    /// Forgets deliveries, whatever became of them, whose event is older than `before`.
    pub async fn forget_deliveries(&self, before: DateTime<Utc>) -> Result<Swept, StoreError> {
        let mut sql = Sql::new(
            "DELETE FROM webhook_delivery WHERE (webhook_id, event_id) IN (SELECT webhook_id, event_id FROM webhook_delivery \
             WHERE created_at < ",
        );
        sql.bind(millis(before))
            .push(" AND status <> 'pending' ORDER BY created_at LIMIT ")
            .bind(BATCH)
            .push(")");
        let connection = &self.store.write;
        let result = connection.execute_raw(sql.on(connection)).await?;
        Ok(Swept::of(result.rows_affected()))
    }
}
