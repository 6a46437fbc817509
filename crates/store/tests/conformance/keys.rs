//! Idempotency keys: the same rules on SQLite and on PostgreSQL.

use std::time::Duration;

use crate::{
    common::{appid, at, draft, hand_in, on_both, one},
    queue::{Sender, claim},
};
use domain::message::Draft;
use wxgate_store::{
    BatchEntry, FirstAnswer, FirstEntry, IdempotencyKey, NewMessage, Received, Store, Submission,
    SubmissionBody, Taken,
};

on_both! {
    a_key_stands_for_one_request
    a_refused_message_leaves_its_key_free
    a_batch_is_answered_the_same_again
    twins_at_two_replicas_make_one_message
    an_old_key_is_free_before_it_is_forgotten
    old_keys_are_forgotten
}

/// A key for a request with this fingerprint.
pub(crate) fn key(name: &str, fingerprint: u8) -> IdempotencyKey {
    IdempotencyKey {
        key: name.to_owned(),
        fingerprint: [fingerprint; 32],
        kept_for: IdempotencyKey::DAY,
    }
}

/// A batch of the tenant that sends `first`.
pub(crate) fn batch(
    first: &NewMessage,
    key: IdempotencyKey,
    entries: Vec<BatchEntry>,
) -> Submission {
    Submission {
        tenant: first.tenant,
        appid: first.appid.clone(),
        key: Some(key),
        received_at: first.received_at,
        load: SubmissionBody::Batch(entries),
    }
}

fn stored() -> Taken {
    Taken::Fresh(vec![Received::Stored])
}

async fn a_key_stands_for_one_request(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let mut keyed = |fingerprint: u8, seconds: i64| {
        let new = sender.new_message(1, draft("o1"), at(seconds));
        one(new, key("order-42", fingerprint))
    };
    let (first, twin, other) = (keyed(1, 0), keyed(1, 5), keyed(2, 5));
    let id = first.messages().next().unwrap().id;
    // Of twins in one call all but the first must be submitted again.
    let taken = hand_in(&store, &[first, twin.clone(), other.clone()], at(0)).await;
    assert_eq!(taken, [stored(), Taken::Twin, Taken::Twin]);
    let replayed = Taken::Replayed(FirstAnswer::One {
        id,
        received_at: at(0),
    });
    let again = [twin.clone(), other, twin];
    assert_eq!(
        hand_in(&store, &again, at(1)).await,
        [replayed.clone(), Taken::KeyReused, replayed]
    );
    assert_eq!(claim(&store, 8, at(1)).await.len(), 1);
}

async fn a_refused_message_leaves_its_key_free(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let mut at_app = |app| one(sender.new_message(app, draft("o1"), at(0)), key("k", 1));
    let (unknown, good) = (at_app(9), at_app(1));
    assert_eq!(hand_in(&store, &[unknown], at(0)).await, [Taken::NoSuchApp]);
    let dry = Draft {
        dry_run: true,
        ..draft("o1")
    };
    let dry = one(sender.new_message(1, dry, at(0)), key("k", 2));
    assert_eq!(hand_in(&store, &[dry], at(0)).await, [stored()]);
    assert_eq!(hand_in(&store, &[good], at(0)).await, [stored()]);
}

async fn a_batch_is_answered_the_same_again(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let mut news = |at| [1, 2].map(|_| sender.new_message(1, draft("o1"), at));
    let entries = |[first, second]: [NewMessage; 2], words: &str| {
        vec![
            BatchEntry::Message(Box::new(first)),
            BatchEntry::Unfit(words.to_owned()),
            BatchEntry::Message(Box::new(second)),
        ]
    };
    let (first, again) = (news(at(0)), news(at(9)));
    let ids = first.clone().map(|new| new.id);
    let request = batch(&first[0], key("b", 1), entries(first.clone(), "a hat"));
    let taken = hand_in(&store, &[request], at(0)).await;
    assert_eq!(taken, [Taken::Fresh(vec![Received::Stored; 2])]);

    let request = batch(&again[0], key("b", 1), entries(again.clone(), "a coat"));
    let taken = hand_in(&store, &[request], at(9)).await;
    let kept = vec![
        FirstEntry::Message(ids[0], Received::Stored),
        FirstEntry::Unfit("a hat".into()),
        FirstEntry::Message(ids[1], Received::Stored),
    ];
    let replayed = Taken::Replayed(FirstAnswer::Batch {
        entries: kept,
        received_at: at(0),
    });
    assert_eq!(taken, [replayed]);

    // A batch without a valid message still keeps an answer under its key, for no other request.
    let unfit = || vec![BatchEntry::Unfit("a hat".into())];
    let request = batch(&first[0], key("c", 1), unfit());
    assert_eq!(
        hand_in(&store, &[request], at(0)).await,
        [Taken::Fresh(Vec::new())]
    );
    let other = batch(&first[0], key("c", 2), unfit());
    assert_eq!(hand_in(&store, &[other], at(0)).await, [Taken::KeyReused]);
    let nowhere = Submission {
        appid: appid(9),
        ..batch(&first[0], key("d", 1), unfit())
    };
    assert_eq!(hand_in(&store, &[nowhere], at(0)).await, [Taken::NoSuchApp]);
}

