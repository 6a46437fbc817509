//! Leases: what happens to messages in flight without a record.

use std::time::Duration;

use crate::{
    common::{appid, at, draft, on_both},
    queue::{Sender, accepted, claim, record, settle},
};
use domain::{
    lifecycle::{Event, Status},
    message::{Draft, OnUncertain},
    retry::Delay,
    verdict::{FailureCode, Verdict},
};
use wxgate_store::{Settlement, Store};

on_both! {
    a_lost_lease_is_found_and_wechats_last_word_corrects_it
    a_message_that_flies_again_is_its_new_claims
    a_claim_that_nobody_got_is_taken_back
    a_retry_waits_and_comes_back
    a_lapsed_message_that_may_have_been_sent_is_uncertain
}

async fn a_lost_lease_is_found_and_wechats_last_word_corrects_it(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let id = sender.send(1, draft("o1"), at(0)).await;
    let flights = claim(&store, 8, at(1)).await;
    assert!(store.platform().overdue(at(60)).await.unwrap().is_empty());
    let lost = store.platform().overdue(at(61)).await.unwrap();
    assert_eq!(lost, flights);
    assert_eq!(record(&store, &lost, &Event::LeaseEnded, at(61)).await, 1);
    assert_eq!(sender.status(id).await, Status::Uncertain);
    let open = Event::Answered(Verdict::Later(Delay::Backoff));
    assert_eq!(
        record(&store, &flights, &open, at(62)).await,
        0,
        "no last word, and too late"
    );
    assert_eq!(record(&store, &flights, &accepted(1), at(62)).await, 1);
    assert_eq!(sender.status(id).await, Status::Sent);
    assert_eq!(
        record(&store, &flights, &accepted(2), at(63)).await,
        0,
        "it is settled"
    );
}

async fn a_message_that_flies_again_is_its_new_claims(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let wanted_again = Draft {
        on_uncertain: OnUncertain::Retry,
        ..draft("o1")
    };
    let id = sender.send(1, wanted_again, at(0)).await;
    let first = claim(&store, 8, at(1)).await;
    record(&store, &first, &Event::LeaseEnded, at(61)).await;
    store.platform().promote(at(70)).await.unwrap();
    let second = claim(&store, 8, at(70) + Duration::from_millis(5)).await;
    assert_eq!(second[0].id, id);
    assert_eq!(record(&store, &first, &accepted(1), at(71)).await, 0);
    assert_eq!(record(&store, &second, &accepted(2), at(71)).await, 1);
    assert_eq!(sender.status(id).await, Status::Sent);
}

async fn a_claim_that_nobody_got_is_taken_back(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let id = sender.send(1, draft("o1"), at(0)).await;
    let flights = claim(&store, 8, at(1)).await;
    let platform = store.platform();
    platform
        .undo_claim(flights[0].lease + 1, at(2))
        .await
        .unwrap();
    assert_eq!(sender.status(id).await, Status::Sending);
    platform.undo_claim(flights[0].lease, at(2)).await.unwrap();
    assert_eq!(sender.status(id).await, Status::Queued);
    let door = store.tenant(sender.tenant);
    assert_eq!(door.quota_use(&appid(1), at(2)).await.unwrap().used, 0);
    assert_eq!(claim(&store, 8, at(3)).await[0].claims, 1);
}

async fn a_retry_waits_and_comes_back(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let id = sender.send(1, draft("o1"), at(0)).await;
    let flights = claim(&store, 8, at(1)).await;
    let later = Event::Answered(Verdict::Later(Delay::After(Duration::from_secs(30))));
    record(&store, &flights, &later, at(1)).await;
    assert_eq!(sender.status(id).await, Status::Queued);
    assert!(claim(&store, 8, at(30)).await.is_empty());
    assert_eq!(store.platform().next_due().await.unwrap(), Some(at(31)));
    store.platform().promote(at(31)).await.unwrap();
    assert_eq!(claim(&store, 8, at(31)).await[0].id, id);
}

async fn a_lapsed_message_that_may_have_been_sent_is_uncertain(store: Store) {
    use domain::verdict::{Attempt, Outcome};
    let mut sender = Sender::new(&store, 1).await;
    let careless = Draft {
        on_uncertain: domain::message::OnUncertain::Retry,
        ..draft("o1")
    };
    let id = sender.send(1, careless, at(0)).await;
    let flights = claim(&store, 8, at(1)).await;
    let unknown = Attempt {
        number: 1,
        started_at: at(1),
        duration_ms: 5000,
        outcome: Outcome::Unknown,
        errcode: None,
        errmsg: Some("the connection broke".into()),
        rid: None,
    };
    let settlement = Settlement {
        attempts: vec![unknown],
        ..settle(&flights[0], &Event::Answered(Verdict::Unknown), at(6))
    };
    store
        .platform()
        .record(&[settlement], &[], at(6))
        .await
        .unwrap();
    assert_eq!(sender.status(id).await, Status::Queued);
    store.platform().expire(at(4000)).await.unwrap();
    let message = store
        .tenant(sender.tenant)
        .message(id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (message.status, message.failure.unwrap().code),
        (Status::Uncertain, FailureCode::Unanswered)
    );
}
