//! All SQL of the gateway: one code path for SQLite and PostgreSQL.
//!
//! The store has two entry points. [`Store::tenant`] returns the tenant store, which finds the data of one tenant and
//! never an id of another tenant. [`Store::platform`] returns the platform store, which sees all data. The platform
//! store is for the queue, for authentication and for operators.
//!
//! To add a table: add a migration, an entity, a module named after the noun with the verbs on the right entry point,
//! and a case in the conformance suite (`tests/conformance`), which runs on both databases.
//!
//! ```no_run
//! # async fn example() -> Result<(), wxgate_store::StoreError> {
//! let store = wxgate_store::Store::connect("sqlite://wxgate-data/wxgate.db").await?;
//! store.migrate_up().await?;
//! # Ok(())
//! # }
//! ```

mod answers;
mod apps;
mod audit;
mod connect;
mod deliveries;
mod entity;
mod error;
mod failure_watch;
mod heartbeat;
mod keys;
mod messages;
mod outage;
mod page;
mod private;
mod probe;
mod queue;
mod reseal;
mod rights;
mod schema;
mod sealed_keys;
mod session;
mod signing_keys;
mod store;
mod templates;
mod tenants;
mod timestamp;
mod webhooks;

pub use answers::{IdempotencyLookup, Keep, StoredAnswer};
pub use apps::{
    App, AppCursor, AppCursorFormat, AppPatch, NewApp, Pause, PreviousCallback, SealedApp,
};
pub use audit::{Actor, AuditFilter, AuditLine, NewAuditLine, Origin};
pub use connect::Engine;
pub use deliveries::{DeliveryStatus, WebhookDelivery};
pub use error::StoreError;
pub use heartbeat::Heartbeat;
pub use keys::{Credential, Descendants, Key, MAX_KEYS, NewKey, NewKeyError};
pub use messages::{Failure, Message, MessageFilter};
pub use outage::Outage;
pub use page::{Listing, Page};
pub use queue::{
    AppEvent, BatchEntry, CallbackEvent, Canceled, ClaimBatch, ClaimRequest, ClaimedMessage,
    Collected, Collection, DeliveryNext, DeliveryOutcome, DisabledWebhook, Dropped, DueDelivery,
    EventContent, EventKey, FirstAnswer, FirstEntry, Grant, GrantChange, GrantCount, GrantCursor,
    GrantCursorFormat, GrantEntry, HeldSlots, IdFate, IdempotencyKey, KeptCount, LaneChange,
    LanePause, LedgerChange, LedgerStep, MatchFields, MessageFacts, NewMessage, NewReceipt,
    OutboxClaim, OutboxRequest, Permit, PoolCount, PoolId, PooledId, QUOTA_EXHAUSTED, QuotaUse,
    Reach, Received, Recorded, Retried, Settled, Settlement, SettlementSource, Slots, Spent,
    Submission, SubmissionBody, Subscription, Swept, SweptReceipts, THROTTLED, Taken,
    TemplateCount,
};
pub use reseal::{SealedColumn, SealedValue};
pub use rights::Rights;
pub use schema::MigrationState;
pub use signing_keys::SigningKey;
pub use store::{PlatformStore, Store, TenantStore};
pub use templates::{
    AppCatalog, Drift, DueSync, KnownTemplate, Synced, TemplateChange, TemplateCursor,
    TemplateCursorFormat, TemplateList, TemplateSync,
};
pub use tenants::{Tenant, TenantPatch};
pub use webhooks::{NewWebhook, Webhook, WebhookPatch};
