//! The life of a message as a pure state machine.
//!
//! ```text
//! scheduled ─Due→ queued ─Claimed→ sending ─Answered→ sent ─Receipt→ delivered | undelivered
//!                   ↑                 ├─ later, app blocked, quota spent → queued
//!                   └── Retry ─┐      ├─ rejected (unsent) → failed
//!  canceled ← Cancel (unsent)  │      └─ unknown, lease over → uncertain (or queued, where repeating is allowed)
//!  expired  ← Lapsed (unsent)  └── failed, expired, canceled, uncertain, undelivered
//! ```
//!
//! *Unsent* means that WeChat answered every attempt. After an attempt without an answer, WeChat may have the message:
//! an event that otherwise ends the message as failed, expired or canceled then ends the message as uncertain. A retry by
//! hand permits one more send; the retry does not answer the earlier attempt.
//!
//! One answer proves more: WeChat answers 41029 to the repeat of a send whose form id is used up. The attempt without
//! an answer has used that form id, so the worker reports the message as accepted. A prepay id proves nothing, because
//! other messages may have used the prepay id.
//!
//! `store::queue::unsent` applies the rule about unsent messages in SQL, for many messages at a time.
//!
//! No other event changes a status. Three events change a status that ends a message: an explicit [`Event::Retry`]; a
//! receipt from WeChat, for a message that is `sent` or `uncertain`; and a final answer of WeChat about the send that
//! arrives after the lease has ended ([`Verdict::is_final`]).

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    message::OnUncertain,
    retry::Delay,
    verdict::{FailureCode, Verdict},
};

/// The status of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Accepted, to be sent at a later time.
    Scheduled,
    /// Accepted, to be sent as soon as possible.
    Queued,
    /// A worker has claimed the message.
    Sending,
    /// WeChat answered errcode 0.
    Sent,
    /// WeChat's receipt says that the message arrived.
    Delivered,
    /// WeChat's receipt says that the message did not arrive.
    Undelivered,
    /// WeChat refuses the message permanently.
    Failed,
    /// The ttl ended before the gateway could send the message.
    Expired,
    /// The tenant canceled the message before the gateway sent the message.
    Canceled,
    /// WeChat may or may not have the message.
    Uncertain,
}

impl Status {
    /// All statuses.
    pub const ALL: [Self; 10] = [
        Self::Scheduled,
        Self::Queued,
        Self::Sending,
        Self::Sent,
        Self::Delivered,
        Self::Undelivered,
        Self::Failed,
        Self::Expired,
        Self::Canceled,
        Self::Uncertain,
    ];

    /// The name in the API and the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Queued => "queued",
            Self::Sending => "sending",
            Self::Sent => "sent",
            Self::Delivered => "delivered",
            Self::Undelivered => "undelivered",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Canceled => "canceled",
            Self::Uncertain => "uncertain",
        }
    }

    /// The status with the name `text`.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }

    /// Whether the gateway has finished with the message. `sent` counts as finished: delivery is up to WeChat.
    pub fn is_end(self) -> bool {
        !matches!(self, Self::Scheduled | Self::Queued | Self::Sending)
    }
}

/// The properties of a message that the state machine needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageState {
    /// The present status.
    pub status: Status,
    /// How many times workers have claimed the message.
    pub attempts: u32,
    /// The time until which the message may be sent.
    pub expires_at: DateTime<Utc>,
    /// What the tenant wants when the outcome of a send is unknown.
    pub on_uncertain: OnUncertain,
    /// The time until which WeChat itself refuses a second copy, where WeChat does so.
    pub repeatable_until: Option<DateTime<Utc>>,
    /// Whether an earlier attempt, including one before a retry by hand, had no answer. Such a message can no longer
    /// end as unsent, only as `uncertain`.
    pub maybe_sent: bool,
}

/// What happened to a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The time of a scheduled message has come.
    Due,
    /// A worker claimed the message.
    Claimed,
    /// The attempt ended with a verdict.
    Answered(Verdict),
    /// The worker released the message without having sent the message.
    Released,
    /// The worker's lease ended before the worker recorded an outcome.
    LeaseEnded,
    /// The ttl ended.
    Lapsed,
    /// The tenant cancels the message.
    Cancel,
    /// The tenant wants the gateway to send the message again.
    Retry {
        /// The earliest time of the new send: the scheduled time of the message, if this time is in the future.
        due_at: DateTime<Utc>,
    },
    /// WeChat's receipt for a message that WeChat accepted.
    Receipt {
        /// Whether the message arrived.
        delivered: bool,
    },
}

/// The change of a message that an event causes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The new status.
    pub status: Status,
    /// The due time, where the new status is `scheduled` or `queued`.
    pub due_at: Option<DateTime<Utc>>,
    /// The reason for the failure, where the new status is a failure.
    pub failure: Option<FailureCode>,
}

/// An event that is impossible in the present status of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message that is {} cannot {attempted}", status.as_str())]
pub struct ImpossibleEvent {
    /// The present status.
    pub status: Status,
    /// The refused change, as a verb for the error text.
    pub attempted: &'static str,
}

