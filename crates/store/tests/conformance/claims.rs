//! Claims: which message is first, which message waits, and which app pauses.

use std::{collections::HashSet, time::Duration};

use crate::{
    common::{appid, at, draft, intake, on_both, onboard},
    queue::{Sender, accepted, claim, claim_batch, record},
};
use domain::{
    id::MessageId,
    lifecycle::{Event, Status},
    message::{Draft, Priority},
};
use wxgate_store::{LaneChange, LanePause, NewMessage, Store};

on_both! {
    claims_go_round_the_apps
    high_goes_before_normal_before_low
    one_flight_for_each_user
    those_behind_are_released_one_by_one
    two_workers_share_without_repeating
    a_paused_app_rests_and_others_go_on
    a_removed_apps_messages_are_nobodys
}

async fn claims_go_round_the_apps(store: Store) {
    let mut big = Sender::new(&store, 1).await;
    let mut small = Sender::new(&store, 2).await;
    let batch: Vec<NewMessage> = (0..100)
        .map(|n| big.new_message(1, draft(&format!("o{n}")), at(0)))
        .collect();
    intake(&store, &batch, at(0)).await;
    let one = small.send(2, draft("o1"), at(5)).await;
    let flights = claim(&store, 10, at(6)).await;
    assert_eq!(
        flights.len(),
        6,
        "half of the slots for each app: five and the one there is"
    );
    assert!(
        flights.iter().any(|flight| flight.id == one),
        "a late single message does not wait for a hundred"
    );

    // More apps than one claim serves: the cursor continues after the last claim.
    let mut seen = HashSet::new();
    for number in 10..50 {
        let mut sender = Sender::new(&store, number).await;
        sender.send(number, draft("o1"), at(6)).await;
    }
    let mut cursor = String::new();
    for _ in 0..4 {
        let batch = claim_batch(&store, 64, &cursor, at(7)).await;
        seen.extend(batch.claimed.iter().map(|flight| flight.appid.clone()));
        cursor = batch.cursor;
    }
    assert_eq!(seen.len(), 41, "40 small apps and the big one's rest");
}

async fn high_goes_before_normal_before_low(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let mut ids = Vec::new();
    for (n, priority) in [Priority::Low, Priority::Normal, Priority::High]
        .into_iter()
        .enumerate()
    {
        ids.push(
            sender
                .send(
                    1,
                    Draft {
                        priority,
                        ..draft(&format!("o{n}"))
                    },
                    at(0),
                )
                .await,
        );
    }
    let mut order = Vec::new();
    for _ in 0..3 {
        order.extend(
            claim(&store, 1, at(1))
                .await
                .into_iter()
                .map(|flight| flight.id),
        );
    }
    ids.reverse();
    assert_eq!(order, ids);
}

async fn one_flight_for_each_user(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let first = sender.send(1, draft("same"), at(0)).await;
    let second = sender.send(1, draft("same"), at(1)).await;
    let other = sender.send(1, draft("other"), at(2)).await;
    let flights = claim(&store, 8, at(3)).await;
    assert_eq!(
        flights
            .iter()
            .map(|flight| flight.id)
            .collect::<HashSet<_>>(),
        HashSet::from([first, other])
    );
    assert!(claim(&store, 8, at(3)).await.is_empty());
    record(&store, &flights, &accepted(1), at(4)).await;
    assert_eq!(claim(&store, 8, at(5)).await[0].id, second);
}

async fn those_behind_are_released_one_by_one(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let mut ids = Vec::new();
    for n in 0..6 {
        let ttl = if n == 2 {
            Duration::from_secs(20)
        } else {
            Duration::from_mins(10)
        };
        ids.push(
            sender
                .send(
                    1,
                    Draft {
                        ttl,
                        ..draft("same")
                    },
                    at(n),
                )
                .await,
        );
    }
    let mut order = Vec::new();
    for step in 0..6 {
        let now = at(10 + step * 10);
        let batch = claim_batch(&store, 8, "", now).await;
        let flights = batch.claimed;
        assert!(flights.len() <= 1, "never two to one user");
        let lapsed = !batch.ended.is_empty();
        assert_eq!(batch.more, lapsed, "the one behind it is ready at once");
        order.extend(flights.iter().map(|flight| flight.id));
        record(&store, &flights, &accepted(1), now).await;
    }
    // The third message expired as the next one; the messages behind were released nevertheless.
    ids.remove(2);
    assert_eq!(order, ids);
    assert_eq!(
        store
            .platform()
            .release_stranded(at(100))
            .await
            .unwrap()
            .moved,
        0
    );
}

