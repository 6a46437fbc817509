//! Receipts of messages with a lost answer: the same rules on SQLite and on PostgreSQL.

use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::{
    app::AppKind,
    id::MessageId,
    lifecycle::{Event, Status},
    message::{Channel, Draft, OnUncertain, Request},
    verdict::{Attempt, FailureCode, Verdict},
    webhook::{EventFilter, EventType},
};
use wxgate_store::{ClaimedMessage, MatchFields, NewApp, NewReceipt, Store};

use crate::{
    common::{appid, at, draft, new_app, on_both, onboard, owner},
    queue::{Sender, accepted, claim, settle},
    webhooks::{endpoint, told},
};

on_both! {
    a_receipt_settles_the_one_message_that_it_fits
    a_receipt_that_comes_early_waits_for_the_end_of_the_send
    a_receipt_of_a_send_under_way_is_not_taken_for_another
    what_does_not_fit_is_left
    a_message_that_could_be_meant_as_well_is_in_the_way
    two_receipts_for_one_message_settle_nothing
    a_message_that_is_settled_is_not_in_the_way
    an_official_accounts_receipt_names_no_template
    a_former_owners_message_is_left
}

/// A receipt at second `second` with a msgid that no message has.
fn receipt(msgid: u64, second: i64) -> NewReceipt {
    NewReceipt {
        tenant: owner(1),
        appid: appid(1),
        touser: "o1".into(),
        msgid,
        delivered: true,
        failure_detail: None,
        circumstances: Some(MatchFields {
            channel: Channel::Subscribe,
            template_id: Some("tpl".into()),
            happened_at: at(second),
        }),
    }
}

/// [`receipt`] with other circumstances.
fn about(second: i64, change: impl FnOnce(&mut MatchFields)) -> NewReceipt {
    let mut receipt = receipt(9, second);
    change(receipt.circumstances.as_mut().unwrap());
    receipt
}

/// Records messages that were sent at `second`, each with an attempt of this verdict.
async fn land(store: &Store, flights: &[ClaimedMessage], verdict: Verdict, second: i64) {
    let batch: Vec<_> = flights
        .iter()
        .map(|flight| {
            let mut settlement = settle(flight, &Event::Answered(verdict.clone()), at(second));
            settlement.attempts.push(Attempt {
                number: 1,
                started_at: at(second),
                duration_ms: 5000,
                outcome: verdict.outcome(),
                errcode: None,
                errmsg: None,
                rid: None,
            });
            settlement
        })
        .collect();
    let recorded = store.platform().record(&batch, &[], at(second + 5)).await;
    assert_eq!(recorded.unwrap().changed.len(), flights.len());
}

/// A message that was sent at `second` and had this verdict.
async fn sent(sender: &mut Sender<'_>, draft: Draft, verdict: Verdict, second: i64) -> MessageId {
    let id = sender.send(1, draft, at(second)).await;
    let flights = claim(sender.store, 8, at(second)).await;
    assert_eq!(flights.iter().map(|one| one.id).collect::<Vec<_>>(), [id]);
    land(sender.store, &flights, verdict, second).await;
    id
}

async fn lost(sender: &mut Sender<'_>, second: i64) -> MessageId {
    sent(sender, draft("o1"), Verdict::Unknown, second).await
}

/// Receives receipts and sweeps a second later. Returns the messages that the receipts settle.
async fn heard(store: &Store, receipts: &[NewReceipt], second: i64) -> Vec<MessageId> {
    let platform = store.platform();
    let now = at(second);
    let mut settled = platform.receive(receipts, now).await.unwrap().0;
    settled.extend(looked_at(store, now + Duration::from_secs(1)).await);
    settled.into_iter().map(|one| one.id).collect()
}

async fn looked_at(store: &Store, now: DateTime<Utc>) -> Vec<wxgate_store::Settled> {
    store
        .platform()
        .sweep_receipts("", now)
        .await
        .unwrap()
        .settled
}

