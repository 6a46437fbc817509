//! An appid that changes its owner: the data of one owner never affects the other owner.

use chrono::{DateTime, Duration, Utc};
use domain::{
    grant::LedgerEntry,
    id::{MessageId, TenantId},
    lifecycle::{Event, Status},
    tenant::TenantLimits,
    verdict::Verdict,
};
use wxgate_store::{
    CallbackEvent, EventKey, GrantChange, LaneChange, LanePause, LedgerChange, LedgerStep,
    NewReceipt, Settled, Store,
};

use crate::{
    common::{appid, at, draft, intake, new_app, on_both, owner},
    queue::{Sender, accepted, claim, record, settle},
};

on_both! {
    a_receipt_settles_its_own_tenants_messages
    what_waits_does_not_wait_for_the_next_owner
    events_are_entered_for_the_owner_that_heard_them
    what_a_late_answer_says_of_an_app_is_not_the_next_owners
    a_late_answer_takes_nothing_of_the_next_owners_grants
}

const MSGID: u64 = 4_103_297_716_205_551_617;

/// Gives app 1 a new owner in place of the first.
async fn hand_over(store: &Store, now: DateTime<Utc>) -> TenantId {
    store
        .tenant(owner(1))
        .delete_app(&appid(1), now)
        .await
        .unwrap();
    let next = owner(2);
    store
        .platform()
        .create_tenant(next, "next", TenantLimits::default(), now)
        .await
        .unwrap();
    store
        .tenant(next)
        .create_app(new_app(1), now)
        .await
        .unwrap();
    next
}

fn receipt(tenant: TenantId, touser: &str, msgid: u64) -> NewReceipt {
    NewReceipt {
        tenant,
        appid: appid(1),
        touser: touser.into(),
        msgid,
        delivered: true,
        failure_detail: None,
        circumstances: None,
    }
}

async fn receive(store: &Store, receipt: NewReceipt, now: DateTime<Utc>) -> Vec<Settled> {
    store.platform().receive(&[receipt], now).await.unwrap().0
}

fn delivered(id: MessageId) -> Vec<Settled> {
    let status = Status::Delivered;
    vec![Settled { id, status }]
}

/// A message of the tenant that WeChat has accepted under this msgid.
async fn sent(
    store: &Store,
    sender: &mut Sender<'_>,
    touser: &str,
    msgid: u64,
    now: DateTime<Utc>,
) -> MessageId {
    let id = sender.send(1, draft(touser), now).await;
    let flights = claim(store, 8, now).await;
    record(store, &flights, &accepted(msgid), now).await;
    id
}

async fn a_receipt_settles_its_own_tenants_messages(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let theirs = sent(&store, &mut sender, "o1", MSGID, at(1)).await;
    let next = hand_over(&store, at(5)).await;
    let mut heir = Sender {
        store: &store,
        tenant: next,
        next: 50,
    };
    let ours = sent(&store, &mut heir, "o1", MSGID + 1, at(6)).await;
    for (tenant, msgid) in [(next, MSGID), (sender.tenant, MSGID + 1)] {
        assert_eq!(
            receive(&store, receipt(tenant, "o1", msgid), at(7)).await,
            []
        );
    }
    assert_eq!(
        store
            .platform()
            .sweep_receipts("", at(60))
            .await
            .unwrap()
            .settled,
        []
    );
    assert_eq!(sender.status(theirs).await, Status::Sent);
    assert_eq!(heir.status(ours).await, Status::Sent);
    let own = receipt(next, "o1", MSGID + 1);
    assert_eq!(receive(&store, own, at(61)).await, delivered(ours));
}

async fn what_waits_does_not_wait_for_the_next_owner(store: Store) {
    let first = Sender::new(&store, 1).await.tenant;
    let planted = |msgid: u64| receipt(first, "o1", msgid);
    assert_eq!(receive(&store, planted(MSGID), at(1)).await, []);
    let next = hand_over(&store, at(5)).await;
    // A callback of the first owner that was being processed when the owner changed.
    assert_eq!(receive(&store, planted(MSGID + 1), at(6)).await, []);
    let mut heir = Sender {
        store: &store,
        tenant: next,
        next: 50,
    };
    let one = sent(&store, &mut heir, "o1", MSGID, at(7)).await;
    let other = sent(&store, &mut heir, "o1", MSGID + 1, at(8)).await;
    let swept = store.platform().sweep_receipts("", at(60)).await.unwrap();
    assert_eq!(swept.settled, []);
    for id in [one, other] {
        assert_eq!(heir.status(id).await, Status::Sent);
    }
    let own = receipt(next, "o1", MSGID);
    assert_eq!(receive(&store, own, at(61)).await, delivered(one));
}

