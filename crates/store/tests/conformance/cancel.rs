//! Canceled messages: the same rules on SQLite and on PostgreSQL.

use std::collections::BTreeSet;

use crate::{
    common::{appid, at, draft, new_app, on_both, onboard},
    queue::{Sender, accepted, claim, record},
    webhooks::{endpoint, told},
};
use domain::{
    id::{self, MessageId, WebhookId},
    lifecycle::{Event, Status},
    message::{Draft, OnUncertain},
    verdict::{Attempt, FailureCode, Outcome},
    webhook::{EventFilter, EventType},
};
use wxgate_store::{Canceled, Store, WebhookDelivery};

on_both! {
    what_is_unsent_is_called_back_once
    what_has_left_is_not_called_back
    a_claim_and_a_cancel_share_nothing
    the_next_one_behind_is_released
    another_tenants_message_is_not_there
    what_may_have_been_sent_ends_uncertain
    what_a_removed_app_may_have_sent_ends_uncertain
}

async fn cancel(sender: &Sender<'_>, store: &Store, id: MessageId, seconds: i64) -> Canceled {
    let door = store.tenant(sender.tenant);
    door.cancel(id, at(seconds)).await.unwrap()
}

async fn what_is_unsent_is_called_back_once(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let later = Draft {
        send_at: Some(at(100)),
        ..draft("o1")
    };
    for draft in [draft("o1"), later] {
        let id = sender.send(1, draft, at(0)).await;
        let Canceled::Now { message, .. } = cancel(&sender, &store, id, 5).await else {
            unreachable!("it was not sent")
        };
        assert_eq!(
            (message.status, message.updated_at),
            (Status::Canceled, at(5))
        );
        let read = store.tenant(sender.tenant).message(id).await.unwrap();
        assert_eq!(read.as_ref(), Some(&message));
        let again = cancel(&sender, &store, id, 9).await;
        assert_eq!(again, Canceled::Before(message));
    }
    assert!(claim(&store, 8, at(200)).await.is_empty());
    assert_eq!(store.platform().next_due().await.unwrap(), None);
}

async fn what_has_left_is_not_called_back(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let id = sender.send(1, draft("o1"), at(0)).await;
    let flights = claim(&store, 8, at(1)).await;
    let refused = async || match cancel(&sender, &store, id, 2).await {
        Canceled::Refused(refusal) => refusal.status,
        other => unreachable!("{other:?}"),
    };
    assert_eq!(refused().await, Status::Sending);
    assert_eq!(record(&store, &flights, &accepted(1), at(3)).await, 1);
    assert_eq!(refused().await, Status::Sent);
    assert_eq!(sender.status(id).await, Status::Sent);
}

/// A message is either claimed or canceled, never both.
async fn a_claim_and_a_cancel_share_nothing(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let (mut flown, mut canceled) = (0, 0);
    for round in 0..40 {
        let id = sender.send(1, draft(&format!("o{round}")), at(0)).await;
        let (flights, outcome) =
            tokio::join!(claim(&store, 8, at(1)), cancel(&sender, &store, id, 1));
        let flies = flights.iter().any(|flight| flight.id == id);
        match outcome {
            Canceled::Now { .. } => assert!(!flies, "it flies and is canceled"),
            Canceled::Refused(_) => assert!(flies, "nobody has it"),
            other => unreachable!("{other:?}"),
        }
        flown += u32::from(flies);
        canceled += u32::from(!flies);
        record(&store, &flights, &accepted(1), at(2)).await;
    }
    assert_eq!(flown + canceled, 40);
}

async fn the_next_one_behind_is_released(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(sender.send(1, draft("o1"), at(0)).await);
    }
    let first = claim(&store, 8, at(1)).await;
    assert_eq!(first.len(), 1, "one flight for each user");
    // The end of the first message makes the second ready. The third stays behind the second.
    record(&store, &first, &accepted(1), at(2)).await;
    let Canceled::Now { released, .. } = cancel(&sender, &store, ids[1], 3).await else {
        unreachable!("it was not sent")
    };
    assert!(released);
    let next = claim(&store, 8, at(3)).await;
    assert_eq!(
        next.iter().map(|flight| flight.id).collect::<Vec<_>>(),
        [ids[2]]
    );
}

