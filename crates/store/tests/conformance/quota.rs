//! The daily quota of an app.

use std::time::Duration;

use crate::{
    common::{appid, at, draft, intake, new_app, on_both, onboard},
    queue::{Sender, accepted, claim, claim_batch, record, settle},
};
use domain::{
    lifecycle::Event,
    message::{Draft, Priority},
    quota::{self},
};
use wxgate_store::{LaneChange, NewMessage, Received, Settlement, Spent, Store};

on_both! {
    the_quota_is_exact_and_begins_anew_each_day
    low_priority_leaves_the_rest_of_the_quota
    quota_is_given_back_for_what_never_left
    the_days_count_outlives_the_app
}

/// WeChat counts by appid, for every owner, however often the app is removed and added here.
async fn the_days_count_outlives_the_app(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let first = sender.tenant;
    let send = async |sender: &mut Sender<'_>, now| {
        sender.send(1, draft("o1"), now).await;
        let flights = claim(&store, 8, now).await;
        assert_eq!(flights.len(), 1);
        record(&store, &flights, &accepted(1), now).await;
    };
    let used = async |tenant, now| {
        let door = store.tenant(tenant);
        door.quota_use(&appid(1), now).await.unwrap().used
    };
    let add = async |tenant, now| {
        let door = store.tenant(tenant);
        door.create_app(new_app(1), now).await.unwrap();
    };
    for now in [at(0), at(1), at(2)] {
        send(&mut sender, now).await;
    }
    let platform = store.platform();
    let door = store.tenant(first);
    door.delete_app(&appid(1), at(3)).await.unwrap();
    assert_eq!(platform.forget_lanes(at(4)).await.unwrap().moved, 0);

    // Another tenant adds the app.
    sender.tenant = onboard(&store, 2, 10).await;
    add(sender.tenant, at(5)).await;
    assert_eq!(used(sender.tenant, at(5)).await, 3);
    send(&mut sender, at(5)).await;
    assert_eq!(used(sender.tenant, at(6)).await, 4);

    // Added again on another day, the app starts at zero. The lane of an app that is not added again is deleted.
    let tomorrow = quota::reset_at(at(6));
    let later = tomorrow + Duration::from_hours(48);
    let door = store.tenant(sender.tenant);
    door.delete_app(&appid(1), tomorrow).await.unwrap();
    add(sender.tenant, tomorrow).await;
    assert_eq!(used(sender.tenant, tomorrow).await, 0);
    send(&mut sender, tomorrow).await;
    assert_eq!(platform.forget_lanes(later).await.unwrap().moved, 0);
    door.delete_app(&appid(1), tomorrow).await.unwrap();
    assert_eq!(platform.forget_lanes(later).await.unwrap().moved, 1);
}

async fn the_quota_is_exact_and_begins_anew_each_day(store: Store) {
    let tenant = onboard(&store, 1, 10).await;
    let mut sender = Sender {
        store: &store,
        tenant,
        next: 0,
    };
    let high = |n: i32| Draft {
        priority: Priority::High,
        ttl: Duration::from_hours(48),
        ..draft(&format!("o{n}"))
    };
    let batch: Vec<NewMessage> = (0..25)
        .map(|n| sender.new_message(1, high(n), at(0)))
        .collect();
    intake(&store, &batch, at(0)).await;
    let (a, b) = tokio::join!(claim(&store, 25, at(1)), claim(&store, 25, at(1)));
    assert_eq!(a.len() + b.len(), 10);
    assert!(claim(&store, 25, at(2)).await.is_empty());
    assert_eq!(
        store
            .tenant(tenant)
            .quota_use(&appid(1), at(2))
            .await
            .unwrap()
            .used,
        10
    );

    let doomed = sender.new_message(
        1,
        Draft {
            ttl: Duration::from_mins(1),
            ..high(90)
        },
        at(2),
    );
    let reset_at = quota::reset_at(at(2));
    assert_eq!(
        intake(&store, &[doomed], at(2)).await,
        [Received::Spent(Spent::App { reset_at })]
    );

    assert_eq!(
        store
            .tenant(tenant)
            .quota_use(&appid(1), reset_at)
            .await
            .unwrap()
            .used,
        0
    );
    let probe = claim(&store, 25, reset_at).await;
    assert_eq!(probe.len(), 1, "WeChat's day may begin later");
    let opened = LaneChange::Open(appid(1));
    let settled = [settle(&probe[0], &accepted(1), reset_at)];
    let platform = store.platform();
    platform
        .record(&settled, &[opened], reset_at)
        .await
        .unwrap();
    assert_eq!(claim(&store, 25, reset_at).await.len(), 9);
}

async fn low_priority_leaves_the_rest_of_the_quota(store: Store) {
    let tenant = onboard(&store, 1, 100).await;
    let mut sender = Sender {
        store: &store,
        tenant,
        next: 0,
    };
    let batch: Vec<NewMessage> = (0..100)
        .map(|n| {
            sender.new_message(
                1,
                Draft {
                    priority: Priority::Low,
                    ..draft(&format!("o{n}"))
                },
                at(0),
            )
        })
        .collect();
    intake(&store, &batch, at(0)).await;
    assert_eq!(claim(&store, 100, at(1)).await.len(), 80);
    let stuck = claim_batch(&store, 100, "", at(1)).await;
    assert_eq!(
        (stuck.claimed.len(), stuck.more),
        (0, false),
        "a worker must not spin on what it may not send"
    );
    sender
        .send(
            1,
            Draft {
                priority: Priority::High,
                ..draft("high")
            },
            at(2),
        )
        .await;
    assert_eq!(claim(&store, 100, at(3)).await[0].touser, "high");
}

async fn quota_is_given_back_for_what_never_left(store: Store) {
    let tenant = onboard(&store, 1, 2).await;
    let mut sender = Sender {
        store: &store,
        tenant,
        next: 0,
    };
    for n in 0..3 {
        sender.send(1, draft(&format!("o{n}")), at(n)).await;
    }
    let flights = claim(&store, 8, at(5)).await;
    assert_eq!(flights.len(), 2, "the quota");
    assert!(claim(&store, 8, at(5)).await.is_empty());
    let batch: Vec<Settlement> = flights
        .iter()
        .map(|flight| Settlement {
            refund: Some(flight.claimed_at),
            ..settle(flight, &Event::Released, at(6))
        })
        .collect();
    store.platform().record(&batch, &[], at(6)).await.unwrap();
    let used = || async {
        store
            .tenant(tenant)
            .quota_use(&appid(1), at(7))
            .await
            .unwrap()
            .used
    };
    assert_eq!(used().await, 0);
    // Under a new lease.
    let again = claim(&store, 8, at(7) + Duration::from_micros(1)).await;
    assert_eq!(again.len(), 2, "the lane goes on");
    assert_eq!(used().await, 2);
    // A worker without the answer to a record repeats the record.
    let repeated = store.platform().record(&batch, &[], at(8)).await.unwrap();
    assert!(repeated.changed.is_empty());
    assert_eq!(used().await, 2);
    // A charge of another day is not given back to this day.
    let of_yesterday = Settlement {
        refund: Some(at(5) - chrono::Duration::days(1)),
        ..settle(&again[0], &Event::Released, at(9))
    };
    let recorded = store.platform().record(&[of_yesterday], &[], at(9)).await;
    assert_eq!(recorded.unwrap().changed.len(), 1);
    assert_eq!(used().await, 2);
}