async fn a_receipt_settles_the_one_message_that_it_fits(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let webhook = endpoint(&store, sender.tenant, 1, EventFilter::All).await;
    let door = store.tenant(sender.tenant);
    let id = lost(&mut sender, 10).await;
    assert_eq!(heard(&store, &[receipt(9, 10)], 20).await, [id]);
    let message = door.message(id).await.unwrap().unwrap();
    assert_eq!(
        (message.status, message.msgid.as_deref(), message.failure),
        (Status::Delivered, Some("9"), None)
    );
    // The message has that msgid now: a later, contradicting receipt finds the message and changes nothing.
    let other = NewReceipt {
        delivered: false,
        ..receipt(9, 11)
    };
    assert_eq!(heard(&store, &[other], 30).await, []);
    let kinds: Vec<_> = told(&store, sender.tenant, webhook).await;
    let kinds: Vec<_> = kinds.iter().rev().map(|one| one.kind).collect();
    assert_eq!(
        kinds,
        [EventType::MessageUncertain, EventType::MessageDelivered]
    );
    // A receipt of an undelivered message gives the reason.
    let id = lost(&mut sender, 2000).await;
    let failure = NewReceipt {
        delivered: false,
        failure_detail: Some("user block".into()),
        ..receipt(10, 2001)
    };
    assert_eq!(heard(&store, &[failure], 2010).await, [id]);
    let failure = door.message(id).await.unwrap().unwrap().failure.unwrap();
    assert_eq!(
        (failure.code, failure.detail.as_str()),
        (FailureCode::Undelivered, "user block")
    );
}

async fn a_receipt_that_comes_early_waits_for_the_end_of_the_send(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let id = sender.send(1, draft("o1"), at(0)).await;
    let flights = claim(&store, 8, at(1)).await;
    assert_eq!(heard(&store, &[receipt(9, 1)], 1).await, []);
    assert_eq!(sender.status(id).await, Status::Sending);
    land(&store, &flights, Verdict::Unknown, 1).await;
    let settled = looked_at(&store, at(8)).await;
    assert_eq!(settled.iter().map(|one| one.id).collect::<Vec<_>>(), [id]);
    assert_eq!(sender.status(id).await, Status::Delivered);
}

async fn a_receipt_of_a_send_under_way_is_not_taken_for_another(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let lost = lost(&mut sender, 0).await;
    let id = sender.send(1, draft("o1"), at(10)).await;
    let flights = claim(&store, 8, at(10)).await;
    assert_eq!(heard(&store, &[receipt(9, 10)], 10).await, []);
    land(&store, &flights, Verdict::Accepted { msgid: Some(9) }, 10).await;
    let settled = looked_at(&store, at(20)).await;
    assert_eq!(settled.iter().map(|one| one.id).collect::<Vec<_>>(), [id]);
    assert_eq!(sender.status(lost).await, Status::Uncertain);
    // Now no other message prevents the settlement of the lost message.
    assert_eq!(heard(&store, &[receipt(8, 0)], 30).await, [lost]);
}

async fn what_does_not_fit_is_left(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    onboard(&store, 2, 10).await;
    let id = lost(&mut sender, 1000).await;
    let others = [
        NewReceipt {
            touser: "o2".into(),
            ..receipt(9, 1000)
        },
        NewReceipt {
            tenant: owner(2),
            appid: appid(2),
            ..receipt(9, 1000)
        },
        about(1000, |about| about.channel = Channel::Official),
        about(1000, |about| about.template_id = Some("other".into())),
        about(1000 - 121, |_| {}),
        about(1000 + 5 + 601, |_| {}),
        NewReceipt {
            circumstances: None,
            ..receipt(9, 1000)
        },
    ];
    for (number, other) in (0..).zip(others) {
        let other = NewReceipt {
            msgid: 100 + number,
            ..other
        };
        assert_eq!(
            heard(&store, std::slice::from_ref(&other), 1010).await,
            [],
            "{other:?}"
        );
    }
    assert_eq!(sender.status(id).await, Status::Uncertain);
    let fitting = about(1000 - 120, |about| about.template_id = None);
    assert_eq!(heard(&store, &[fitting], 1020).await, [id]);
}

