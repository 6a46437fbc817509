//! The queue: the operations on the `message` table that move messages, in batches.
//!
//! A message is in one of five phases. Each phase has a separate partial index, so that a search for work costs the
//! same for every size of the backlog and of the history:
//!
//! | phase | means | status | leaves by |
//! | --- | --- | --- | --- |
//! | ready | may be claimed | queued | claim |
//! | waiting | due later | scheduled, queued | [`promote`](crate::PlatformStore::promote) |
//! | behind | another message to the same recipient is in flight or goes first | queued | the end of that message |
//! | flying | in flight: claimed by a worker, under a lease | sending | record, or the end of the lease |
//! | ended | done | all others | an explicit retry |
//!
//! **Behind.** A message that is behind waits for the message of the same recipient that is in flight, and the claim
//! marks the latter as *followed*. The statement that ends a followed message makes the next message behind ready, and
//! marks that message as followed in turn. The end of any other message searches for none.
//! `PlatformStore::release_stranded` releases the rest: messages behind a message that has expired, and messages behind
//! one whose process died between the end and the release.
//!
//! **Order of locks.** Every transaction locks lanes before messages, and lanes in the order of the appids. Requests of
//! tenants lock apps, the message (retry), idempotency keys and allowances, in this order, each kind sorted.
//!
//! **Cost.** A send for which a request waits takes nine round trips to PostgreSQL, one after the other: two for
//! intake, five for the claim, one for the record, one to read the answer.
//!
//! A receipt that WeChat sends later settles the message by [`receive`](crate::PlatformStore::receive).
//!
//! Three transactions move messages through these phases, each for all messages that wait at that moment:
//! [`intake`](crate::PlatformStore::intake), [`claim`](crate::PlatformStore::claim) and
//! [`record`](crate::PlatformStore::record). A tenant moves a single message with
//! [`cancel`](crate::TenantStore::cancel) and [`retry`](crate::TenantStore::retry).

mod admission;
mod allowance;
mod cancel;
mod choice;
mod claim;
pub(crate) mod claimed;
mod event_keys;
pub(crate) mod events;
pub(crate) mod grants;
mod idempotency_key;
mod intake;
mod keys;
mod lane;
mod meter;
mod outbox;
mod pause;
#[cfg(test)]
mod plans;
mod receipts;
mod record;
mod retention;
mod retry;
mod sql;
mod submission;
mod sweep;
mod unsent;

pub use cancel::Canceled;
pub use claim::{ClaimBatch, ClaimRequest};
pub use claimed::ClaimedMessage;
pub use event_keys::{CallbackEvent, EventKey};
pub use events::{AppEvent, MessageFacts, Settled};
pub use grants::{
    Collected, Collection, Grant, GrantChange, GrantCount, GrantCursor, GrantCursorFormat,
    GrantEntry, IdFate, KeptCount, LedgerChange, LedgerStep, Permit, PoolCount, PoolId, PooledId,
    Reach, Subscription, TemplateCount,
};
pub use idempotency_key::IdempotencyKey;
pub use lane::QuotaUse;
pub(crate) use lane::{close_lane, open_lane};
pub use outbox::{
    DeliveryNext, DeliveryOutcome, DisabledWebhook, DueDelivery, EventContent, HeldSlots,
    OutboxClaim, OutboxRequest, Slots,
};
pub use pause::{LaneChange, LanePause, THROTTLED};
pub use receipts::{MatchFields, NewReceipt, SweptReceipts};
pub use record::{Recorded, Settlement, SettlementSource};
pub use retention::Dropped;
pub use retry::Retried;
pub use submission::{
    BatchEntry, FirstAnswer, FirstEntry, NewMessage, Received, Spent, Submission, SubmissionBody,
    Taken,
};
pub use sweep::Swept;

pub(crate) use keys::{SEALED_ANSWER, UNLESS_KEPT};
pub(crate) use meter::day_number;

const READY: i64 = 0;
const WAITING: i64 = 1;
const BEHIND: i64 = 2;
const IN_FLIGHT: i64 = 3;
pub(crate) const ENDED: i64 = 4;

/// The pause reason of a lane that has used up its daily quota.
pub const QUOTA_EXHAUSTED: &str = "quota_exhausted";