impl MessageState {
    /// The transition that `event` at `now` causes. `jitter` is a random value in `0.0..1.0`.
    pub fn apply(
        &self,
        event: &Event,
        now: DateTime<Utc>,
        jitter: f64,
    ) -> Result<Transition, ImpossibleEvent> {
        use Status::{
            Canceled, Delivered, Expired, Failed, Queued, Scheduled, Sending, Sent, Uncertain,
            Undelivered,
        };
        match (self.status, event) {
            (Scheduled, Event::Due) => Ok(queued(now)),
            (Queued, Event::Claimed) => Ok(to(Sending, None)),
            (Sending, Event::Answered(verdict)) => Ok(self.answered(verdict, now, jitter)),
            (Sending, Event::Released) => Ok(self.queued_in_time(now)),
            (Sending, Event::LeaseEnded) => Ok(self.unknown(now, jitter)),
            (Scheduled | Queued, Event::Lapsed) => Ok(self.unsent(Expired, EXPIRED)),
            (Scheduled | Queued, Event::Cancel) => Ok(self.unsent(Canceled, None)),
            (Failed | Expired | Canceled | Uncertain | Undelivered, Event::Retry { due_at }) => {
                Ok(if *due_at > now {
                    scheduled(*due_at)
                } else {
                    queued(now)
                })
            }
            (Sending | Sent | Uncertain, Event::Receipt { delivered: true }) => {
                Ok(to(Delivered, None))
            }
            (Sending | Sent | Uncertain, Event::Receipt { delivered: false }) => {
                Ok(to(Undelivered, Some(FailureCode::Undelivered)))
            }
            (status, event) => Err(ImpossibleEvent {
                status,
                attempted: event.verb(),
            }),
        }
    }

    fn answered(&self, verdict: &Verdict, now: DateTime<Utc>, jitter: f64) -> Transition {
        match verdict {
            Verdict::Accepted { .. } => to(Status::Sent, None),
            // The rejection answers this attempt alone: an earlier attempt without an answer may have arrived.
            Verdict::Rejected(code) => self.unsent(Status::Failed, Some(*code)),
            Verdict::Later(delay) => {
                self.queued_in_time(delay.next_try(now, self.attempts, jitter))
            }
            // The worker repeats a refused attempt once, with a fresh token or the same token. This verdict is the
            // second refusal, of a token that is alive.
            Verdict::StaleToken => {
                self.queued_in_time(Delay::Backoff.next_try(now, self.attempts, jitter))
            }
            // The whole app is paused. Its messages continue when the pause ends; a repair may end the pause early.
            Verdict::AppBlocked { .. } | Verdict::QuotaSpent => self.queued_in_time(now),
            Verdict::Unknown => self.unknown(now, jitter),
        }
    }

    fn unknown(&self, now: DateTime<Utc>, jitter: f64) -> Transition {
        let again = Delay::Backoff.next_try(now, self.attempts, jitter);
        let harmless = self.repeatable_until.is_some_and(|until| again < until);
        let wanted = harmless || self.on_uncertain == OnUncertain::Retry;
        // Without time for a repeat, the outcome stays unknown.
        if wanted && again < self.expires_at {
            queued(again)
        } else {
            UNCERTAIN
        }
    }

    /// Queued for `due_at`. A message whose `due_at` is not before `expires_at` ends now.
    fn queued_in_time(&self, due_at: DateTime<Utc>) -> Transition {
        if due_at >= self.expires_at {
            self.unsent(Status::Expired, EXPIRED)
        } else {
            queued(due_at)
        }
    }

    /// The end of a message that the gateway does not send any more.
    fn unsent(&self, end: Status, why: Option<FailureCode>) -> Transition {
        if self.maybe_sent {
            UNCERTAIN
        } else {
            to(end, why)
        }
    }
}

const EXPIRED: Option<FailureCode> = Some(FailureCode::Expired);

const UNCERTAIN: Transition = Transition {
    status: Status::Uncertain,
    due_at: None,
    failure: Some(FailureCode::Unanswered),
};

impl Event {
    /// Whether the event is WeChat's final answer about the message.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Answered(verdict) if verdict.is_final())
    }

    fn verb(&self) -> &'static str {
        match self {
            Self::Due => "become due",
            Self::Claimed => "be claimed",
            Self::Answered(_) => "be answered",
            Self::Released => "be released",
            Self::LeaseEnded => "lose its lease",
            Self::Lapsed => "expire",
            Self::Cancel => "be canceled",
            Self::Retry { .. } => "be retried",
            Self::Receipt { .. } => "have a receipt",
        }
    }
}

fn to(status: Status, failure: Option<FailureCode>) -> Transition {
    Transition {
        status,
        due_at: None,
        failure,
    }
}

fn scheduled(due_at: DateTime<Utc>) -> Transition {
    Transition {
        status: Status::Scheduled,
        due_at: Some(due_at),
        failure: None,
    }
}

fn queued(due_at: DateTime<Utc>) -> Transition {
    Transition {
        status: Status::Queued,
        due_at: Some(due_at),
        failure: None,
    }
}

#[cfg(test)]
mod tests;
