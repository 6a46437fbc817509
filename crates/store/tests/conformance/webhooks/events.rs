//! Which events are written, and for which endpoints.

use chrono::{DateTime, Utc};
use domain::{
    lifecycle::Status,
    verdict::FailureCode,
    webhook::{EventFilter, EventType},
};
use wxgate_store::{
    DeliveryNext, EventContent, LaneChange, LanePause, QUOTA_EXHAUSTED, Store, THROTTLED,
    WebhookDelivery, WebhookPatch,
};

use super::{due, end, endpoint, kinds, only, receipt, sent, told};
use crate::{
    common::{appid, at, draft, on_both, onboard},
    queue::{Sender, claim},
};

on_both! {
    what_becomes_of_a_message_is_told_with_it
    a_filter_lets_through_what_was_asked_for
    whoever_has_no_endpoint_is_told_nothing
    an_expired_message_is_told
    a_pause_is_told_once
    a_quota_is_warned_of_once_a_day
}

async fn what_becomes_of_a_message_is_told_with_it(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let webhook = endpoint(&store, sender.tenant, 1, EventFilter::All).await;
    let id = sent(&mut sender, &store, 1, "o1", 2).await;
    let first = due(&store, at(2)).await;
    assert_eq!(first.len(), 1);
    let one = &first[0];
    assert_eq!(
        (one.webhook, one.kind, one.message, one.attempt),
        (webhook, EventType::MessageSent, Some(id), 1)
    );
    assert_eq!(
        (one.url.as_str(), one.created_at),
        ("https://hooks.example/1", at(2))
    );

    receipt(&store, "o1", at(3)).await;
    let mut message = store.platform().message(id).await.unwrap().unwrap();
    assert_eq!(message.status, Status::Undelivered);
    // The event keeps the facts of the time at which the event happened.
    let EventContent::Message(facts) = &one.facts else {
        panic!("{:?}", one.facts)
    };
    facts.apply(&mut message).unwrap();
    assert_eq!((message.status, message.updated_at), (Status::Sent, at(2)));
    assert_eq!(
        (message.msgid.as_deref(), message.failure.is_none()),
        (Some("77"), true)
    );

    assert_eq!(end(&store, one, DeliveryNext::Delivered, at(4)).await, 0);
    let second = due(&store, at(4)).await;
    assert_eq!(second[0].kind, EventType::MessageUndelivered);
    let EventContent::Message(facts) = &second[0].facts else {
        panic!("{second:?}")
    };
    facts.apply(&mut message).unwrap();
    let failure = message.failure.unwrap();
    assert_eq!(
        (failure.code, failure.detail.as_str()),
        (FailureCode::Undelivered, "user refuses")
    );
}

async fn a_filter_lets_through_what_was_asked_for(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let failures = endpoint(
        &store,
        sender.tenant,
        1,
        only(&[EventType::MessageUndelivered]),
    )
    .await;
    let all = endpoint(&store, sender.tenant, 2, EventFilter::All).await;
    sent(&mut sender, &store, 1, "o1", 2).await;
    receipt(&store, "o1", at(3)).await;
    let (sent, undelivered) = (EventType::MessageSent, EventType::MessageUndelivered);
    assert_eq!(
        kinds(&store, sender.tenant, failures).await,
        [EventType::MessageUndelivered]
    );
    assert_eq!(kinds(&store, sender.tenant, all).await, [sent, undelivered]);
    // One event, two endpoints: the same id.
    let ids = |told: Vec<WebhookDelivery>| told[0].event;
    assert_eq!(
        ids(told(&store, sender.tenant, failures).await),
        ids(told(&store, sender.tenant, all).await)
    );
}