/// Two replicas submit the same keys at once, in opposite orders: one replica gets each key, and there is no deadlock.
async fn twins_at_two_replicas_make_one_message(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    for round in 0..20u8 {
        let mut request = |name: u8| {
            let new = sender.new_message(1, draft("o1"), at(0));
            one(new, key(&format!("{round}-{name}"), 1))
        };
        let there: Vec<_> = (0..8).map(&mut request).collect();
        let back: Vec<_> = (0..8).rev().map(&mut request).collect();
        let (there, mut back) = tokio::join!(
            hand_in(&store, &there, at(0)),
            hand_in(&store, &back, at(0))
        );
        back.reverse();
        for (one, other) in there.iter().zip(&back) {
            let replayed = |taken: &Taken| matches!(taken, Taken::Replayed(_));
            assert!(
                (*one == stored() && replayed(other)) || (replayed(one) && *other == stored()),
                "{one:?} and {other:?}"
            );
        }
    }
}

async fn an_old_key_is_free_before_it_is_forgotten(store: Store) {
    const DAY: i64 = 24 * 3600;
    let mut sender = Sender::new(&store, 1).await;
    let mut keyed = |fingerprint: u8, seconds: i64| {
        let new = sender.new_message(1, draft("o1"), at(seconds));
        one(new, key("k", fingerprint))
    };
    let (first, late, next) = (keyed(1, 0), keyed(2, DAY), keyed(2, DAY + 1));
    let (again, elsewhere) = (keyed(2, 2 * DAY), keyed(1, 2 * DAY));
    hand_in(&store, &[first], at(0)).await;
    assert_eq!(hand_in(&store, &[late], at(DAY)).await, [Taken::KeyReused]);
    // A refused message does not claim the key, and the expired answer is not repeated either.
    let door = store.tenant(next.tenant);
    let knows = async |seconds| door.knows_key(&key("k", 1), at(seconds)).await.unwrap();
    assert_eq!((knows(DAY).await, knows(DAY + 1).await), (true, false));
    let nowhere = Submission {
        appid: appid(9),
        ..batch(
            next.messages().next().unwrap(),
            key("k", 1),
            vec![BatchEntry::Unfit("a hat".into())],
        )
    };
    assert_eq!(
        hand_in(&store, &[nowhere], at(DAY + 1)).await,
        [Taken::NoSuchApp]
    );
    let id = next.messages().next().unwrap().id;
    assert_eq!(hand_in(&store, &[next], at(DAY + 1)).await, [stored()]);
    let replayed = Taken::Replayed(FirstAnswer::One {
        id,
        received_at: at(DAY + 1),
    });
    let taken = hand_in(&store, &[again], at(2 * DAY)).await;
    assert_eq!(taken, [replayed]);
    let taken = hand_in(&store, &[elsewhere], at(2 * DAY)).await;
    assert_eq!(taken, [Taken::KeyReused]);
}

async fn old_keys_are_forgotten(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let mut keyed = |kept_for| {
        let key = IdempotencyKey {
            kept_for,
            ..key("k", 1)
        };
        one(sender.new_message(1, draft("o1"), at(0)), key)
    };
    let day = 24 * 3600;
    let forgotten = async |seconds| {
        let platform = store.platform();
        let swept = platform.forget_idempotency_keys(at(seconds)).await;
        swept.unwrap().moved
    };
    let week = Duration::from_hours(7 * 24);
    let (first, second) = (keyed(IdempotencyKey::DAY), keyed(week));
    hand_in(&store, &[first], at(0)).await;
    assert_eq!(forgotten(day).await, 0);
    assert_eq!(forgotten(day + 1).await, 1);
    assert_eq!(hand_in(&store, &[second], at(0)).await, [stored()]);
    assert_eq!(forgotten(7 * day).await, 0);
    assert_eq!(forgotten(7 * day + 1).await, 1);
}