fn heard(tenant: TenantId, number: u8) -> CallbackEvent {
    let entry = LedgerEntry::Accepted {
        at: at(i64::from(number)),
    };
    CallbackEvent {
        tenant,
        event: EventKey {
            appid: appid(1),
            digest: [number; 32],
        },
        entries: vec![LedgerChange {
            appid: appid(1),
            openid: "o1".into(),
            template_id: "tpl".into(),
            entry,
        }],
    }
}

async fn remaining(store: &Store, tenant: TenantId) -> Vec<u32> {
    let grants = crate::grants::grants(store, tenant, "o1", at(1)).await;
    let counts = grants.into_iter().filter_map(|grant| match grant {
        wxgate_store::Grant::Subscription(account) => Some(account.remaining),
        wxgate_store::Grant::Id(_) => None,
    });
    counts.collect()
}

async fn events_are_entered_for_the_owner_that_heard_them(store: Store) {
    let first = Sender::new(&store, 1).await.tenant;
    let remember = async |news: CallbackEvent, second: i64| {
        let fresh = store.platform().remember_events(&[news], at(second)).await;
        fresh.unwrap().len()
    };
    assert_eq!(remember(heard(first, 1), 1).await, 1);
    assert_eq!(remaining(&store, first).await, [1]);
    let next = hand_over(&store, at(5)).await;
    assert!(
        remaining(&store, next).await.is_empty(),
        "nothing is left over"
    );
    // A callback of the first owner that was being processed when the owner changed.
    remember(heard(first, 2), 6).await;
    assert!(remaining(&store, next).await.is_empty());
    // An event that the first owner received is still new for the next owner.
    assert_eq!(remember(heard(next, 1), 7).await, 1);
    assert_eq!(remaining(&store, next).await, [1]);
}

async fn what_a_late_answer_says_of_an_app_is_not_the_next_owners(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    sender.send(1, draft("o1"), at(1)).await;
    let flights = claim(&store, 8, at(1)).await;
    let next = hand_over(&store, at(5)).await;
    let pause = LaneChange::Pause(LanePause {
        appid: appid(1),
        until: at(5) + Duration::hours(1),
        reason: "wrong_secret".into(),
        detail: "the last owner's".into(),
        refused: 0,
        by_probe: false,
    });
    let answer = settle(&flights[0], &accepted(MSGID), at(6));
    let news = std::slice::from_ref(&pause);
    let recorded = store.platform().record(&[answer], news, at(6)).await;
    assert_eq!(recorded.unwrap().changed.len(), 1);
    let app = store.tenant(next).app(&appid(1)).await.unwrap();
    assert_eq!(app.pause, None);
    // Messages of the present owner do affect the app.
    let mut heir = Sender {
        store: &store,
        tenant: next,
        next: 50,
    };
    let new = heir.new_message(1, draft("o1"), at(7));
    intake(&store, &[new], at(7)).await;
    let flights = claim(&store, 8, at(7)).await;
    let answer = settle(&flights[0], &accepted(MSGID + 1), at(8));
    store
        .platform()
        .record(&[answer], news, at(8))
        .await
        .unwrap();
    let app = store.tenant(next).app(&appid(1)).await.unwrap();
    assert!(app.pause.is_some());
}

async fn a_late_answer_takes_nothing_of_the_next_owners_grants(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    sender.send(1, draft("o1"), at(1)).await;
    let flights = claim(&store, 8, at(1)).await;
    let next = hand_over(&store, at(5)).await;
    let fresh = store
        .platform()
        .remember_events(&[heard(next, 6)], at(6))
        .await;
    assert_eq!(fresh.unwrap().len(), 1);
    let answer = Event::Answered(Verdict::Accepted { msgid: Some(MSGID) });
    let mut answer = settle(&flights[0], &answer, at(7));
    answer.grant = Some(GrantChange::Ledger(LedgerStep::Zero));
    store
        .platform()
        .record(&[answer], &[], at(7))
        .await
        .unwrap();
    assert_eq!(remaining(&store, next).await, [1]);
}