async fn whoever_has_no_endpoint_is_told_nothing(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let other = onboard(&store, 2, 100).await;
    let webhook = endpoint(&store, other, 1, EventFilter::All).await;
    let disabled = endpoint(&store, sender.tenant, 2, EventFilter::All).await;
    let off = WebhookPatch {
        enabled: Some(false),
        ..WebhookPatch::default()
    };
    let door = store.tenant(sender.tenant);
    assert!(
        !door
            .update_webhook(disabled, off, at(0))
            .await
            .unwrap()
            .enabled
    );
    sent(&mut sender, &store, 1, "o1", 2).await;
    assert_eq!(told(&store, other, webhook).await, []);
    assert_eq!(told(&store, sender.tenant, disabled).await, []);
    assert_eq!(due(&store, at(3)).await, []);
}

async fn an_expired_message_is_told(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let webhook = endpoint(&store, sender.tenant, 1, EventFilter::All).await;
    let (swept, claimed) = (
        sender.send(1, draft("o1"), at(0)).await,
        sender.send(1, draft("o2"), at(1_000)).await,
    );
    let expired = store.platform().expire(at(3_700)).await.unwrap();
    assert_eq!(
        expired.iter().map(|one| one.id).collect::<Vec<_>>(),
        [swept]
    );
    // A claim finds the other message before the sweep.
    assert!(claim(&store, 8, at(4_700)).await.is_empty());
    let told = told(&store, sender.tenant, webhook).await;
    assert_eq!(
        told.iter()
            .map(|one| (one.kind, one.message))
            .collect::<Vec<_>>(),
        [
            (EventType::MessageExpired, Some(claimed)),
            (EventType::MessageExpired, Some(swept))
        ]
    );
}

fn pause(reason: &str, until: DateTime<Utc>) -> LaneChange {
    LaneChange::Pause(LanePause {
        appid: appid(1),
        until,
        reason: reason.to_owned(),
        detail: "said so".to_owned(),
        refused: 1,
        by_probe: true,
    })
}

async fn a_pause_is_told_once(store: Store) {
    let tenant = onboard(&store, 1, 100).await;
    let webhook = endpoint(&store, tenant, 1, EventFilter::All).await;
    let news = [
        pause(THROTTLED, at(60)),
        pause(QUOTA_EXHAUSTED, at(100)),
        pause(QUOTA_EXHAUSTED, at(200)),
        LaneChange::Open(appid(1)),
        pause(QUOTA_EXHAUSTED, at(300)),
    ];
    for (second, news) in (0..).zip(news) {
        let platform = store.platform();
        platform
            .record::<wxgate_store::Settlement>(&[], &[news], at(second))
            .await
            .unwrap();
    }
    let opened = EventType::AppBreakerOpened;
    assert_eq!(kinds(&store, tenant, webhook).await, [opened, opened]);
    let one = due(&store, at(9)).await.remove(0);
    let EventContent::Data(data) = one.facts else {
        panic!("{one:?}")
    };
    assert_eq!(
        (&data["appid"], &data["reason"]),
        (&appid(1).as_str().into(), &QUOTA_EXHAUSTED.into())
    );
}

async fn a_quota_is_warned_of_once_a_day(store: Store) {
    let tenant = onboard(&store, 1, 20).await;
    let webhook = endpoint(&store, tenant, 1, EventFilter::All).await;
    let mut sender = Sender {
        store: &store,
        tenant,
        next: 0,
    };
    let mut warned = Vec::new();
    for n in 0..20 {
        let high = domain::message::Draft {
            priority: domain::message::Priority::High,
            ..draft(&format!("o{n}"))
        };
        sender.send(1, high, at(n)).await;
        assert_eq!(claim(&store, 8, at(n)).await.len(), 1);
        for _ in 0..2 {
            store.platform().warn_quotas(at(n)).await.unwrap();
        }
        warned.push(told(&store, tenant, webhook).await.len());
    }
    assert_eq!((warned[14], warned[15], warned[17]), (0, 1, 1));
    assert_eq!((warned[18], warned[19]), (2, 2));
    let mut percents: Vec<u64> = Vec::new();
    for one in due(&store, at(30)).await {
        let EventContent::Data(data) = one.facts else {
            panic!("{:?}", one.facts)
        };
        percents.push(data["percent"].as_u64().unwrap());
    }
    percents.sort_unstable();
    assert_eq!(percents, [80, 95]);
}
