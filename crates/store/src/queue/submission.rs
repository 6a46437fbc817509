//! Submissions: requests to send, as intake receives them, and the results.

use chrono::{DateTime, Utc};
use domain::{
    app::{AppId, AppKind},
    id::{MessageId, TenantId},
    lifecycle::Status,
    message::Draft,
};
use serde::{Deserialize, Serialize};

use super::{READY, WAITING, idempotency_key::IdempotencyKey};
use crate::Message;

/// A request to send: one message or a batch, under one idempotency key.
#[derive(Clone, Debug)]
pub struct Submission {
    /// The tenant.
    pub tenant: TenantId,
    /// The app that sends.
    pub appid: AppId,
    /// The request's `Idempotency-Key`.
    pub key: Option<IdempotencyKey>,
    /// The time of the request.
    pub received_at: DateTime<Utc>,
    /// The messages to send.
    pub load: SubmissionBody,
}

/// The messages of a [`Submission`].
#[derive(Clone, Debug)]
pub enum SubmissionBody {
    /// One message. A refused message leaves the key free.
    One(Box<NewMessage>),
    /// A batch. A batch claims the key even if entries are refused, because a batch is always answered.
    Batch(Vec<BatchEntry>),
}

/// One entry of a batch.
#[derive(Clone, Debug)]
pub enum BatchEntry {
    /// A message.
    Message(Box<NewMessage>),
    /// An entry that is not a valid message, with the text of the refusal, from the calling crate. A replay returns
    /// this text.
    Unfit(String),
}

/// A message about to be accepted.
#[derive(Clone, Debug)]
pub struct NewMessage {
    /// The message's id.
    pub id: MessageId,
    /// The tenant.
    pub tenant: TenantId,
    /// The app that sends the message.
    pub appid: AppId,
    /// The message.
    pub draft: Draft,
    /// The time of the request.
    pub received_at: DateTime<Utc>,
}

/// The result of a [`Submission`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The submission is new: the result of each message, in order.
    Fresh(Vec<Received>),
    /// The key already stands for the same request: the answer that was given then.
    Replayed(FirstAnswer),
    /// The key stands for a different request.
    KeyReused,
    /// During this call the key was being claimed for another submission, or was deleted: submit the request again.
    Twin,
    /// The tenant has no such app.
    NoSuchApp,
}

/// The result of a [`NewMessage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Received {
    /// The message is in the queue (or, as a dry run, would be).
    Stored,
    /// An app of this kind cannot send on the message's channel.
    WrongKind(AppKind),
    /// A daily limit is used up.
    Spent(Spent),
}

/// A daily limit that is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spent {
    /// The app's daily quota, and the message would expire before the next day.
    App {
        /// The start of the next day.
        reset_at: DateTime<Utc>,
    },
    /// The number of messages that the tenant may submit in a day.
    Tenant {
        /// The limit.
        limit: u64,
        /// The start of the next day.
        reset_at: DateTime<Utc>,
    },
}

/// The answer to a request at the time at which the key was new.
///
/// The same request bytes make the same messages, and a caller sends these bytes again with the repeat. So only the
/// ids, the time and the refusals are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirstAnswer {
    /// A message was accepted.
    One {
        /// The message's id.
        id: MessageId,
        /// The time of the first request.
        received_at: DateTime<Utc>,
    },
    /// A batch was answered.
    Batch {
        /// The answer to each entry.
        entries: Vec<FirstEntry>,
        /// The time of the first request.
        received_at: DateTime<Utc>,
    },
}

/// The answer to one entry of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirstEntry {
    /// The entry was a message.
    Message(MessageId, Received),
    /// The entry was not a valid message: the text of the refusal.
    Unfit(String),
}

impl Submission {
    /// The messages of the submission, in order.
    pub fn messages(&self) -> impl Iterator<Item = &NewMessage> {
        let (one, batch) = match &self.load {
            SubmissionBody::One(new) => (Some(&**new), &[][..]),
            SubmissionBody::Batch(entries) => (None, &entries[..]),
        };
        let of_batch = batch.iter().filter_map(|entry| match entry {
            BatchEntry::Message(new) => Some(&**new),
            BatchEntry::Unfit(_) => None,
        });
        one.into_iter().chain(of_batch)
    }

    /// The messages of the submission that `taken` puts into the queue.
    pub fn stored<'a>(&'a self, taken: &'a Taken) -> impl Iterator<Item = &'a NewMessage> {
        let received = match taken {
            Taken::Fresh(received) => &received[..],
            _ => &[],
        };
        self.messages()
            .zip(received)
            .filter(|(new, received)| **received == Received::Stored && !new.draft.dry_run)
            .map(|(new, _)| new)
    }
}

impl NewMessage {
    /// The status of the message at the time of acceptance.
    pub fn starts_as(&self) -> Status {
        self.starts_in().0
    }

    pub(super) fn starts_in(&self) -> (Status, i64) {
        if self.draft.due_at(self.received_at) > self.received_at {
            (Status::Scheduled, WAITING)
        } else {
            (Status::Queued, READY)
        }
    }

    /// The message as it is at the time of acceptance.
    pub fn accepted(self) -> Message {
        Message {
            id: self.id,
            tenant: self.tenant,
            appid: self.appid.clone(),
            status: self.starts_as(),
            priority: self.draft.priority,
            due_at: self.draft.due_at(self.received_at),
            expires_at: self.draft.expires_at(self.received_at),
            touser: self.draft.touser,
            template_id: self.draft.template_id,
            content: self.draft.content,
            metadata: self.draft.metadata,
            reference: self.draft.reference,
            on_uncertain: self.draft.on_uncertain,
            grant_policy: self.draft.grant_policy,
            send_at: self.draft.send_at,
            ttl: self.draft.ttl,
            attempts: Vec::new(),
            msgid: None,
            failure: None,
            payload_dropped_at: None,
            created_at: self.received_at,
            updated_at: self.received_at,
        }
    }
}
