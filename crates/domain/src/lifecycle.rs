//! The life of a message as a pure state machine.
//!
//! ```text
//! scheduled ─Due→ queued ─Claimed→ sending ─Answered→ sent ─Receipt→ delivered | undelivered
//!                   ↑                 ├─ later, app blocked, quota spent → queued
//!                   └── Retry ─┐      ├─ rejected → failed
//!  canceled ← Cancel (unsent)  │      └─ unknown, lease over → uncertain (or queued, where repeating is allowed)
//!  expired  ← Lapsed (unsent)  └── failed, expired, canceled, uncertain, undelivered
//! ```
//!
//! Nothing else may change a status. A state that ends is left by an explicit [`Event::Retry`] alone;
//! a receipt of WeChat's may still settle what was `sent` or `uncertain`.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    message::OnUncertain,
    quota,
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
    /// Whether WeChat itself refuses a second copy.
    pub repeatable: bool,
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
    /// Its tenant wants it sent again, until the given time.
    Retry {
        /// The new end of its ttl.
        expires_at: DateTime<Utc>,
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
    /// When it is due, where the new status is `queued`.
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
            (Scheduled | Queued, Event::Lapsed) => Ok(to(Expired, Some(FailureCode::Expired))),
            (Scheduled | Queued, Event::Cancel) => Ok(to(Canceled, None)),
            (Failed | Expired | Canceled | Uncertain | Undelivered, Event::Retry { .. }) => {
                Ok(queued(now))
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
            Verdict::Rejected(code) => to(Status::Failed, Some(*code)),
            Verdict::Later(delay) => {
                self.queued_in_time(delay.next_try(now, self.attempts, jitter))
            }
            // The engine repeats once with a fresh token; what comes here is the second refusal.
            Verdict::StaleToken => self.queued_in_time(crate::retry::Delay::Backoff.next_try(
                now,
                self.attempts,
                jitter,
            )),
            Verdict::AppBlocked { pause, .. } => self.queued_in_time(now + *pause),
            Verdict::QuotaSpent => self.queued_in_time(quota::reset_at(now)),
            Verdict::Unknown => self.unknown(now, jitter),
        }
    }

    fn unknown(&self, now: DateTime<Utc>, jitter: f64) -> Transition {
        if self.repeatable || self.on_uncertain == OnUncertain::Retry {
            self.queued_in_time(crate::retry::Delay::Backoff.next_try(now, self.attempts, jitter))
        } else {
            to(Status::Uncertain, Some(FailureCode::Unanswered))
        }
    }

    /// Queued for `due_at`; a message that would come too late ends now rather than then.
    fn queued_in_time(&self, due_at: DateTime<Utc>) -> Transition {
        if due_at >= self.expires_at {
            to(Status::Expired, Some(FailureCode::Expired))
        } else {
            queued(due_at)
        }
    }
}

impl Event {
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

fn queued(due_at: DateTime<Utc>) -> Transition {
    Transition {
        status: Status::Queued,
        due_at: Some(due_at),
        failure: None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{retry::Delay, verdict::BlockReason};
    use proptest::prelude::*;

    fn start() -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000, 0).unwrap()
    }

    fn sending() -> Facts {
        Facts {
            status: Status::Sending,
            attempts: 1,
            expires_at: start() + Duration::from_mins(2),
            on_uncertain: OnUncertain::Hold,
            repeatable: false,
        }
    }

    fn after(facts: Facts, verdict: Verdict) -> Transition {
        facts
            .apply(&Event::Answered(verdict), start(), 0.0)
            .unwrap()
    }

    #[test]
    fn a_broken_connection_is_uncertain_unless_repeating_is_allowed() {
        assert_eq!(after(sending(), Verdict::Unknown).status, Status::Uncertain);
        assert_eq!(
            after(
                Facts {
                    on_uncertain: OnUncertain::Retry,
                    ..sending()
                },
                Verdict::Unknown
            )
            .status,
            Status::Queued
        );
        assert_eq!(
            after(
                Facts {
                    repeatable: true,
                    ..sending()
                },
                Verdict::Unknown
            )
            .status,
            Status::Queued
        );
        assert_eq!(
            sending()
                .apply(&Event::LeaseEnded, start(), 0.0)
                .unwrap()
                .status,
            Status::Uncertain
        );
    }

    #[test]
    fn what_would_come_too_late_expires_at_once() {
        let late = Verdict::Later(Delay::After(Duration::from_secs(121)));
        assert_eq!(
            after(sending(), late),
            to(Status::Expired, Some(FailureCode::Expired))
        );
        assert_eq!(
            after(sending(), Verdict::QuotaSpent).status,
            Status::Expired
        );
        let soon = after(sending(), Verdict::Later(Delay::Backoff));
        assert_eq!(
            (soon.status, soon.due_at),
            (Status::Queued, Some(start() + Duration::from_secs(1)))
        );
    }

