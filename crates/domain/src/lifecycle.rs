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
//! *Unsent* means that WeChat answered every try. Once a try had no answer, WeChat may have the message: what would end
//! it as failed, expired or canceled ends it as uncertain. A retry by hand permits one more send; it does not answer the
//! earlier try.
//!
//! Nothing else may change a status. A state that ends is left by an explicit [`Event::Retry`] alone;
//! a receipt of WeChat's may still settle what was `sent` or `uncertain`, and so may WeChat's own word about the
//! send, where it comes after the lease ([`Verdict::is_final`]).

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    message::OnUncertain,
    retry::Delay,
    verdict::{FailureCode, Verdict},
};

/// Where a message is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Accepted, to be sent at a later time.
    Scheduled,
    /// Accepted, to be sent as soon as it can.
    Queued,
    /// With a worker.
    Sending,
    /// WeChat answered errcode 0.
    Sent,
    /// WeChat's event says that it arrived.
    Delivered,
    /// WeChat's event says that it did not arrive.
    Undelivered,
    /// WeChat refuses it for good.
    Failed,
    /// Its ttl ran out before it could be sent.
    Expired,
    /// Its tenant called it back in time.
    Canceled,
    /// WeChat may or may not have it.
    Uncertain,
}

impl Status {
    /// Every status there is.
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

    /// The word in the API and the database.
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

    /// The status named `text`.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }

    /// Whether the gateway is done with the message. `sent` counts: what WeChat does with it is WeChat's.
    pub fn is_end(self) -> bool {
        !matches!(self, Self::Scheduled | Self::Queued | Self::Sending)
    }
}

/// What the state machine needs to know of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Where it is.
    pub status: Status,
    /// How many times it was claimed for sending.
    pub attempts: u32,
    /// Until when it may be sent.
    pub expires_at: DateTime<Utc>,
    /// What its tenant wants when the outcome of a send is unknown.
    pub on_uncertain: OnUncertain,
    /// Until when WeChat itself refuses a second copy, where it does.
    pub repeatable_until: Option<DateTime<Utc>>,
    /// Whether an earlier try had no answer, also one before a retry by hand: then the message can end unsent no more,
    /// only `uncertain`.
    pub maybe_sent: bool,
}

/// What happened to a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Its time has come.
    Due,
    /// A worker took it.
    Claimed,
    /// The send came to a verdict.
    Answered(Verdict),
    /// The worker gave it back without having sent it.
    Released,
    /// The worker's lease ended without word from it.
    LeaseEnded,
    /// Its ttl ran out.
    Lapsed,
    /// Its tenant calls it back.
    Cancel,
    /// Its tenant wants it sent again.
    Retry {
        /// From when: the time for which it was scheduled, where that is still to come.
        due_at: DateTime<Utc>,
    },
    /// WeChat's event about a message it took.
    Receipt {
        /// Whether it arrived.
        delivered: bool,
    },
}

/// What an event makes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The new status.
    pub status: Status,
    /// When it is due, where the new status is `scheduled` or `queued`.
    pub due_at: Option<DateTime<Utc>>,
    /// Why it did not arrive, where the new status says so.
    pub failure: Option<FailureCode>,
}

/// An event that a message in this status cannot have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message that is {} cannot {attempted}", status.as_str())]
pub struct Refusal {
    /// Where the message is.
    pub status: Status,
    /// What was asked.
    pub attempted: &'static str,
}

impl Facts {
    /// What `event` at `now` makes of this message. `jitter` is a random value in `0.0..1.0`.
    pub fn apply(
        &self,
        event: &Event,
        now: DateTime<Utc>,
        jitter: f64,
    ) -> Result<Transition, Refusal> {
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
            (status, event) => Err(Refusal {
                status,
                attempted: event.verb(),
            }),
        }
    }

    fn answered(&self, verdict: &Verdict, now: DateTime<Utc>, jitter: f64) -> Transition {
        match verdict {
            Verdict::Accepted { .. } => to(Status::Sent, None),
            // It answers this try alone: an earlier one without an answer may have arrived.
            Verdict::Rejected(code) => self.unsent(Status::Failed, Some(*code)),
            Verdict::Later(delay) => {
                self.queued_in_time(delay.next_try(now, self.attempts, jitter))
            }
            // The engine repeats once, with a fresh token or the same; what comes here is the second refusal of one that
            // is alive.
            Verdict::StaleToken => {
                self.queued_in_time(Delay::Backoff.next_try(now, self.attempts, jitter))
            }
            // The whole app rests: its messages go on as soon as it does, which a repair may bring early.
            Verdict::AppBlocked { .. } | Verdict::QuotaSpent => self.queued_in_time(now),
            Verdict::Unknown => self.unknown(now, jitter),
        }
    }

    fn unknown(&self, now: DateTime<Utc>, jitter: f64) -> Transition {
        let again = Delay::Backoff.next_try(now, self.attempts, jitter);
        let harmless = self.repeatable_until.is_some_and(|until| again < until);
        let wanted = harmless || self.on_uncertain == OnUncertain::Retry;
        // With no time for a repeat it stays unknown whether it was sent.
        if wanted && again < self.expires_at {
            queued(again)
        } else {
            UNCERTAIN
        }
    }

    /// Queued for `due_at`; a message that would come too late ends now rather than then.
    fn queued_in_time(&self, due_at: DateTime<Utc>) -> Transition {
        if due_at >= self.expires_at {
            self.unsent(Status::Expired, EXPIRED)
        } else {
            queued(due_at)
        }
    }

    /// The end of a message that is not sent any more.
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
    /// Whether it is WeChat's last word about the message.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Answered(verdict) if verdict.is_final())
    }

    fn verb(&self) -> &'static str {
        match self {
            Self::Due => "become due",
            Self::Claimed => "be claimed",
            Self::Answered(_) => "be answered",
            Self::Released => "be given back",
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
