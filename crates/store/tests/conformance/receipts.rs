//! Receipts and repeats: the same rules on SQLite and on PostgreSQL.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use domain::{
    grant::LedgerEntry,
    id::MessageId,
    lifecycle::{Event, Status},
    verdict::{FailureCode, Verdict},
};
use futures::future::{join, join_all};
use wxgate_store::{
    CallbackEvent, EventKey, LedgerChange, NewReceipt, Page, Settled, Store, SweptReceipts,
};

use crate::{
    common::{appid, at, draft, new_app, on_both, onboard, owner},
    queue::{Sender, accepted, claim, record},
};

on_both! {
    a_receipt_settles_its_message
    a_failure_says_what_wechat_said
    a_receipt_that_comes_first_waits_and_counts_once
    the_first_receipt_counts
    a_receipt_is_for_one_app_and_one_user
    a_receipt_settles_what_was_uncertain_and_nothing_that_failed
    receipts_of_one_call_are_told_apart
    a_receipt_that_nobody_waits_for_is_given_up
    receipts_records_and_sweeps_do_not_wait_for_each_other_in_a_circle
    an_event_is_remembered_once_and_not_for_ever
    invented_receipts_take_a_bounded_room
    a_sweep_takes_the_apps_in_turn
    many_events_of_one_call_are_all_entered
}

/// Above 2^53, the largest integer that JavaScript represents exactly.
const MSGID: u64 = 4_103_297_716_205_551_617;

pub(crate) fn receipt(touser: &str, msgid: u64) -> NewReceipt {
    NewReceipt {
        tenant: owner(1),
        appid: appid(1),
        touser: touser.to_owned(),
        msgid,
        delivered: true,
        failure_detail: None,
        circumstances: None,
    }
}

fn failure(touser: &str, msgid: u64) -> NewReceipt {
    NewReceipt {
        delivered: false,
        failure_detail: Some("1003 failed".into()),
        ..receipt(touser, msgid)
    }
}

fn settled(id: MessageId, status: Status) -> Settled {
    Settled { id, status }
}

async fn receive(store: &Store, receipts: &[NewReceipt], now: DateTime<Utc>) -> Vec<Settled> {
    store.platform().receive(receipts, now).await.unwrap().0
}

async fn sweep(store: &Store, now: DateTime<Utc>) -> SweptReceipts {
    store.platform().sweep_receipts("", now).await.unwrap()
}

/// A message that WeChat accepted under this msgid, recorded at second 2.
async fn sent(sender: &mut Sender<'_>, store: &Store, touser: &str, msgid: u64) -> MessageId {
    let id = sender.send(1, draft(touser), at(0)).await;
    let flights = claim(store, 8, at(1)).await;
    assert_eq!(record(store, &flights, &accepted(msgid), at(2)).await, 1);
    id
}

async fn a_receipt_settles_its_message(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let id = sent(&mut sender, &store, "o1", MSGID).await;
    let first = receive(&store, &[receipt("o1", MSGID)], at(3)).await;
    assert_eq!(first, [settled(id, Status::Delivered)]);
    let message = store.platform().message(id).await.unwrap().unwrap();
    assert_eq!(
        (message.status, message.failure, message.updated_at),
        (Status::Delivered, None, at(3))
    );
    assert_eq!(receive(&store, &[], at(4)).await, []);
    assert_eq!(
        sweep(&store, at(5)).await,
        SweptReceipts::default(),
        "none waits"
    );
}

async fn a_failure_says_what_wechat_said(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let id = sent(&mut sender, &store, "o1", MSGID).await;
    receive(&store, &[failure("o1", MSGID)], at(3)).await;
    let message = store.platform().message(id).await.unwrap().unwrap();
    let why = message.failure.unwrap();
    assert_eq!(
        (message.status, why.code, why.detail.as_str()),
        (Status::Undelivered, FailureCode::Undelivered, "1003 failed")
    );
}

