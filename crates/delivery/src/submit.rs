//! What callers submit and get back: accepted messages, answered batches, refusals.

use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::{app::AppKind, id::MessageId, message::Draft, violation::Violation};
use store::{Message, Received, Spent, StoreError};

use crate::error::DeliveryError;

pub(crate) mod results;

/// A message that has been accepted.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The message as it was accepted.
    pub message: Message,
    /// Whether this answer repeats the first answer to the same idempotency key.
    pub replayed: bool,
}

/// A message that its caller has waited for.
#[derive(Debug)]
pub struct Attended {
    /// The id of the message.
    pub id: MessageId,
    /// The message at its end, or as it was when the wait was over.
    pub message: Result<Message, DeliveryError>,
}

/// One item of a batch as submitted.
#[derive(Clone, Debug)]
pub enum BatchItem {
    /// A message.
    Draft(Box<Draft>),
    /// A message that does not fit its template as now known, with the caller's text about the misfit. Treated as no
    /// message, unless the batch was answered before.
    Misfit(Box<Draft>, String),
    /// An item that is no message, with the caller's text about it. The text is the item's result, in a replay too.
    Unfit(String),
}

impl BatchItem {
    /// Takes the warnings out of the draft: sentences about what was rewritten in the message.
    pub fn take_warnings(&mut self) -> Vec<String> {
        match self {
            Self::Draft(draft) | Self::Misfit(draft, _) => std::mem::take(&mut draft.warnings),
            Self::Unfit(_) => Vec::new(),
        }
    }
}

/// A batch that has been answered.
#[derive(Clone, Debug)]
pub struct AcceptedBatch {
    /// The result of each item, in order.
    pub results: Vec<BatchResult>,
    /// Whether this answer repeats the first answer to the same idempotency key.
    pub replayed: bool,
}

/// The result of one item of a batch.
#[derive(Clone, Debug)]
pub enum BatchResult {
    /// In the queue: the message as accepted.
    Accepted(Box<Message>),
    /// A dry run without errors: the message as it would be accepted.
    Checked(Box<Message>),
    /// Not accepted.
    Refused(SubmitError),
    /// No message: the caller's text.
    Unfit(String),
}

/// Why a message was not accepted.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SubmitError {
    /// The tenant has no such app.
    #[error("there is no such app")]
    NoSuchApp,
    /// The message cannot be sent as it is.
    #[error("the message has {} fields that are wrong", .0.len())]
    Violations(Vec<Violation>),
    /// The daily quota is spent and the message would expire before the next day.
    #[error(
        "the app's quota for today is used up, and the message would expire before the next day begins"
    )]
    QuotaExhausted {
        /// When the next day begins.
        reset_at: DateTime<Utc>,
    },
    /// The tenant has submitted as many messages as allowed today.
    #[error("the tenant has used up its limit of {limit} messages a day")]
    TenantQuotaExhausted {
        /// The tenant's limit, in messages a day.
        limit: u64,
        /// When the next day begins.
        reset_at: DateTime<Utc>,
    },
    /// The idempotency key stands for another request.
    #[error("this Idempotency-Key was used for another request within the last 24 hours")]
    KeyReused,
    /// More requests wait than the database can take.
    #[error("more messages are waiting than the database can take")]
    Overloaded {
        /// When to try again.
        retry_after: Duration,
    },
    /// The database does not answer.
    #[error("{0}")]
    Unavailable(String),
    /// The database gives an answer that it should not give.
    #[error("{0}")]
    Broken(String),
}

impl From<StoreError> for SubmitError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => Self::Unavailable(error.to_string()),
            _ => Self::Broken(error.to_string()),
        }
    }
}

/// For every value except [`Received::Stored`].
impl From<Received> for SubmitError {
    fn from(received: Received) -> Self {
        match received {
            Received::Stored => Self::Broken("a message was refused that is stored".into()),
            Received::WrongKind(kind) => Self::Violations(vec![wrong_kind(kind)]),
            Received::Spent(Spent::App { reset_at }) => Self::QuotaExhausted { reset_at },
            Received::Spent(Spent::Tenant { limit, reset_at }) => {
                Self::TenantQuotaExhausted { limit, reset_at }
            }
        }
    }
}

fn wrong_kind(kind: AppKind) -> Violation {
    let detail = match kind {
        AppKind::MiniProgram => {
            "the app is a mini-program: send on channel `subscribe` or `template`"
        }
        AppKind::OfficialAccount => "the app is an official account: send on channel `official`",
    };
    Violation::new("/channel", detail)
}
