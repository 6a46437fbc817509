//! The outbox: webhook deliveries, claimed, attempted and recorded in batches.
//!
//! A claimed delivery stays `pending` and is due again when the lease ends, so that the delivery of a dead worker is
//! attempted again: an endpoint gets an event at least once, and perhaps twice. Claims visit the tenants with pending
//! deliveries in rotation. Each tenant holds at most a part of a replica's slots, and the posts to one endpoint that
//! are in flight over all replicas are limited to a few.
//!
//! The events of one message go out in order: a delivery that is due while an earlier one of the same message is
//! pending is put behind the earlier one.
//!
//! The order of one message's events ends where a delivery is given up or redelivered on request. Events of different
//! messages have no order.
//!
//! **Locks.** Endpoints in the order of the ids, then deliveries.

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
    events::MessageFacts,
    sql::Sql,
    sweep::{BATCH, Swept},
};
use crate::{PlatformStore, StoreError, timestamp::millis};

pub use share::{HeldSlots, Slots};

/// The request of an announcer for deliveries.
#[derive(Clone, Debug)]
pub struct OutboxRequest {
    /// The number of deliveries that the announcer can attempt now, and the slots that tenants hold already.
    pub slots: Slots,
    /// The most deliveries to one endpoint that may be in flight.
    pub each: usize,
    /// The tenant after which the claim continues: the cursor of the claim before. Nil for the first claim.
    pub cursor: Uuid,
    /// A random number that names this claim.
    pub lease: i64,
    /// The end of the announcer's lease of the deliveries.
    pub lease_until: DateTime<Utc>,
}

/// The result of a claim of deliveries.
#[derive(Clone, Debug, Default)]
pub struct OutboxClaim {
    /// The deliveries to attempt now.
    pub due: Vec<DueDelivery>,
    /// The tenant after which the next claim continues. Nil: the next claim starts at the first tenant.
    pub cursor: Uuid,
    /// Whether there may be more deliveries to claim at once.
    pub more: bool,
}

/// One event to post to one endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct DueDelivery {
    /// The tenant that owns the endpoint.
    pub tenant: TenantId,
    /// The endpoint.
    pub webhook: WebhookId,
    /// The endpoint's URL.
    pub url: String,
    /// The secrets that sign the delivery, sealed, the newest first.
    pub secrets_sealed: Vec<Vec<u8>>,
    /// The event's id.
    pub event: EventId,
    /// The event's type.
    pub kind: EventType,
    /// The message of the event. `None` if the event is not about a message.
    pub message: Option<MessageId>,
    /// The facts at the time of the event.
    pub facts: EventContent,
    /// Whether the last attempt at the endpoint failed.
    pub failing: bool,
    /// The number of this attempt, 1 for the first.
    pub attempt: u32,
    /// The time from which the attempts count: the creation, or the last redelivery on request.
    pub retry_from: DateTime<Utc>,
    /// The time of the event.
    pub created_at: DateTime<Utc>,
    /// The lease of the claim that took this delivery.
    pub lease: i64,
}

/// The content of an event.
#[derive(Clone, Debug, PartialEq)]
pub enum EventContent {
    /// The state of the message at the time of the event.
    Message(MessageFacts),
    /// The `data` of the event's payload.
    Data(serde_json::Value),
}

/// The outcome of an attempt to deliver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryOutcome {
    /// The endpoint.
    pub webhook: WebhookId,
    /// The event.
    pub event: EventId,
    /// The lease of the claim under which the attempt was made.
    pub lease: i64,
    /// What happens to the delivery next.
    pub next: DeliveryNext,
    /// The HTTP status of the endpoint's answer. `None` if there was no answer.
    pub response_status: Option<u16>,
    /// The beginning of the answer's body.
    pub response_excerpt: Option<String>,
    /// The error of a failed attempt.
    pub error: Option<String>,
}

/// What happens to a delivery after an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeliveryNext {
    /// The endpoint has taken the event.
    Delivered,
    /// The next attempt is due at this time.
    Later(DateTime<Utc>),
    /// There are no more attempts.
    Failed,
    /// The endpoint wants no more events: the gateway disables the endpoint.
    Gone,
}

/// An endpoint that the gateway has just disabled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DisabledWebhook {
    /// The tenant that owns the endpoint.
    pub tenant: TenantId,
    /// The endpoint.
    pub webhook: WebhookId,
    /// The reason.
    pub reason: String,
}

impl PlatformStore {
    /// Deletes deliveries that are no longer pending and were created before `before`, a batch at a time.
    pub async fn forget_deliveries(&self, before: DateTime<Utc>) -> Result<Swept, StoreError> {
        let mut sql = Sql::new(
            "DELETE FROM webhook_delivery WHERE (webhook_id, event_id) IN (SELECT webhook_id, event_id FROM webhook_delivery \
             WHERE created_at < ",
        );
        sql.bind(millis(before))
            .push(" AND status <> 'pending' ORDER BY created_at LIMIT ")
            .bind(BATCH)
            .push(")");
        let connection = self.store.write();
        let result = connection.execute_raw(sql.on(connection)).await?;
        Ok(Swept::of(result.rows_affected()))
    }
}