    #[test]
    fn an_end_is_left_by_a_retry_alone() {
        let sent = Facts {
            status: Status::Sent,
            ..sending()
        };
        let refusal = sent
            .apply(
                &Event::Retry {
                    expires_at: start(),
                },
                start(),
                0.0,
            )
            .unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "a message that is sent cannot be retried"
        );
        let failed = Facts {
            status: Status::Failed,
            ..sending()
        };
        assert_eq!(
            failed
                .apply(
                    &Event::Retry {
                        expires_at: start()
                    },
                    start(),
                    0.0
                )
                .unwrap()
                .status,
            Status::Queued
        );
        assert!(
            failed
                .apply(
                    &Event::Answered(Verdict::Accepted { msgid: None }),
                    start(),
                    0.0
                )
                .is_err()
        );
    }

    #[test]
    fn a_receipt_may_overtake_the_answer() {
        let delivered = sending()
            .apply(&Event::Receipt { delivered: true }, start(), 0.0)
            .unwrap();
        assert_eq!(delivered.status, Status::Delivered);
        let facts = Facts {
            status: delivered.status,
            ..sending()
        };
        assert!(
            facts
                .apply(&Event::Answered(Verdict::Unknown), start(), 0.0)
                .is_err()
        );
    }

    fn verdicts() -> impl Strategy<Value = Verdict> {
        prop_oneof![
            any::<Option<u64>>().prop_map(|msgid| Verdict::Accepted { msgid }),
            prop_oneof![
                Just(Delay::Backoff),
                Just(Delay::NextMinute),
                Just(Delay::Moment)
            ]
            .prop_map(Verdict::Later),
            (0u64..600)
                .prop_map(|seconds| Verdict::Later(Delay::After(Duration::from_secs(seconds)))),
            Just(Verdict::StaleToken),
            proptest::sample::select(FailureCode::ALL).prop_map(Verdict::Rejected),
            (0u64..3600).prop_map(|pause| Verdict::AppBlocked {
                reason: BlockReason::Suspended,
                pause: Duration::from_secs(pause)
            }),
            Just(Verdict::QuotaSpent),
            Just(Verdict::Unknown),
        ]
    }

    fn events() -> impl Strategy<Value = Event> {
        prop_oneof![
            2 => Just(Event::Due),
            6 => Just(Event::Claimed),
            6 => verdicts().prop_map(Event::Answered),
            1 => Just(Event::Released),
            1 => Just(Event::LeaseEnded),
            1 => Just(Event::Lapsed),
            1 => Just(Event::Cancel),
            1 => (1i64..100_000).prop_map(|ttl| Event::Retry { expires_at: start() + chrono::Duration::seconds(ttl) }),
            1 => any::<bool>().prop_map(|delivered| Event::Receipt { delivered }),
        ]
    }

    proptest! {
        /// Whatever happens, in whatever order: the machine stays legal.
        #[test]
        fn every_sequence_of_events_is_legal(
            scheduled in any::<bool>(),
            retry in any::<bool>(),
            history in proptest::collection::vec((events(), 0i64..600, 0.0..1.0f64), 0..60),
        ) {
            let mut now = start();
            let mut facts = Facts {
                status: if scheduled { Status::Scheduled } else { Status::Queued },
                attempts: 0,
                expires_at: start() + Duration::from_hours(1),
                on_uncertain: if retry { OnUncertain::Retry } else { OnUncertain::Hold },
                repeatable: false,
            };
            let mut possibly_sent = false;
            for (event, seconds, jitter) in history {
                now += chrono::Duration::seconds(seconds);
                let Ok(next) = facts.apply(&event, now, jitter) else { continue };

                // An end is left by an explicit retry or settled by a receipt, by nothing else.
                if facts.status.is_end() {
                    let allowed = matches!(event, Event::Retry { .. } | Event::Receipt { .. });
                    prop_assert!(allowed, "{:?} left {:?}", event, facts.status);
                }
                // Queued says when; no other status does, and never after the ttl.
                prop_assert_eq!(next.due_at.is_some(), next.status == Status::Queued);
                if let (Some(due_at), false) = (next.due_at, matches!(event, Event::Retry { .. } | Event::Due)) {
                    prop_assert!(due_at < facts.expires_at);
                }
                // A failure is told exactly where the message did not arrive.
                let told = matches!(next.status, Status::Failed | Status::Expired | Status::Uncertain | Status::Undelivered);
                prop_assert_eq!(next.failure.is_some(), told);
                // A send of unknown outcome is repeated only where that was asked for.
                if matches!(event, Event::Answered(Verdict::Unknown) | Event::LeaseEnded) {
                    possibly_sent = true;
                    prop_assert!(retry || next.status == Status::Uncertain);
                }
                // What was sent is never claimed again without an explicit retry.
                if let Event::Answered(Verdict::Accepted { .. }) = event {
                    prop_assert_eq!(next.status, Status::Sent);
                    possibly_sent = true;
                }
                if let Event::Retry { expires_at } = event {
                    facts.expires_at = expires_at;
                    possibly_sent = false;
                }
                if next.status == Status::Sending {
                    prop_assert!(!possibly_sent || retry);
                    facts.attempts += 1;
                }
                facts.status = next.status;
            }
        }
    }
}
