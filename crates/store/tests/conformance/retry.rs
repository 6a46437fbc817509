//! Messages retried by hand: the same rules on SQLite and on PostgreSQL.

use std::time::Duration;

use crate::{
    common::{appid, at, draft, on_both, onboard},
    keys::key,
    queue::{Sender, accepted, claim, record},
};
use chrono::{DateTime, Utc};
use domain::{
    id::MessageId,
    lifecycle::{Event, Status},
    message::{Draft, Priority},
    quota::{self, PriorityShares},
    verdict::{FailureCode, Verdict},
};
use uuid::Uuid;
use wxgate_store::{AppPatch, IdempotencyKey, Received, Retried, Spent, Store};

on_both! {
    what_has_ended_is_sent_again_with_its_whole_ttl
    what_is_open_or_sent_is_not_retried
    a_keyed_retry_happens_once
    a_retry_wants_quota
    a_retry_keeps_to_a_schedule_that_is_still_to_come
    a_retried_message_keeps_its_place_behind_a_flight
    what_is_gone_is_not_retried
    what_was_emptied_is_not_retried
}

async fn retry(
    sender: &Sender<'_>,
    store: &Store,
    id: MessageId,
    key: impl Into<Option<IdempotencyKey>>,
    now: DateTime<Utc>,
) -> Retried {
    let (door, key) = (store.tenant(sender.tenant), key.into());
    let retried = door
        .retry(id, key.as_ref(), PriorityShares::default(), now)
        .await;
    retried.unwrap()
}

fn refused_by_wechat() -> Event {
    Event::Answered(Verdict::Rejected(FailureCode::NoGrant))
}

async fn what_has_ended_is_sent_again_with_its_whole_ttl(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let id = sender.send(1, draft("o1"), at(0)).await;
    let flights = claim(&store, 8, at(1)).await;
    record(&store, &flights, &refused_by_wechat(), at(2)).await;
    assert_eq!(sender.status(id).await, Status::Failed);

    // Long after the end of the first ttl of one hour.
    let now = at(9000);
    let Retried::Queued(message) = retry(&sender, &store, id, None, now).await else {
        unreachable!("it had failed")
    };
    assert_eq!(
        (message.status, &message.failure, message.due_at),
        (Status::Queued, &None, now)
    );
    assert_eq!(message.expires_at, now + Duration::from_hours(1));
    let read = store.tenant(sender.tenant).message(id).await.unwrap();
    assert_eq!(read, Some(message));

    let flights = claim(&store, 8, now).await;
    assert_eq!(flights.len(), 1);
    record(&store, &flights, &accepted(7), now).await;
    assert_eq!(sender.status(id).await, Status::Sent);
}

async fn a_retry_keeps_to_a_schedule_that_is_still_to_come(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let scheduled = Draft {
        send_at: Some(at(500)),
        ..draft("o1")
    };
    let id = sender.send(1, scheduled, at(0)).await;
    store.tenant(sender.tenant).cancel(id, at(1)).await.unwrap();

    let Retried::Queued(message) = retry(&sender, &store, id, key("k", 1), at(2)).await else {
        unreachable!("it was canceled")
    };
    assert_eq!(
        (message.status, message.due_at, message.expires_at),
        (
            Status::Scheduled,
            at(500),
            at(500) + Duration::from_hours(1)
        )
    );
    let read = store.tenant(sender.tenant).message(id).await.unwrap();
    assert_eq!(read.as_ref(), Some(&message));
    let platform = store.platform();
    assert_eq!(platform.next_due().await.unwrap(), Some(at(500)));
    assert!(claim(&store, 8, at(499)).await.is_empty(), "not early");
    platform.promote(at(500)).await.unwrap();
    let flights = claim(&store, 8, at(500)).await;
    assert_eq!(flights.len(), 1);
    record(&store, &flights, &refused_by_wechat(), at(501)).await;

    let again = retry(&sender, &store, id, key("k", 1), at(502)).await;
    assert_eq!(again, Retried::Replayed(message), "as it was scheduled");
    // `send_at` has passed: the message is due at once, with the whole ttl.
    let Retried::Queued(message) = retry(&sender, &store, id, None, at(503)).await else {
        unreachable!("it had failed")
    };
    assert_eq!(
        (message.status, message.due_at, message.expires_at),
        (Status::Queued, at(503), at(503) + Duration::from_hours(1))
    );
}

