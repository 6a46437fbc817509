//! The pool: form ids and prepay ids, each for one user.

use chrono::Duration;
use domain::{
    grant::{IdKind, usable_until},
    lifecycle::{Event, Status},
    retry::Delay,
    verdict::{FailureCode, Verdict},
};
use futures::future::join_all;
use wxgate_store::{Collected, Collection, Grant, GrantEntry, IdempotencyKey, Store, StoreError};

use super::{
    collect, end, failure, flight, form_id, grants, id, ids, ok, refused_id, rejected, remaining,
    sent_with, strict, subscription, template,
};
use crate::{
    common::{appid, at, on_both, onboard},
    queue::{Sender, claim, claim_batch},
};

on_both! {
    the_id_that_expires_first_is_taken_and_each_once
    an_id_is_its_users_and_its_apps
    a_refused_id_is_dropped_and_the_next_one_taken
    what_was_not_sent_gives_its_id_back
    an_id_that_may_have_been_used_stays_with_its_message
    a_prepay_id_is_good_for_three_and_one_in_doubt_is_spent
    a_claim_that_nobody_got_gives_back_what_it_took
    an_old_id_is_not_taken_and_forgotten_later
    collecting_again_changes_nothing
    concurrent_requests_with_the_same_ids_agree
    a_request_is_answered_the_same_under_its_key
}

async fn the_id_that_expires_first_is_taken_and_each_once(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let ages = [("middle", 20), ("youngest", 10), ("oldest", 30)];
    let entries = ages.map(|(value, minutes)| {
        let collected_at = at(0) - Duration::minutes(minutes);
        id(IdKind::FormId, "o1", value, collected_at)
    });
    collect(&store, sender.tenant, &entries).await;
    let mut messages = Vec::new();
    for _ in 0..4 {
        messages.push(sender.send(1, template("o1"), at(0)).await);
    }
    let mut used = Vec::new();
    for second in [1, 3, 5] {
        let flight = flight(&store, second).await;
        used.push(sent_with(&flight).to_owned());
        end(&store, &flight, &ok(), second + 1).await;
    }
    assert_eq!(used, ["oldest", "middle", "youngest"]);
    let before = store
        .tenant(sender.tenant)
        .quota_use(&appid(1), at(6))
        .await;
    let last = claim_batch(&store, 8, "", at(7)).await;
    assert!(last.claimed.is_empty());
    let failed: Vec<_> = last.ended.iter().map(|one| (one.id, one.status)).collect();
    assert_eq!(failed, [(messages[3], Status::Failed)]);
    let ended = (Status::Failed, Some(FailureCode::NoGrant));
    assert_eq!(failure(&sender, messages[3]).await, ended);
    let after = store
        .tenant(sender.tenant)
        .quota_use(&appid(1), at(7))
        .await;
    assert_eq!(before.unwrap().used, 3);
    assert_eq!(
        after.unwrap().used,
        3,
        "nothing was sent, nothing is charged"
    );
    let message = store.tenant(sender.tenant).message(messages[3]).await;
    let failure = message.unwrap().unwrap().failure.unwrap();
    assert!(
        failure
            .detail
            .contains("the form-id pool has no usable form id"),
        "{failure:?}"
    );
}

async fn an_id_is_its_users_and_its_apps(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    collect(&store, sender.tenant, &[form_id("o1", "f1")]).await;
    let other = sender.send(1, template("o2"), at(0)).await;
    let own = sender.send(1, template("o1"), at(0)).await;
    let flights = claim(&store, 8, at(1)).await;
    assert_eq!(flights.iter().map(|one| one.id).collect::<Vec<_>>(), [own]);
    assert_eq!(sender.status(other).await, Status::Failed);
    let stranger = onboard(&store, 2, 10).await;
    let (door, items) = (store.tenant(stranger), [form_id("o1", "f1")]);
    let foreign = door.collect(&appid(1), &items, None, at(1)).await;
    assert!(matches!(foreign, Err(StoreError::NotFound("app"))));
}