async fn a_receipt_that_comes_first_waits_and_counts_once(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let id = sender.send(1, draft("o1"), at(0)).await;
    let flights = claim(&store, 8, at(1)).await;
    for receipts in [
        vec![failure("o1", MSGID)],
        vec![failure("o1", MSGID), receipt("o1", MSGID)],
    ] {
        assert_eq!(receive(&store, &receipts, at(1)).await, []);
    }
    assert_eq!(sweep(&store, at(2)).await, SweptReceipts::default());
    assert_eq!(sender.status(id).await, Status::Sending);

    assert_eq!(record(&store, &flights, &accepted(MSGID), at(3)).await, 1);
    assert_eq!(sender.status(id).await, Status::Sent);
    // Tried one second after the arrival, and again one second later.
    let swept = sweep(&store, at(4)).await;
    assert_eq!(swept.settled, [settled(id, Status::Undelivered)]);
    assert_eq!((swept.abandoned, swept.more), (0, false));
    assert_eq!(sweep(&store, at(4000)).await, SweptReceipts::default());
    assert_eq!(sender.status(id).await, Status::Undelivered);
}

async fn the_first_receipt_counts(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let id = sent(&mut sender, &store, "o1", MSGID).await;
    let both = [receipt("o1", MSGID), failure("o1", MSGID)];
    assert_eq!(
        receive(&store, &both, at(3)).await,
        [settled(id, Status::Delivered)]
    );
    assert_eq!(receive(&store, &both, at(4)).await, []);
    let message = store.platform().message(id).await.unwrap().unwrap();
    assert_eq!(
        (message.status, message.failure, message.updated_at),
        (Status::Delivered, None, at(3))
    );
    assert_eq!(sweep(&store, at(9)).await, SweptReceipts::default());
}

async fn a_receipt_is_for_one_app_and_one_user(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    onboard(&store, 2, 10).await;
    let id = sent(&mut sender, &store, "o1", MSGID).await;
    let foreign = NewReceipt {
        tenant: owner(2),
        appid: appid(2),
        ..receipt("o1", MSGID)
    };
    for other in [receipt("o2", MSGID), receipt("o1", MSGID + 1), foreign] {
        assert_eq!(receive(&store, &[other], at(3)).await, []);
    }
    assert_eq!(sender.status(id).await, Status::Sent);
    assert_eq!(sweep(&store, at(4)).await.settled, []);
}

async fn a_receipt_settles_what_was_uncertain_and_nothing_that_failed(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let mut ids = Vec::new();
    for (number, verdict) in [
        (1, Verdict::Unknown),
        (2, Verdict::Rejected(FailureCode::NoGrant)),
    ] {
        let touser = format!("o{number}");
        ids.push(sender.send(1, draft(&touser), at(0)).await);
        let flights = claim(&store, 8, at(1)).await;
        let event = Event::Answered(verdict);
        assert_eq!(record(&store, &flights, &event, at(2)).await, 1);
        assert_eq!(
            receive(&store, &[receipt(&touser, number)], at(3)).await,
            [],
            "WeChat's id of it was never heard"
        );
    }
    assert_eq!(sender.status(ids[0]).await, Status::Uncertain);
    assert_eq!(sender.status(ids[1]).await, Status::Failed);
}

async fn receipts_of_one_call_are_told_apart(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let mut ids = Vec::new();
    for msgid in 1..=5 {
        ids.push(sent(&mut sender, &store, "o1", msgid).await);
    }
    let mut receipts: Vec<_> = (1..=5).map(|msgid| receipt("o1", msgid)).collect();
    receipts[2] = failure("o1", 3);
    receipts.push(receipt("o1", 6));
    receipts.push(receipt("o1", 1));
    let found: HashSet<_> = receive(&store, &receipts, at(3))
        .await
        .into_iter()
        .map(|one| (one.id, one.status.as_str()))
        .collect();
    let mut expected: HashSet<_> = ids.iter().map(|id| (*id, "delivered")).collect();
    expected.remove(&(ids[2], "delivered"));
    expected.insert((ids[2], "undelivered"));
    assert_eq!(found, expected);
    let late = sent(&mut sender, &store, "o1", 6).await;
    assert_eq!(
        sweep(&store, at(4)).await.settled,
        [settled(late, Status::Delivered)]
    );
}

