//! The life of a message: intake → claim → send → record.
//!
//! [`Delivery::start`] starts tasks around the queue in the database:
//!
//! - *Intake* writes accepted messages into the database: one transaction for all requests that wait.
//! - The *worker* claims as many messages as there are free sending slots and hands each message to a *dispatch*. The
//!   dispatch gets a token from the broker, sends, and turns WeChat's answer into a transition.
//! - The *recorder* writes all transitions that wait in one transaction.
//! - The *sweeper* acts on times: due messages become ready, late messages expire, leases of dead workers end.
//! - The *janitor* deletes data that is older than the retention.
//! - [`Callbacks`] process the callbacks of WeChat: receipts of messages, and what users allow.
//! - The *syncer* asks WeChat for the templates of apps. A message is checked against its template before intake.
//! - The *announcer* posts the events that these transactions have written to tenants' webhook endpoints.
//!
//! Batches form without timers: each task takes all items that arrived while the last commit ran. So there is nothing
//! to tune, and no delay at low load.
//!
//! A worker that dies leaves rows in phase flying, under a lease, at most as many as the worker had slots. No other
//! state is uncertain. When the lease ends, such a message becomes `uncertain`, or is sent again where that is allowed.
//!
//! To add a verdict: [`domain::verdict`], a row in the WeChat client's table, and the meaning of the verdict in
//! [`domain::lifecycle`]. This crate carries verdicts out without knowing each one.

mod app_pause;
mod apps;
mod audit;
mod callbacks;
mod changes;
mod credentials;
mod dispatch;
mod engine;
mod error;
mod grants;
mod intake;
mod janitor;
mod liveness;
mod metrics;
mod no_token;
mod options;
mod parts;
mod pass_through;
mod quota;
mod recorder;
mod retrying_writer;
mod submit;
mod sweeper;
mod templates;
mod tenant_queues;
mod token_failure;
mod token_refusals;
mod tokens;
mod topic;
mod waiters;
mod webhooks;
mod worker;

pub use apps::{AppError, AppUpdate, Apps, CallbackSettings, QuotaSpan, Registration};
pub use audit::TokenAudit;
pub use broker::{BudgetKind, ForeignRefresh, LiveToken};
pub use callbacks::{CallbackError, CallbackRefusal, Callbacks, Consequence};
pub use changes::ChangeError;
pub use credentials::StoredCredentials;
pub use engine::Delivery;
pub use error::DeliveryError;
pub use grants::{CollectedGrants, GrantError, Grants};
pub use metrics::DeliveryMetrics;
pub use options::{EngineOptions, Retention};
pub use parts::{Parts, ShowMessage};
pub use pass_through::{BodyMemory, PassThroughError};
pub use quota::{QuotaReport, WechatQuotaReport};
pub use submit::{Accepted, AcceptedBatch, Attended, BatchItem, BatchResult, SubmitError};
pub use templates::{Templates, TemplatesSynced};
pub use token_failure::TokenFailure;
pub use tokens::{HandedToken, TokenBudget, TokenReport, TokenStatus};
pub use webhooks::{WebhookError, WebhookSettings, Webhooks};
pub use wechat::{
    ForwardError, ForwardedAnswer, ForwardedCall, MAX_FORWARDED, callback::Query as CallbackQuery,
    is_forwardable, is_token_refusal, query_carries_secret,
};