async fn two_workers_share_without_repeating(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let batch: Vec<NewMessage> = (0..300)
        .map(|n| sender.new_message(1, draft(&format!("o{}", n % 50)), at(0)))
        .collect();
    intake(&store, &batch, at(0)).await;
    let work = |worker: i64| {
        let store = store.clone();
        async move {
            let mut sent: Vec<MessageId> = Vec::new();
            for _ in 0..200 {
                let flights = claim(&store, 16, at(worker)).await;
                let people: HashSet<&str> = flights
                    .iter()
                    .map(|flight| flight.touser.as_str())
                    .collect();
                assert_eq!(people.len(), flights.len());
                sent.extend(flights.iter().map(|flight| flight.id));
                record(&store, &flights, &accepted(1), at(worker)).await;
                if sent.len() == 300 {
                    break;
                }
            }
            sent
        }
    };
    let (a, b) = tokio::join!(work(1), work(2));
    let all: HashSet<MessageId> = a.iter().chain(&b).copied().collect();
    assert_eq!(
        (a.len() + b.len(), all.len()),
        (300, 300),
        "each message once, none left"
    );
}

async fn a_paused_app_rests_and_others_go_on(store: Store) {
    let mut resting = Sender::new(&store, 1).await;
    let mut working = Sender::new(&store, 2).await;
    resting.send(1, draft("o1"), at(0)).await;
    working.send(2, draft("o1"), at(0)).await;
    let pause = LanePause {
        appid: appid(1),
        until: at(60),
        reason: "wrong_secret".into(),
        detail: "set it".into(),
        refused: 1,
        by_probe: false,
    };
    let pause = LaneChange::Pause(pause);
    store
        .platform()
        .record::<wxgate_store::Settlement>(&[], &[pause], at(0))
        .await
        .unwrap();
    assert_eq!(
        claim(&store, 8, at(1))
            .await
            .iter()
            .map(|f| f.appid.clone())
            .collect::<Vec<_>>(),
        [appid(2)]
    );
    assert!(claim(&store, 8, at(59)).await.is_empty());
    store
        .tenant(working.tenant)
        .resume_lane(&appid(1))
        .await
        .unwrap_err();
    store
        .tenant(resting.tenant)
        .resume_lane(&appid(1))
        .await
        .unwrap();
    assert_eq!(claim(&store, 8, at(59)).await.len(), 1);
}

async fn a_removed_apps_messages_are_nobodys(store: Store) {
    let mut former = Sender::new(&store, 1).await;
    let now_or_later = [None, Some(at(50))];
    let mut unsent = Vec::new();
    for send_at in now_or_later {
        unsent.push(
            former
                .send(
                    1,
                    Draft {
                        send_at,
                        ..draft("o1")
                    },
                    at(0),
                )
                .await,
        );
    }
    let flights = claim(&store, 8, at(1)).await;
    store
        .tenant(former.tenant)
        .delete_app(&appid(1), at(2))
        .await
        .unwrap();
    assert_eq!(former.status(unsent[1]).await, Status::Canceled);

    // The message is released while the app is removed, and is ready when the appid has another owner.
    record(&store, &flights, &Event::Released, at(3)).await;
    let owner = onboard(&store, 2, 10).await;
    let app = wxgate_store::NewApp {
        appid: appid(1),
        ..crate::common::new_app(1)
    };
    store.tenant(owner).create_app(app, at(4)).await.unwrap();
    assert!(
        claim(&store, 8, at(5)).await.is_empty(),
        "never in the name of the new owner"
    );
    assert_eq!(former.status(unsent[0]).await, Status::Canceled);

    // Without a new owner the claim cancels the message too.
    let mut lonely = Sender::new(&store, 3).await;
    let id = lonely.send(3, draft("o1"), at(6)).await;
    let flights = claim(&store, 8, at(7)).await;
    store
        .tenant(lonely.tenant)
        .delete_app(&appid(3), at(8))
        .await
        .unwrap();
    record(&store, &flights, &Event::Released, at(9)).await;
    assert!(claim(&store, 8, at(10)).await.is_empty());
    assert_eq!(lonely.status(id).await, Status::Canceled);
}