async fn a_receipt_that_nobody_waits_for_is_given_up(store: Store) {
    onboard(&store, 1, 10).await;
    receive(&store, &[receipt("o1", MSGID)], at(0)).await;
    for second in [1, 2, 3, 4, 60, 3599] {
        assert_eq!(sweep(&store, at(second)).await, SweptReceipts::default());
    }
    assert_eq!(sweep(&store, at(3600)).await.abandoned, 1);
    assert_eq!(sweep(&store, at(9999)).await, SweptReceipts::default());
}

async fn receipts_records_and_sweeps_do_not_wait_for_each_other_in_a_circle(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let mut ids = Vec::new();
    for number in 0..40 {
        ids.push(sender.send(1, draft(&format!("o{number}")), at(0)).await);
    }
    let flights = claim(&store, 64, at(1)).await;
    assert_eq!(flights.len(), 40);
    let msgid = |touser: &str| 1 + touser[1..].parse::<u64>().unwrap();
    let receipts: Vec<_> = flights
        .iter()
        .map(|flight| receipt(&flight.touser, msgid(&flight.touser)))
        .collect();
    // Two replicas receive the same receipts, in two orders, while answers are recorded and other replicas sweep.
    let backwards: Vec<_> = receipts.iter().rev().cloned().collect();
    let recorded = async {
        for flight in &flights {
            let flight = std::slice::from_ref(flight);
            let event = accepted(msgid(&flight[0].touser));
            record(&store, flight, &event, at(1)).await;
        }
    };
    let heard = join(
        receive(&store, &receipts, at(1)),
        receive(&store, &backwards, at(1)),
    );
    let swept = join_all((0..4).map(|_| sweep(&store, at(2))));
    let ((), (one, other), swept) = futures::join!(recorded, heard, swept);
    let after = sweep(&store, at(60)).await;

    let swept = swept
        .iter()
        .chain([&after])
        .flat_map(|swept| &swept.settled);
    let all: Vec<_> = one.iter().chain(&other).chain(swept).collect();
    assert_eq!(all.len(), 40, "each is settled once: {all:?}");
    for id in ids {
        assert_eq!(sender.status(id).await, Status::Delivered);
    }
}

async fn an_event_is_remembered_once_and_not_for_ever(store: Store) {
    onboard(&store, 1, 10).await;
    let event = |app: u16, number: u8| EventKey {
        appid: appid(app),
        digest: [number; 32],
    };
    let remember = async |events: &[EventKey], second: i64| {
        let news = events.iter().map(|event| CallbackEvent {
            tenant: owner(1),
            event: event.clone(),
            entries: Vec::new(),
        });
        let news: Vec<CallbackEvent> = news.collect();
        let fresh = store.platform().remember_events(&news, at(second)).await;
        fresh.unwrap()
    };
    let first = [event(1, 1), event(1, 2), event(2, 1), event(1, 1)];
    assert_eq!(
        remember(&first, 0).await,
        HashSet::from([event(1, 1), event(1, 2), event(2, 1)])
    );
    let second = [event(1, 3), event(1, 1)];
    assert_eq!(remember(&second, 1).await, HashSet::from([event(1, 3)]));
    assert_eq!(remember(&[], 1).await, HashSet::new());

    let forget = async |second: i64| {
        let swept = store.platform().forget_events(at(second)).await.unwrap();
        assert!(!swept.more);
        swept.moved
    };
    assert_eq!(forget(3600).await, 0);
    assert_eq!(forget(3601).await, 3);
    assert_eq!(remember(&first[..1], 3602).await.len(), 1);
}

