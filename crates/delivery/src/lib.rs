//! What happens to a message: intake → claim → send → record.
//!
//! [`Delivery::start`] starts tasks around the queue in the database. *Intake* accepts messages, all that
//! wait in one transaction. The *worker* claims as many messages as there are free sending slots and hands each
//! to a *dispatch*, which asks the broker for a token, sends, and turns WeChat's answer into a transition. The
//! *recorder* writes all transitions that wait in one transaction. The *sweeper* does what time does: due
//! messages become ready, late ones expire, leases of dead workers end. The *janitor* forgets what is old.
//! [`Callbacks`] take what WeChat pushes: what became of messages after it took them, and what users allow.
//!
//! The *syncer* asks WeChat for the templates of apps; messages are checked against them before they come here.
//!
//! The *announcer* posts to tenants' webhook endpoints what these transactions left for them.
//!
//! Batches form by themselves: each task takes whatever waited while its last commit ran. There are no timers
//! to tune and no delay at low load.
//!
//! A worker that dies leaves leased rows in phase flying, at most as many as it had slots, and nothing else in
//! doubt. When their lease ends they become `uncertain`, or are sent again where that is allowed.
//!
//! To add a verdict: [`domain::verdict`], a row in the WeChat client's table, and its meaning in
//! [`domain::lifecycle`]; this crate carries it out without knowing it.

mod apps;
mod audit;
mod callbacks;
mod changes;
mod credentials;
mod dispatch;
mod engine;
mod grants;
mod intake;
mod janitor;
mod keeper;
mod lines;
mod metrics;
mod no_token;
mod passage;
mod pulse;
mod quota;
mod recorder;
mod rest;
mod strays;
mod submit;
mod sweeper;
mod templates;
mod tokens;
mod waiters;
mod webhooks;
mod worker;

pub use apps::{AppError, AppUpdate, Apps, CallbackSettings, QuotaSpan, Registration};
pub use audit::TokenAudit;
pub use broker::{BudgetKind, ForeignRefresh, LiveToken};
pub use callbacks::{CallbackError, CallbackRefusal, Callbacks, Consequence};
pub use changes::ChangeError;
pub use credentials::StoredCredentials;
pub use engine::{Delivery, DeliveryError, Options, Parts, Retention};
pub use grants::{CollectedGrants, GrantError, Grants};
pub use metrics::Metrics;
pub use passage::{PassageError, Room};
pub use quota::{QuotaReport, WechatQuotaReport};
pub use store::{
    App, AppCursor, Change, Collected, DeliveryStatus, Failure, Grant, GrantCursor, GrantEntry,
    IdempotencyKey, KnownTemplate, Listing, Message, MessageFilter, Page, Pause, PooledId, Reach,
    Subscription, TemplateCursor, TemplateSync, Webhook, WebhookDelivery,
};
pub use submit::{Accepted, AcceptedBatch, Attended, BatchItem, BatchResult, SubmitError};
pub use templates::{Templates, TemplatesSynced};
pub use tokens::{HandedToken, TokenBudget, TokenFailure, TokenReport, TokenStatus};
pub use webhooks::{ShowMessage, WebhookError, WebhookSettings, Webhooks};
pub use wechat::{
    ForwardError, ForwardedAnswer, ForwardedCall, MAX_FORWARDED, callback::Query as CallbackQuery,
    is_forwardable, is_token_refusal, query_carries_secret,
};

/// Wake-up topics that replicas share.
mod topic {
    /// There may be messages to claim; the payload is the app that has them, or empty.
    pub(crate) const QUEUE: &str = "queue";
    /// Messages have ended; the payload is their ids, comma-separated.
    pub(crate) const ENDED: &str = "ended";
    /// There may be templates to ask WeChat for.
    pub(crate) const TEMPLATES: &str = "templates";
    /// An app was registered, changed or removed; the payload is its appid.
    pub(crate) const APPS: &str = "apps";
    /// There may be something to tell webhooks.
    pub(crate) const WEBHOOKS: &str = "webhooks";
}