async fn a_refused_id_is_dropped_and_the_next_one_taken(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let old = id(IdKind::FormId, "o1", "bad", at(-60));
    collect(&store, sender.tenant, &[form_id("o1", "good"), old]).await;
    let message = sender.send(1, template("o1"), at(0)).await;
    let first = flight(&store, 1).await;
    assert_eq!(sent_with(&first), "bad");
    end(&store, &first, &refused_id(), 2).await;
    assert_eq!(sender.status(message).await, Status::Queued);
    let second = flight(&store, 2).await;
    assert_eq!(sent_with(&second), "good");
    end(&store, &second, &ok(), 3).await;
    assert_eq!(sender.status(message).await, Status::Sent);
    assert_eq!(ids(&store, sender.tenant, "o1").await, []);
}

async fn what_was_not_sent_gives_its_id_back(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    collect(&store, sender.tenant, &[form_id("o1", "f1")]).await;
    sender.send(1, template("o1"), at(0)).await;
    let busy = flight(&store, 1).await;
    assert!(ids(&store, sender.tenant, "o1").await[0].is_held);
    end(
        &store,
        &busy,
        &Event::Answered(Verdict::Later(Delay::Moment)),
        1,
    )
    .await;
    assert!(!ids(&store, sender.tenant, "o1").await[0].is_held);
    store.platform().promote(at(5)).await.unwrap();
    let again = flight(&store, 5).await;
    end(&store, &again, &rejected(FailureCode::InvalidPage), 6).await;
    sender.send(1, template("o1"), at(7)).await;
    let next = flight(&store, 7).await;
    assert_eq!(sent_with(&next), "f1");
}

async fn an_id_that_may_have_been_used_stays_with_its_message(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    collect(&store, sender.tenant, &[form_id("o1", "f1")]).await;
    let lost = sender.send(1, template("o1"), at(0)).await;
    flight(&store, 1).await;
    let overdue = store.platform().overdue(at(120)).await.unwrap();
    end(&store, &overdue[0], &Event::LeaseEnded, 120).await;
    assert_eq!(
        sender.status(lost).await,
        Status::Queued,
        "WeChat refuses a second copy with this id, so that it is sent again"
    );
    let other = sender.send(1, template("o1"), at(121)).await;
    let flights = claim(&store, 8, at(122)).await;
    assert!(flights.is_empty(), "{flights:?}");
    assert_eq!(
        sender.status(other).await,
        Status::Failed,
        "the id is nobody else's"
    );
    store.platform().promote(at(200)).await.unwrap();
    let again = flight(&store, 200).await;
    assert_eq!((again.id, sent_with(&again)), (lost, "f1"));
    // This attempt sends nothing. The attempt before stays uncertain, and the id stays with the message.
    end(&store, &again, &Event::Released, 201).await;
    assert!(ids(&store, sender.tenant, "o1").await[0].is_held);
    let third = flight(&store, 202).await;
    assert_eq!(sent_with(&third), "f1");
    end(&store, &third, &ok(), 203).await;
    assert_eq!(sender.status(lost).await, Status::Sent);
    assert_eq!(ids(&store, sender.tenant, "o1").await, []);
}

async fn a_prepay_id_is_good_for_three_and_one_in_doubt_is_spent(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let prepay = id(IdKind::PrepayId, "o1", "wx2017", at(0));
    collect(&store, sender.tenant, &[prepay]).await;
    let lost = sender.send(1, template("o1"), at(0)).await;
    flight(&store, 1).await;
    let overdue = store.platform().overdue(at(120)).await.unwrap();
    end(&store, &overdue[0], &Event::LeaseEnded, 120).await;
    assert_eq!(sender.status(lost).await, Status::Uncertain);
    let left = ids(&store, sender.tenant, "o1").await;
    assert_eq!((left[0].uses_left, left[0].is_held), (2, false));
    // WeChat's final answer comes late, and the use is counted already.
    end(&store, &overdue[0], &ok(), 121).await;
    assert_eq!(ids(&store, sender.tenant, "o1").await[0].uses_left, 2);
    for second in [130, 132] {
        sender.send(1, template("o1"), at(second)).await;
        let flight = flight(&store, second).await;
        end(&store, &flight, &ok(), second + 1).await;
    }
    assert_eq!(ids(&store, sender.tenant, "o1").await, []);
}