/// Receipts of an app with a tenant that signs invented ones.
fn invented(app: u16, from: u64, count: u64) -> Vec<NewReceipt> {
    let numbers = from..from + count;
    let receipts = numbers.map(|number| NewReceipt {
        appid: appid(app),
        ..receipt(&format!("o{number}"), 1_000_000 + number)
    });
    receipts.collect()
}

async fn invented_receipts_take_a_bounded_room(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let id = sender.send(1, draft("o1"), at(0)).await;
    let flights = claim(&store, 8, at(1)).await;
    let taken = |app, from, count, now| {
        let receipts = invented(app, from, count);
        let store = store.clone();
        async move { store.platform().receive(&receipts, now).await.unwrap() }
    };
    assert_eq!(taken(1, 0, 12_000, at(1)).await, (Vec::new(), 2_000));
    assert_eq!(taken(1, 30_000, 1, at(1)).await.1, 1, "it is full");
    assert_eq!(taken(2, 0, 1, at(1)).await.1, 0, "another app has its own");

    // A full room is cleared soon. Then the room takes a receipt that comes before its message is recorded.
    let swept = sweep_all(&store, at(10)).await;
    assert!(swept.abandoned > 2_000, "{}", swept.abandoned);
    receive(&store, &[receipt("o1", MSGID)], at(20)).await;
    assert_eq!(record(&store, &flights, &accepted(MSGID), at(20)).await, 1);
    let swept = sweep_all(&store, at(30)).await;
    assert_eq!(swept.settled, [settled(id, Status::Delivered)]);
}

/// Sweeps until no receipt is due.
async fn sweep_all(store: &Store, now: DateTime<Utc>) -> SweptReceipts {
    let mut all = SweptReceipts::default();
    loop {
        let platform = store.platform();
        let swept = platform.sweep_receipts(&all.after, now).await.unwrap();
        all.settled.extend(swept.settled);
        all.abandoned += swept.abandoned;
        all.after = swept.after;
        if all.after.is_empty() && !swept.more {
            return all;
        }
    }
}

async fn a_sweep_takes_the_apps_in_turn(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let door = store.tenant(sender.tenant);
    door.create_app(new_app(2), at(0)).await.unwrap();
    let id = sender.send(2, draft("o1"), at(0)).await;
    let flights = claim(&store, 8, at(1)).await;
    let platform = store.platform();
    let many = invented(1, 0, 3_000);
    platform.receive(&many, at(1)).await.unwrap();
    let early = NewReceipt {
        appid: appid(2),
        ..receipt("o1", MSGID)
    };
    platform.receive(&[early], at(2)).await.unwrap();
    assert_eq!(record(&store, &flights, &accepted(MSGID), at(2)).await, 1);
    let swept = sweep(&store, at(10)).await;
    assert_eq!(swept.settled, [settled(id, Status::Delivered)]);
    assert!(swept.more, "the other app has more");
}

async fn many_events_of_one_call_are_all_entered(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    sender.send(1, draft("o1"), at(0)).await;
    let heard = |number: u16| CallbackEvent {
        tenant: sender.tenant,
        event: EventKey {
            appid: appid(1),
            digest: std::array::from_fn(|at| number.to_be_bytes()[at % 2]),
        },
        entries: (0..5)
            .map(|template| LedgerChange {
                appid: appid(1),
                openid: format!("o{number}"),
                template_id: format!("t{template}"),
                entry: LedgerEntry::Accepted { at: at(1) },
            })
            .collect(),
    };
    let news: Vec<CallbackEvent> = (0..3_000).map(heard).collect();
    let fresh = store.platform().remember_events(&news, at(2)).await;
    assert_eq!(fresh.unwrap().len(), 3_000);
    let door = store.tenant(sender.tenant);
    let page = Page {
        limit: 10,
        after: None,
    };
    let grants = door.grants(&appid(1), "o2999", &page, at(3)).await.unwrap();
    assert_eq!(grants.items.len(), 5);
}
