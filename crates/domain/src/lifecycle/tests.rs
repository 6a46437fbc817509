use std::time::Duration;

use super::*;
use crate::{retry::Delay, verdict::BlockReason};
use proptest::prelude::*;

fn start() -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000, 0).unwrap()
}

fn sending() -> MessageState {
    MessageState {
        status: Status::Sending,
        attempts: 1,
        expires_at: start() + Duration::from_mins(2),
        on_uncertain: OnUncertain::Hold,
        repeatable_until: None,
        maybe_sent: false,
    }
}

fn after(facts: MessageState, verdict: Verdict) -> Transition {
    facts
        .apply(&Event::Answered(verdict), start(), 0.0)
        .unwrap()
}

#[test]
fn a_broken_connection_is_uncertain_unless_repeating_is_allowed() {
    assert_eq!(after(sending(), Verdict::Unknown).status, Status::Uncertain);
    assert_eq!(
        after(
            MessageState {
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
            MessageState {
                repeatable_until: Some(start() + Duration::from_mins(9)),
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
fn wechats_refusal_of_copies_ends_after_its_time() {
    let repeatable = |until| MessageState {
        attempts: 8,
        expires_at: start() + Duration::from_hours(1),
        repeatable_until: Some(start() + until),
        ..sending()
    };
    let after = |until| after(repeatable(until), Verdict::Unknown).status;
    assert_eq!(after(Duration::from_mins(3)), Status::Queued);
    assert_eq!(after(Duration::from_mins(2)), Status::Uncertain);
}

#[test]
fn what_may_have_been_sent_does_not_end_unsent() {
    let facts = MessageState {
        status: Status::Queued,
        maybe_sent: true,
        ..sending()
    };
    for event in [Event::Lapsed, Event::Cancel] {
        let ended = facts.apply(&event, start(), 0.0).unwrap();
        assert_eq!(ended.status, Status::Uncertain);
    }
    let facts = MessageState {
        maybe_sent: true,
        ..sending()
    };
    let late = Verdict::Later(Delay::After(Duration::from_mins(3)));
    let refusals = FailureCode::ALL.iter().copied().map(Verdict::Rejected);
    for verdict in refusals.chain([late]) {
        let ended = after(facts, verdict);
        assert_eq!(
            (ended.status, ended.failure),
            (Status::Uncertain, Some(FailureCode::Unanswered))
        );
    }
}

#[test]
fn what_would_come_too_late_expires_at_once() {
    let late = Verdict::Later(Delay::After(Duration::from_secs(121)));
    assert_eq!(
        after(sending(), late),
        to(Status::Expired, Some(FailureCode::Expired))
    );
    let rests = after(sending(), Verdict::QuotaSpent);
    assert_eq!(
        (rests.status, rests.due_at),
        (Status::Queued, Some(start()))
    );
    let soon = after(sending(), Verdict::Later(Delay::Backoff));
    assert_eq!(
        (soon.status, soon.due_at),
        (Status::Queued, Some(start() + Duration::from_secs(1)))
    );
}

#[test]
fn an_end_is_left_by_a_retry_alone() {
    let sent = MessageState {
        status: Status::Sent,
        ..sending()
    };
    let refusal = sent
        .apply(&Event::Retry { due_at: start() }, start(), 0.0)
        .unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "a message that is sent cannot be retried"
    );
    let failed = MessageState {
        status: Status::Failed,
        ..sending()
    };
    assert_eq!(
        failed
            .apply(&Event::Retry { due_at: start() }, start(), 0.0)
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
    let facts = MessageState {
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
        (0u64..600).prop_map(|seconds| Verdict::Later(Delay::After(Duration::from_secs(seconds)))),
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
        1 => (0i64..40_000).prop_map(|later| Event::Retry { due_at: start() + chrono::Duration::seconds(later) }),
        1 => any::<bool>().prop_map(|delivered| Event::Receipt { delivered }),
    ]
}

proptest! {
    /// The state machine stays legal for any events in any order.
    #[test]
    fn every_sequence_of_events_is_legal(
        scheduled in any::<bool>(),
        retry in any::<bool>(),
        history in proptest::collection::vec((events(), 0i64..600, 0.0..1.0f64), 0..60),
    ) {
        let mut now = start();
        let mut facts = MessageState {
            status: if scheduled { Status::Scheduled } else { Status::Queued },
            attempts: 0,
            expires_at: start() + Duration::from_hours(1),
            on_uncertain: if retry { OnUncertain::Retry } else { OnUncertain::Hold },
            repeatable_until: None,
            maybe_sent: false,
        };
        // Whether the tenant has to ask before the gateway may repeat an attempt without an answer.
        let mut held = false;
        for (event, seconds, jitter) in history {
            now += chrono::Duration::seconds(seconds);
            let Ok(next) = facts.apply(&event, now, jitter) else { continue };

            // Only an explicit retry or a receipt changes the status of an ended message.
            if facts.status.is_end() {
                let allowed = matches!(event, Event::Retry { .. } | Event::Receipt { .. });
                prop_assert!(allowed, "{:?} left {:?}", event, facts.status);
            }
            // Only scheduled and queued have a due time, and the due time is never after the ttl.
            prop_assert_eq!(next.due_at.is_some(), matches!(next.status, Status::Scheduled | Status::Queued));
            if let (Some(due_at), false) = (next.due_at, matches!(event, Event::Retry { .. } | Event::Due)) {
                prop_assert!(due_at < facts.expires_at);
            }
            // A failure code is present exactly where the message did not arrive.
            let told = matches!(next.status, Status::Failed | Status::Expired | Status::Uncertain | Status::Undelivered);
            prop_assert_eq!(next.failure.is_some(), told);
            // The gateway repeats a send of unknown outcome only where the tenant asked for the repeat.
            if matches!(event, Event::Answered(Verdict::Unknown) | Event::LeaseEnded) {
                (facts.maybe_sent, held) = (true, true);
                prop_assert!(retry || next.status == Status::Uncertain);
            }
            // A sent message is never claimed again without an explicit retry.
            if let Event::Answered(Verdict::Accepted { .. }) = event {
                prop_assert_eq!(next.status, Status::Sent);
                held = true;
            }
            // A message that may have been sent never ends as unsent, not even after an explicit retry.
            if matches!(next.status, Status::Failed | Status::Expired | Status::Canceled) {
                prop_assert!(!facts.maybe_sent, "{:?} ended it as {:?}", event, next.status);
            }
            if next.status == Status::Uncertain {
                prop_assert!(facts.maybe_sent);
            }
            // A retry respects a schedule in the future, permits one more send, and answers no earlier attempt.
            if let Event::Retry { due_at } = event {
                prop_assert_eq!(next.status == Status::Scheduled, due_at > now);
                prop_assert_eq!(next.due_at, Some(due_at.max(now)));
                facts.expires_at = due_at.max(now) + Duration::from_hours(1);
                held = false;
            }
            if next.status == Status::Sending {
                prop_assert!(!held || retry);
                facts.attempts += 1;
            }
            facts.status = next.status;
        }
    }
}
