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

use std::sync::Arc;

use chrono::{DateTime, Utc};
use domain::id::{Sequence, TenantId};
use sea_orm::DatabaseConnection;

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
mod templates;
mod tenants;
mod unit_of_work;
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
pub use templates::{
    AppCatalog, Drift, DueSync, KnownTemplate, Synced, TemplateChange, TemplateCursor,
    TemplateCursorFormat, TemplateList, TemplateSync,
};
pub use tenants::{Tenant, TenantPatch};
pub use webhooks::{NewWebhook, Webhook, WebhookPatch};

/// The database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    write: DatabaseConnection,
    read: DatabaseConnection,
    /// Records whether statements have failed recently.
    doubt: failure_watch::FailureWatch,
    /// Orders the lines that this process appends to the audit log.
    lines: Arc<Sequence>,
}

/// The tenant store: the entry point to one tenant's data.
#[derive(Clone, Debug)]
pub struct TenantStore {
    store: Store,
    tenant: TenantId,
    record: Option<NewAuditLine>,
    kept: Option<StoredAnswer>,
}

/// The platform store: the entry point to all data, for the queue, authentication and operators.
#[derive(Clone, Debug)]
pub struct PlatformStore {
    store: Store,
    record: Option<NewAuditLine>,
    kept: Option<StoredAnswer>,
}

impl Store {
    /// A store over these connections.
    pub(crate) fn over(
        mut write: DatabaseConnection,
        mut read: DatabaseConnection,
        doubt: failure_watch::FailureWatch,
    ) -> Self {
        doubt.watch(&mut write);
        doubt.watch(&mut read);
        Self {
            write,
            read,
            doubt,
            lines: Arc::default(),
        }
    }

    /// The entry point to the data of one tenant.
    pub fn tenant(&self, tenant: TenantId) -> TenantStore {
        TenantStore {
            store: self.clone(),
            tenant,
            record: None,
            kept: None,
        }
    }

    /// The entry point to all data.
    pub fn platform(&self) -> PlatformStore {
        PlatformStore {
            store: self.clone(),
            record: None,
            kept: None,
        }
    }
}

/// A time in the database's form: milliseconds since 1970, UTC.
pub(crate) fn millis(time: DateTime<Utc>) -> i64 {
    time.timestamp_millis()
}

/// The time that the database stores as `millis`.
pub(crate) fn time(millis: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(millis).unwrap_or_default()
}
