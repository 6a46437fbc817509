//! What callers hand in and get back: accepted messages, answered batches, refusals.

use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::{app::AppKind, id::MessageId, message::Draft, violation::Violation};
use store::{Message, Received, Spent, StoreError};

use crate::DeliveryError;

pub(crate) mod results;

/// A message that has been accepted.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The message as it was accepted.
    pub message: Message,
    /// Whether its idempotency key had been used for this request before.
    pub replayed: bool,
}

/// A message whose sender waited for its end.
#[derive(Debug)]
pub struct Attended {
    /// Its id.
    pub id: MessageId,
    /// The message as it was when it had ended or the wait was over.
    pub message: Result<Message, DeliveryError>,
}

/// One item of a batch as it is handed in.
#[derive(Clone, Debug)]
pub enum BatchItem {
    /// A message.
    Draft(Box<Draft>),
    /// A message that does not fit its template as that is known now, with the caller's words about it: no message, unless
    /// the batch was answered before.
    Misfit(Box<Draft>, String),
    /// What is no message, with the caller's words about it: they come back at its place, in a replay too.
    Unfit(String),
}

impl BatchItem {
    /// Takes out what was rewritten in the message, in sentences.
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
    /// What became of each item, in order.
    pub results: Vec<BatchResult>,
    /// Whether its idempotency key had been used for this request before.
    pub replayed: bool,
}

/// What became of one item of a batch.
#[derive(Clone, Debug)]
pub enum BatchResult {
    /// It is in the queue: the message as it was accepted.
    Accepted(Box<Message>),
    /// It was a dry run that found nothing wrong: the message as it would be accepted.
    Checked(Box<Message>),
    /// It was not taken.
    Refused(SubmitError),
    /// It was no message: the caller's words.
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
    /// The day's quota is spent and the message would expire before the next day.
    #[error(
        "the app's quota for today is spent, and the message would expire before the next day begins"
    )]
    QuotaExhausted {
        /// When the next day begins.
        reset_at: DateTime<Utc>,
    },
    /// The tenant has handed in as many messages as it may today.
    #[error("the tenant has used up its limit of {limit} messages a day")]
    TenantQuotaExhausted {
        /// How many it may.
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
    /// The database answers what it should not.
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

/// Of what is not [`Received::Stored`].
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