async fn another_tenants_message_is_not_there(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let stranger = store.tenant(onboard(&store, 2, 10).await);
    let id = sender.send(1, draft("o1"), at(0)).await;
    for id in [id, id::new(at(0), 9, 9)] {
        let outcome = stranger.cancel(id, at(1)).await.unwrap();
        assert_eq!(outcome, Canceled::NoSuchMessage);
    }
    assert_eq!(sender.status(id).await, Status::Queued);
}

async fn what_may_have_been_sent_ends_uncertain(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let webhook = endpoint(&store, sender.tenant, 1, EventFilter::All).await;
    let id = unanswered(&mut sender, &store, "o1", 61).await;
    let Canceled::Now { message, .. } = cancel(&sender, &store, id, 62).await else {
        unreachable!("it was not sent again")
    };
    let failure = message.failure.clone().map(|failure| failure.code);
    assert_eq!(
        (message.status, failure),
        (Status::Uncertain, Some(FailureCode::Unanswered))
    );
    let read = store.tenant(sender.tenant).message(id).await.unwrap();
    assert_eq!(read, Some(message));
    assert_eq!(told_uncertain(&sender, webhook).await, BTreeSet::from([id]));
}

/// The messages with an `uncertain` event. The endpoint must get no other events.
async fn told_uncertain(sender: &Sender<'_>, webhook: WebhookId) -> BTreeSet<MessageId> {
    let told = told(sender.store, sender.tenant, webhook).await;
    let is_uncertain = |one: &WebhookDelivery| one.kind == EventType::MessageUncertain;
    assert!(told.iter().all(is_uncertain), "{told:?}");
    told.iter().filter_map(|one| one.message).collect()
}

/// A message that is repeated some seconds after `lost`, because the first attempt had no answer.
async fn unanswered(sender: &mut Sender<'_>, store: &Store, touser: &str, lost: i64) -> MessageId {
    let wanted_again = Draft {
        on_uncertain: OnUncertain::Retry,
        ..draft(touser)
    };
    let id = sender.send(1, wanted_again, at(0)).await;
    let mut flights = claim(store, 8, at(1)).await;
    assert_eq!(flights.len(), 1);
    flights[0].attempts.push(Attempt {
        number: 1,
        started_at: at(1),
        duration_ms: 0,
        outcome: Outcome::Unknown,
        errcode: None,
        errmsg: None,
        rid: None,
    });
    record(store, &flights, &Event::LeaseEnded, at(lost)).await;
    assert_eq!(sender.status(id).await, Status::Queued);
    id
}

async fn what_a_removed_app_may_have_sent_ends_uncertain(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let door = store.tenant(sender.tenant);
    let platform = store.platform();
    let webhook = endpoint(&store, sender.tenant, 1, EventFilter::All).await;
    let mut flying = Vec::new();
    for touser in ["o1", "o2"] {
        flying.push(unanswered(&mut sender, &store, touser, 61).await);
    }
    platform.promote(at(600)).await.unwrap();
    let mut flights = claim(&store, 8, at(600)).await;
    flights.sort_by_key(|flight| flight.id);
    let waiting = unanswered(&mut sender, &store, "o3", 2000).await;
    let ready = unanswered(&mut sender, &store, "o4", 61).await;
    platform.promote(at(600)).await.unwrap();
    let untried = sender.send(1, draft("o5"), at(0)).await;
    let end = async |id| {
        let message = door.message(id).await.unwrap().unwrap();
        (message.status, message.failure.map(|failure| failure.code))
    };
    let uncertain = (Status::Uncertain, Some(FailureCode::Unanswered));

    door.delete_app(&appid(1), at(3000)).await.unwrap();
    assert_eq!(end(waiting).await, uncertain);
    assert_eq!(end(ready).await, uncertain);
    assert_eq!(end(untried).await, (Status::Canceled, None));

    // One message is released while the app is removed, the other while the appid has another owner.
    record(&store, &flights[..1], &Event::Released, at(3001)).await;
    assert!(claim(&store, 8, at(3002)).await.is_empty());
    assert_eq!(end(flying[0]).await, uncertain);
    let owner = store.tenant(onboard(&store, 2, 10).await);
    owner.create_app(new_app(1), at(3003)).await.unwrap();
    record(&store, &flights[1..], &Event::Released, at(3004)).await;
    assert!(claim(&store, 8, at(3005)).await.is_empty());
    assert_eq!(end(flying[1]).await, uncertain);

    let expected = BTreeSet::from([waiting, ready, flying[0], flying[1]]);
    assert_eq!(told_uncertain(&sender, webhook).await, expected);
}