async fn what_is_open_or_sent_is_not_retried(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let id = sender.send(1, draft("o1"), at(0)).await;
    let refused = async || match retry(&sender, &store, id, key("k", 1), at(3)).await {
        Retried::Refused(refusal) => refusal.status,
        other => unreachable!("{other:?}"),
    };
    assert_eq!(refused().await, Status::Queued);
    let flights = claim(&store, 8, at(1)).await;
    assert_eq!(refused().await, Status::Sending);
    record(&store, &flights, &accepted(1), at(2)).await;
    assert_eq!(refused().await, Status::Sent);

    // A refused retry has left the key free.
    let other = sender.send(1, draft("o2"), at(0)).await;
    let canceled = store.tenant(sender.tenant).cancel(other, at(4)).await;
    canceled.unwrap();
    let retried = retry(&sender, &store, other, key("k", 2), at(5)).await;
    assert!(matches!(retried, Retried::Queued(_)), "{retried:?}");
}

async fn a_keyed_retry_happens_once(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let id = sender.send(1, draft("o1"), at(0)).await;
    let flights = claim(&store, 8, at(1)).await;
    record(&store, &flights, &refused_by_wechat(), at(2)).await;

    let (one, other) = tokio::join!(
        retry(&sender, &store, id, key("k", 1), at(3)),
        retry(&sender, &store, id, key("k", 1), at(3))
    );
    let (first, replayed) = match (one, other) {
        (Retried::Queued(first), Retried::Replayed(replayed))
        | (Retried::Replayed(replayed), Retried::Queued(first)) => (first, replayed),
        other => unreachable!("{other:?}"),
    };
    assert_eq!(first, replayed);

    // The first answer, even though the message has changed since.
    let flights = claim(&store, 8, at(4)).await;
    record(&store, &flights, &accepted(7), at(5)).await;
    let again = retry(&sender, &store, id, key("k", 1), at(900)).await;
    assert_eq!(again, Retried::Replayed(first));
    assert_eq!(
        retry(&sender, &store, id, key("k", 2), at(900)).await,
        Retried::KeyReused
    );
    assert_eq!(sender.status(id).await, Status::Sent);
}

async fn a_retry_wants_quota(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let high = |name: &str| Draft {
        priority: Priority::High,
        ..draft(name)
    };
    let id = sender.send(1, high("o1"), at(0)).await;
    let flights = claim(&store, 8, at(1)).await;
    record(&store, &flights, &refused_by_wechat(), at(2)).await;
    let smaller = AppPatch {
        daily_quota: Some(1),
        ..AppPatch::default()
    };
    let door = store.tenant(sender.tenant);
    door.update_app(&appid(1), smaller, at(3)).await.unwrap();

    let reset_at = quota::reset_at(at(4));
    let spent = Retried::NotTaken(Received::Spent(Spent::App { reset_at }));
    assert_eq!(retry(&sender, &store, id, None, at(4)).await, spent);
    assert_eq!(sender.status(id).await, Status::Failed);
    let tomorrow = retry(&sender, &store, id, None, reset_at).await;
    assert!(matches!(tomorrow, Retried::Queued(_)), "{tomorrow:?}");
}

async fn a_retried_message_keeps_its_place_behind_a_flight(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let id = sender.send(1, draft("o1"), at(0)).await;
    store.tenant(sender.tenant).cancel(id, at(1)).await.unwrap();
    let other = sender.send(1, draft("o1"), at(1)).await;
    let flights = claim(&store, 8, at(2)).await;
    assert_eq!(flights[0].id, other);
    retry(&sender, &store, id, None, at(3)).await;
    assert!(
        claim(&store, 8, at(4)).await.is_empty(),
        "one flight a user"
    );
    record(&store, &flights, &accepted(1), at(5)).await;
    assert_eq!(claim(&store, 8, at(6)).await[0].id, id);
}

async fn what_is_gone_is_not_retried(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let id = sender.send(1, draft("o1"), at(0)).await;
    let stranger = store.tenant(onboard(&store, 2, 10).await);
    let theirs = stranger
        .retry(id, None, PriorityShares::default(), at(1))
        .await;
    assert_eq!(theirs.unwrap(), Retried::NoSuchMessage);
    let door = store.tenant(sender.tenant);
    door.delete_app(&appid(1), at(1)).await.unwrap();
    assert_eq!(sender.status(id).await, Status::Canceled);
    assert_eq!(
        retry(&sender, &store, id, None, at(2)).await,
        Retried::NoSuchApp
    );
}

async fn what_was_emptied_is_not_retried(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let id = sender.send(1, draft("o1"), at(0)).await;
    store.tenant(sender.tenant).cancel(id, at(1)).await.unwrap();
    let platform = store.platform();
    let dropped = platform
        .drop_payloads(Uuid::nil(), at(1000), at(1000))
        .await;
    assert_eq!(dropped.unwrap().messages, 1);
    assert_eq!(
        retry(&sender, &store, id, None, at(1001)).await,
        Retried::Emptied
    );
}
