//! Submissions: requests to send, as they are handed to intake, and what becomes of them.

use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::{
    app::{AppId, AppKind},
    id::{MessageId, TenantId},
    lifecycle::Status,
    message::Draft,
};
use serde::{Deserialize, Serialize};

use super::{READY, WAITING};
use crate::Message;

/// A request to send: one message or a batch, which stand under one idempotency key.
#[derive(Clone, Debug)]
pub struct Submission {
    /// Whose it is.
    pub tenant: TenantId,
    /// The app that sends.
    pub appid: AppId,
    /// The request's `Idempotency-Key`.
    pub key: Option<IdempotencyKey>,
    /// When it was asked for.
    pub received_at: DateTime<Utc>,
    /// What to send.
    pub load: Load,
}

/// What a [`Submission`] sends.
#[derive(Clone, Debug)]
pub enum Load {
    /// One message. Where it is refused its key stays free.
    One(Box<NewMessage>),
    /// A batch. It takes its key whatever becomes of its entries, because it is answered in any case.
    Batch(Vec<Entry>),
}

/// One entry of a batch.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A message.
    Message(Box<NewMessage>),
    /// What is no message, with the caller's words about it: a replay gives them back.
    Unfit(String),
}

/// A message about to be accepted.
#[derive(Clone, Debug)]
pub struct NewMessage {
    /// Its id.
    pub id: MessageId,
    /// Whose it is.
    pub tenant: TenantId,
    /// The app that sends it.
    pub appid: AppId,
    /// The message.
    pub draft: Draft,
    /// When it was asked for.
    pub received_at: DateTime<Utc>,
}

/// What makes a repeated request recognisable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// The caller's key, unique in its tenant for as long as it is kept.
    pub key: String,
    /// A hash of the request: the same key with another one is refused.
    pub fingerprint: [u8; 32],
    /// How long it is kept.
    pub kept_for: Duration,
}

impl IdempotencyKey {
    /// How long the API keeps a key.
    pub const DAY: Duration = Duration::from_hours(24);
}

/// What became of a [`Submission`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is new: what became of each of its messages, in order.
    Fresh(Vec<Received>),
    /// Its key stands for this request already: what was answered then.
    Replayed(FirstAnswer),
    /// Its key stands for another request.
    KeyReused,
    /// Its key was being claimed for another submission, or forgotten, by this call: hand it in again.
    Twin,
    /// The tenant has no such app.
    NoSuchApp,
}

/// What became of a [`NewMessage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Received {
    /// It is in the queue (or, as a dry run, would be).
    Stored,
    /// The app is of a kind that cannot send on the message's channel.
    WrongKind(AppKind),
    /// A limit of the day stands against it.
    Spent(Spent),
}

/// A limit of the day that is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spent {
    /// The app's quota, and the message would expire before the next day.
    App {
        /// When the next day begins.
        reset_at: DateTime<Utc>,
    },
    /// The messages that the tenant may hand in.
    Tenant {
        /// How many those are.
        limit: u64,
        /// When the next day begins.
        reset_at: DateTime<Utc>,
    },
}

/// What a request was answered with when its key was new.
///
/// The same bytes make the same messages, so whoever repeats a request brings them along: only their ids, their
/// time and what was refused are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirstAnswer {
    /// A message was accepted.
    One {
        /// Its id.
        id: MessageId,
        /// When it was asked for.
        received_at: DateTime<Utc>,
    },
    /// A batch was answered.
    Batch {
        /// Entry by entry.
        entries: Vec<FirstEntry>,
        /// When it was asked for.
        received_at: DateTime<Utc>,
    },
}

/// What was answered about an entry of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirstEntry {
    /// It was a message.
    Message(MessageId, Received),
    /// It was none: the caller's words.
    Unfit(String),
}

impl Submission {
    /// Its messages, in order.
    pub fn messages(&self) -> impl Iterator<Item = &NewMessage> {
        let (one, batch) = match &self.load {
            Load::One(new) => (Some(&**new), &[][..]),
            Load::Batch(entries) => (None, &entries[..]),
        };
        let of_batch = batch.iter().filter_map(|entry| match entry {
            Entry::Message(new) => Some(&**new),
            Entry::Unfit(_) => None,
        });
        one.into_iter().chain(of_batch)
    }

    /// Its messages that `taken` puts into the queue.
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
    /// The status it is accepted with.
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

    /// The message as it stands at its acceptance.
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