async fn a_claim_that_nobody_got_gives_back_what_it_took(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let items = [form_id("o1", "f1"), subscription("o2", 1)];
    collect(&store, sender.tenant, &items).await;
    sender.send(1, template("o1"), at(0)).await;
    sender.send(1, strict("o2"), at(0)).await;
    let flights = claim(&store, 8, at(1)).await;
    assert_eq!(flights.len(), 2);
    assert_eq!(remaining(&store, sender.tenant, "o2").await, 0);
    store
        .platform()
        .undo_claim(flights[0].lease, at(2))
        .await
        .unwrap();
    assert!(!ids(&store, sender.tenant, "o1").await[0].is_held);
    assert_eq!(remaining(&store, sender.tenant, "o2").await, 1);
    assert_eq!(claim(&store, 8, at(3)).await.len(), 2);
}

async fn an_old_id_is_not_taken_and_forgotten_later(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    collect(&store, sender.tenant, &[form_id("o1", "f1")]).await;
    let over = usable_until(at(0));
    assert_eq!(grants(&store, sender.tenant, "o1", over).await, []);
    let message = sender.send(1, template("o1"), over).await;
    assert!(claim(&store, 8, over).await.is_empty());
    assert_eq!(sender.status(message).await, Status::Failed);
    let platform = store.platform();
    assert_eq!(platform.forget_form_ids(over).await.unwrap().moved, 0);
    let later = over + Duration::days(1) + Duration::seconds(1);
    assert_eq!(platform.forget_form_ids(later).await.unwrap().moved, 1);
}

async fn collecting_again_changes_nothing(store: Store) {
    let sender = Sender::new(&store, 1).await;
    let items = [
        form_id("o1", "f1"),
        form_id("o1", "f1"),
        form_id("o2", "f1"),
    ];
    let results = collect(&store, sender.tenant, &items).await;
    let Collected::Added(Grant::Id(added)) = &results[0] else {
        panic!("{results:?}")
    };
    assert_eq!(
        (added.uses_left, added.is_held, added.usable_until),
        (1, false, usable_until(at(0)))
    );
    assert_eq!(results[1], Collected::Known(Grant::Id(added.clone())));
    assert_eq!(results[2], Collected::Foreign);
    let unfit = GrantEntry::Unfit("words".into());
    let results = collect(&store, sender.tenant, &[unfit, form_id("o1", "f1")]).await;
    assert_eq!(results[0], Collected::Unfit("words".into()));
    assert!(matches!(results[1], Collected::Known(_)));
    assert_eq!(collect(&store, sender.tenant, &[]).await, []);
}

async fn concurrent_requests_with_the_same_ids_agree(store: Store) {
    let sender = Sender::new(&store, 1).await;
    let (store, tenant) = (&store, sender.tenant);
    let requests = (0..8).map(|turn| async move {
        let mut items: Vec<GrantEntry> = (0..50)
            .map(|number| form_id("o1", &format!("f{number}")))
            .collect();
        items.rotate_left(turn * 6);
        items.push(subscription("o1", 1));
        collect(store, tenant, &items).await
    });
    let results = join_all(requests).await.into_iter().flatten();
    let added = results.filter(|one| matches!(one, Collected::Added(Grant::Id(_))));
    assert_eq!(added.count(), 50);
    assert_eq!(remaining(store, tenant, "o1").await, 8, "none is lost");
}

async fn a_request_is_answered_the_same_under_its_key(store: Store) {
    let sender = Sender::new(&store, 1).await;
    let door = store.tenant(sender.tenant);
    let key = |fingerprint: u8| IdempotencyKey {
        key: "k1".into(),
        fingerprint: [fingerprint; 32],
        kept_for: IdempotencyKey::DAY,
    };
    let items = [
        form_id("o1", "f1"),
        subscription("o1", 2),
        GrantEntry::Unfit("words".into()),
    ];
    let ask = async |fingerprint: u8| {
        let key = key(fingerprint);
        door.collect(&appid(1), &items, Some(&key), at(0)).await
    };
    let Collection::Fresh(first) = ask(1).await.unwrap() else {
        panic!("fresh")
    };
    assert_eq!(ask(1).await.unwrap(), Collection::Replayed(first));
    assert_eq!(ask(2).await.unwrap(), Collection::KeyReused);
    assert_eq!(remaining(&store, sender.tenant, "o1").await, 2);
}