async fn a_message_that_could_be_meant_as_well_is_in_the_way(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let again = Draft {
        on_uncertain: OnUncertain::Retry,
        ..draft("o1")
    };
    // Each pair of messages is sent long after the pair before.
    for (number, rival) in (0..).zip(["lost", "unnamed", "to be repeated"]) {
        let second = 10_000 * (number + 1);
        let first = lost(&mut sender, second).await;
        let (draft, verdict) = match rival {
            "lost" => (draft("o1"), Verdict::Unknown),
            "unnamed" => (draft("o1"), Verdict::Accepted { msgid: None }),
            _ => (again.clone(), Verdict::Unknown),
        };
        let second_one = sent(&mut sender, draft, verdict, second + 10).await;
        let msgid = u64::try_from(second).unwrap();
        let heard = heard(&store, &[receipt(msgid, second + 10)], second + 20).await;
        assert_eq!(heard, [], "{rival}");
        assert_eq!(sender.status(first).await, Status::Uncertain, "{rival}");
        assert_ne!(sender.status(second_one).await, Status::Delivered);
    }
}

async fn two_receipts_for_one_message_settle_nothing(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let id = lost(&mut sender, 0).await;
    let both = [receipt(8, 0), receipt(9, 1)];
    assert_eq!(heard(&store, &both, 10).await, []);
    assert_eq!(sender.status(id).await, Status::Uncertain);
}

async fn a_message_that_is_settled_is_not_in_the_way(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let first = lost(&mut sender, 0).await;
    assert_eq!(heard(&store, &[receipt(8, 0)], 10).await, [first]);
    let named = accepted(7);
    let other = sender.send(1, draft("o1"), at(20)).await;
    let flights = claim(&store, 8, at(20)).await;
    crate::queue::record(&store, &flights, &named, at(21)).await;
    let second = lost(&mut sender, 30).await;
    assert_eq!(heard(&store, &[receipt(9, 30)], 40).await, [second]);
    assert_eq!(sender.status(other).await, Status::Sent);
}

async fn an_official_accounts_receipt_names_no_template(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let official = NewApp {
        kind: AppKind::OfficialAccount,
        ..new_app(3)
    };
    let door = store.tenant(sender.tenant);
    door.create_app(official, at(0)).await.unwrap();
    let request = Request {
        channel: Channel::Official,
        touser: "o1".into(),
        template_id: "tpl".into(),
        data: Some(draft_data()),
        ..Request::default()
    };
    let draft = request.check(at(0)).unwrap();
    let id = sender.send(3, draft, at(0)).await;
    let flights = claim(&store, 8, at(0)).await;
    land(&store, &flights, Verdict::Unknown, 0).await;
    let finished = NewReceipt {
        appid: appid(3),
        ..about(1, |about| {
            about.channel = Channel::Official;
            about.template_id = None;
        })
    };
    assert_eq!(heard(&store, &[finished], 10).await, [id]);
}

fn draft_data() -> serde_json::Map<String, serde_json::Value> {
    let value = serde_json::json!({"value": "x"});
    [("thing1".to_owned(), value)].into_iter().collect()
}

async fn a_former_owners_message_is_left(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let id = lost(&mut sender, 0).await;
    let door = store.tenant(sender.tenant);
    door.delete_app(&appid(1), at(7)).await.unwrap();
    let heir = store.tenant(onboard(&store, 2, 10).await);
    heir.create_app(new_app(1), at(8)).await.unwrap();
    for (msgid, tenant) in [(9, owner(1)), (10, owner(2))] {
        let told = NewReceipt {
            tenant,
            ..receipt(msgid, 0)
        };
        assert_eq!(heard(&store, &[told], 10).await, []);
    }
    assert_eq!(sender.status(id).await, Status::Uncertain);
}
