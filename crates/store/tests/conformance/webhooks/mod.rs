//! Webhooks: the same rules on SQLite and on PostgreSQL.

use std::{collections::BTreeSet, time::Duration};

use chrono::{DateTime, Utc};
use domain::{
    id::{self, MessageId, TenantId, WebhookId},
    lifecycle::Status,
    verdict::FailureCode,
    webhook::{EventFilter, EventType},
};
use uuid::Uuid;
use wxgate_store::{
    AppEvent, AuditFilter, DeliveryNext, DeliveryOutcome, DeliveryStatus, DueDelivery, Facts, Keep,
    KeptAnswer, LaneNews, LanePause, NewReceipt, NewWebhook, Origin, OutboxClaim, OutboxRequest,
    Page, QUOTA_EXHAUSTED, Recalled, Store, StoreError, Swept, THROTTLED, WebhookDelivery,
    WebhookPatch,
};

use crate::{
    common::{appid, at, draft, on_both, onboard},
    keys::key,
    queue::{Sender, accepted, claim, record},
};

on_both! {
    what_becomes_of_a_message_is_told_with_it
    a_filter_lets_through_what_was_asked_for
    whoever_has_no_endpoint_is_told_nothing
    an_expired_message_is_told
    events_of_one_message_go_out_in_order
    claims_are_fair_and_bounded_for_each_endpoint
    a_lost_lease_comes_back
    a_late_record_changes_nothing
    gone_disables_with_an_audit_line
    days_of_failure_disable
    a_disabled_endpoint_ends_what_was_on_its_way
    a_removed_endpoint_leaves_nothing_pending
    two_secrets_sign_while_one_is_rotated
    events_are_told_again
    changes_of_an_endpoint_are_on_record
    many_are_told_again_with_their_answer_or_not_at_all
    a_pause_is_told_once
    a_quota_is_warned_of_once_a_day
    old_deliveries_are_forgotten
    another_tenant_sees_nothing
}

const PAGE: Page = Page {
    limit: 100,
    after: None,
};

fn only(kinds: &[EventType]) -> EventFilter {
    EventFilter::Only(kinds.iter().copied().collect::<BTreeSet<_>>())
}

fn new_endpoint(number: u16, events: EventFilter) -> NewWebhook {
    NewWebhook {
        id: id::new(at(0), number, 5),
        url: format!("https://hooks.example/{number}"),
        events,
        description: None,
        secret_sealed: vec![1; 60],
    }
}

async fn endpoint(store: &Store, tenant: TenantId, number: u16, events: EventFilter) -> WebhookId {
    let new = new_endpoint(number, events);
    let made = store.tenant(tenant).create_webhook(new, at(0)).await;
    made.unwrap().id
}

async fn claim_due(store: &Store, slots: usize, each: usize, now: DateTime<Utc>) -> OutboxClaim {
    let request = OutboxRequest {
        slots,
        each,
        cursor: Uuid::nil(),
        lease: now.timestamp_millis(),
        lease_until: now + Duration::from_secs(30),
    };
    store
        .platform()
        .claim_deliveries(&request, now)
        .await
        .unwrap()
}

async fn due(store: &Store, now: DateTime<Utc>) -> Vec<DueDelivery> {
    claim_due(store, 64, 64, now).await.due
}

fn outcome(one: &DueDelivery, next: DeliveryNext) -> DeliveryOutcome {
    let fine = next == DeliveryNext::Delivered;
    DeliveryOutcome {
        webhook: one.webhook,
        event: one.event,
        lease: one.lease,
        next,
        response_status: Some(if fine { 200 } else { 500 }),
        response_excerpt: Some("words".into()),
        error: (!fine).then(|| "HTTP 500".into()),
    }
}

async fn end(store: &Store, one: &DueDelivery, next: DeliveryNext, now: DateTime<Utc>) -> usize {
    let disabled = store
        .platform()
        .record_deliveries(&[outcome(one, next)], now)
        .await;
    disabled.unwrap().len()
}

async fn told(store: &Store, tenant: TenantId, webhook: WebhookId) -> Vec<WebhookDelivery> {
    let door = store.tenant(tenant);
    door.webhook_deliveries(webhook, None, &PAGE)
        .await
        .unwrap()
        .items
}

async fn kinds(store: &Store, tenant: TenantId, webhook: WebhookId) -> Vec<EventType> {
    let told = told(store, tenant, webhook).await;
    told.iter().rev().map(|one| one.kind).collect()
}

/// A message that WeChat took, recorded at second `second`.
async fn sent(
    sender: &mut Sender<'_>,
    store: &Store,
    app: u8,
    touser: &str,
    second: i64,
) -> MessageId {
    let id = sender.send(app, draft(touser), at(second - 1)).await;
    let flights = claim(store, 8, at(second - 1)).await;
    assert_eq!(record(store, &flights, &accepted(77), at(second)).await, 1);
    id
}

async fn receipt(store: &Store, touser: &str, now: DateTime<Utc>) {
    let receipt = NewReceipt {
        appid: appid(1),
        touser: touser.to_owned(),
        msgid: 77,
        delivered: false,
        failure_detail: Some("user refuses".into()),
    };
    let settled = store.platform().receive(&[receipt], now).await.unwrap();
    assert_eq!(settled.len(), 1);
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
    // The event goes on saying what was so when it happened.
    let Facts::Message(facts) = &one.facts else {
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
    let Facts::Message(facts) = &second[0].facts else {
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
    assert_eq!(expired, [swept]);
    // The other is met by a claim before the sweep.
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

async fn events_of_one_message_go_out_in_order(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    endpoint(&store, sender.tenant, 1, EventFilter::All).await;
    sent(&mut sender, &store, 1, "o1", 2).await;
    receipt(&store, "o1", at(3)).await;
    let first = due(&store, at(4)).await;
    assert_eq!(first.len(), 1, "the second waits for the first");
    assert_eq!(first[0].kind, EventType::MessageSent);
    assert_eq!(due(&store, at(6)).await, []);
    end(&store, &first[0], DeliveryNext::Later(at(60)), at(7)).await;
    assert_eq!(due(&store, at(8)).await, [], "still waits");
    let again = due(&store, at(100)).await;
    assert_eq!(
        (again.len(), again[0].kind, again[0].attempt),
        (1, EventType::MessageSent, 2)
    );
    end(&store, &again[0], DeliveryNext::Delivered, at(101)).await;
    let second = due(&store, at(101)).await;
    assert_eq!(
        (second.len(), second[0].kind),
        (1, EventType::MessageUndelivered)
    );
}

async fn claims_are_fair_and_bounded_for_each_endpoint(store: Store) {
    let tenant = onboard(&store, 1, 100).await;
    let busy = endpoint(&store, tenant, 1, EventFilter::All).await;
    let calm = endpoint(&store, tenant, 2, EventFilter::All).await;
    let door = store.tenant(tenant);
    for n in 0..20 {
        let event = AppEvent::new(
            EventType::WebhookTest,
            &appid(n),
            serde_json::json!({}),
            at(0),
        );
        door.tell_webhook(busy, &event, at(0)).await.unwrap();
    }
    let event = AppEvent::new(
        EventType::WebhookTest,
        &appid(1),
        serde_json::json!({"a": 1}),
        at(0),
    );
    door.tell_webhook(calm, &event, at(0)).await.unwrap();

    let first = claim_due(&store, 8, 4, at(1)).await;
    let of = |due: &[DueDelivery], webhook| due.iter().filter(|one| one.webhook == webhook).count();
    assert_eq!((of(&first.due, busy), of(&first.due, calm)), (4, 1));
    assert!(first.more);
    let second = claim_due(&store, 8, 4, at(2)).await;
    assert_eq!(second.due, [], "four are under way");
    end(&store, &first.due[0], DeliveryNext::Delivered, at(3)).await;
    assert_eq!(claim_due(&store, 8, 4, at(4)).await.due.len(), 1);
}

async fn a_lost_lease_comes_back(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    endpoint(&store, sender.tenant, 1, EventFilter::All).await;
    sent(&mut sender, &store, 1, "o1", 2).await;
    assert_eq!(due(&store, at(3)).await.len(), 1);
    assert_eq!(due(&store, at(32)).await.len(), 0);
    let again = due(&store, at(33)).await;
    assert_eq!((again.len(), again[0].attempt), (1, 2));
}

async fn a_late_record_changes_nothing(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let webhook = endpoint(&store, sender.tenant, 1, EventFilter::All).await;
    sent(&mut sender, &store, 1, "o1", 2).await;
    let lost = due(&store, at(3)).await;
    let again = due(&store, at(40)).await;
    end(&store, &lost[0], DeliveryNext::Failed, at(41)).await;
    let status = || async { told(&store, sender.tenant, webhook).await[0].status };
    assert_eq!(status().await, DeliveryStatus::Pending);
    end(&store, &again[0], DeliveryNext::Delivered, at(42)).await;
    let told = told(&store, sender.tenant, webhook).await;
    assert_eq!(told[0].status, DeliveryStatus::Delivered);
    assert_eq!(
        (told[0].response_status, told[0].response_excerpt.as_deref()),
        (Some(200), Some("words"))
    );
    assert_eq!((told[0].attempts, told[0].ended_at), (2, Some(at(42))));
}

async fn gone_disables_with_an_audit_line(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let webhook = endpoint(&store, sender.tenant, 1, EventFilter::All).await;
    sent(&mut sender, &store, 1, "o1", 2).await;
    let one = due(&store, at(3)).await.remove(0);
    assert_eq!(end(&store, &one, DeliveryNext::Gone, at(4)).await, 1);
    let door = store.tenant(sender.tenant);
    let found = door.webhook(webhook).await.unwrap();
    assert!(!found.enabled);
    assert!(found.disabled_reason.unwrap().contains("410"));
    let line = door
        .audit(&AuditFilter::default(), &PAGE)
        .await
        .unwrap()
        .items
        .remove(0)
        .line;
    assert_eq!(
        (line.action.as_str(), line.target),
        ("webhook.disable", webhook.to_string())
    );
    let on = WebhookPatch {
        enabled: Some(true),
        ..WebhookPatch::default()
    };
    let found = door.update_webhook(webhook, on, at(5)).await.unwrap();
    assert!(found.enabled && found.disabled_reason.is_none());
    assert_eq!((found.failures, found.failing_since), (0, None));
}

async fn days_of_failure_disable(store: Store) {
    let tenant = onboard(&store, 1, 100).await;
    let webhook = endpoint(&store, tenant, 1, EventFilter::All).await;
    let door = store.tenant(tenant);
    let day = 86_400;
    for (n, wanted) in [(0, 0), (4, 0), (5, 1)] {
        let now = at(n * day);
        let event = AppEvent::new(
            EventType::WebhookTest,
            &appid(1),
            serde_json::json!({}),
            now,
        );
        door.tell_webhook(webhook, &event, now).await.unwrap();
        let one = due(&store, now).await.remove(0);
        assert_eq!(
            end(&store, &one, DeliveryNext::Failed, now).await,
            wanted,
            "day {n}"
        );
    }
    let found = door.webhook(webhook).await.unwrap();
    assert_eq!(
        (found.enabled, found.failures, found.failing_since),
        (false, 3, Some(at(0)))
    );
    assert!(found.disabled_reason.unwrap().contains("HTTP 500"));
}

async fn a_disabled_endpoint_ends_what_was_on_its_way(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let webhook = endpoint(&store, sender.tenant, 1, EventFilter::All).await;
    sent(&mut sender, &store, 1, "o1", 2).await;
    let off = WebhookPatch {
        enabled: Some(false),
        ..WebhookPatch::default()
    };
    let door = store.tenant(sender.tenant);
    door.update_webhook(webhook, off, at(3)).await.unwrap();
    assert_eq!(due(&store, at(4)).await, []);
    let told = told(&store, sender.tenant, webhook).await;
    assert_eq!(told[0].status, DeliveryStatus::Failed);
    assert!(told[0].error.as_deref().unwrap().contains("disabled"));
}

async fn a_removed_endpoint_leaves_nothing_pending(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let webhook = endpoint(&store, sender.tenant, 1, EventFilter::All).await;
    sent(&mut sender, &store, 1, "o1", 2).await;
    let door = store.tenant(sender.tenant);
    door.remove_webhook(webhook, at(5)).await.unwrap();
    assert!(matches!(
        door.remove_webhook(webhook, at(5)).await,
        Err(StoreError::NotFound(_))
    ));
    let swept = claim_due(&store, 8, 4, at(3)).await;
    assert!(swept.due.is_empty() && swept.more);
    assert!(!claim_due(&store, 8, 4, at(3)).await.more);
}

async fn two_secrets_sign_while_one_is_rotated(store: Store) {
    let tenant = onboard(&store, 1, 100).await;
    let webhook = endpoint(&store, tenant, 1, EventFilter::All).await;
    let door = store.tenant(tenant);
    let rotated = door
        .rotate_webhook_secret(webhook, vec![2; 60], at(100), at(1))
        .await;
    assert_eq!(rotated.unwrap().previous_secret_until, Some(at(100)));
    for (second, wanted) in [
        (2, vec![vec![2; 60], vec![1; 60]]),
        (100, vec![vec![2; 60]]),
    ] {
        let now = at(second);
        let event = AppEvent::new(
            EventType::WebhookTest,
            &appid(1),
            serde_json::json!({}),
            now,
        );
        door.tell_webhook(webhook, &event, now).await.unwrap();
        let one = due(&store, now).await.remove(0);
        assert_eq!(one.secrets_sealed, wanted, "second {second}");
        end(&store, &one, DeliveryNext::Delivered, now).await;
    }
}

async fn events_are_told_again(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let webhook = endpoint(&store, sender.tenant, 1, EventFilter::All).await;
    for n in 0..3 {
        sent(&mut sender, &store, 1, &format!("o{n}"), 10 * n + 2).await;
    }
    let all = due(&store, at(30)).await;
    assert_eq!(all.len(), 3);
    let ends = [
        DeliveryNext::Failed,
        DeliveryNext::Delivered,
        DeliveryNext::Failed,
    ];
    for (one, next) in all.iter().zip(ends) {
        end(&store, one, next, at(31)).await;
    }
    let line = Origin::CLI.did("webhook.redeliver", &webhook);
    let door = store.tenant(sender.tenant).on_record(line);
    // The second time it is on its way already.
    for _ in 0..2 {
        let again = door.redeliver(webhook, all[1].event, at(40)).await.unwrap();
        assert_eq!((again.status, again.attempts), (DeliveryStatus::Pending, 0));
    }
    let one = due(&store, at(41)).await;
    assert_eq!(
        (one.len(), one[0].event, one[0].retry_from),
        (1, all[1].event, at(40))
    );
    // Only the first of the two that failed happened in this time.
    let keep = Keep::nothing();
    let swept = door.redeliver_failed(webhook, at(0), at(12), keep, at(50));
    assert_eq!(swept.await.unwrap().moved, 1);
    assert_eq!(due(&store, at(50)).await[0].event, all[0].event);
    let none = door.redeliver_failed(webhook, at(0), at(12), Keep::nothing(), at(50));
    assert_eq!(none.await.unwrap().moved, 0);
    let log = door.audit(&AuditFilter::default(), &PAGE).await.unwrap();
    let words = |line: usize| log.items[line].line.detail.as_deref().unwrap_or_default();
    assert_eq!((log.items.len(), words(1)), (2, ""));
    assert!(words(0).starts_with("1 that were given up, from "));
    let unknown = door.redeliver(webhook, id::new(at(0), 0, 9), at(51)).await;
    assert!(matches!(unknown, Err(StoreError::NotFound("delivery"))));
}

async fn changes_of_an_endpoint_are_on_record(store: Store) {
    let tenant = onboard(&store, 1, 100).await;
    let new = new_endpoint(1, EventFilter::All);
    let (webhook, nobody) = (new.id, id::new(at(0), 9, 9));
    let door = |action: &str| {
        store
            .tenant(tenant)
            .on_record(Origin::CLI.did(action, &webhook))
    };
    let patch = WebhookPatch::default;
    door("made").create_webhook(new, at(1)).await.unwrap();
    door("changed")
        .update_webhook(webhook, patch(), at(2))
        .await
        .unwrap();
    door("rotated")
        .rotate_webhook_secret(webhook, vec![2; 60], at(100), at(3))
        .await
        .unwrap();
    door("removed")
        .remove_webhook(webhook, at(4))
        .await
        .unwrap();

    // What does not happen leaves no line.
    let missing = door("missing");
    for refused in [
        missing
            .update_webhook(nobody, patch(), at(5))
            .await
            .map(drop),
        missing
            .rotate_webhook_secret(nobody, vec![2; 60], at(100), at(5))
            .await
            .map(drop),
        missing.remove_webhook(webhook, at(5)).await,
    ] {
        assert!(matches!(refused, Err(StoreError::NotFound("webhook"))));
    }
    let log = missing.audit(&AuditFilter::default(), &PAGE).await.unwrap();
    let actions: Vec<_> = log.items.iter().map(|line| &*line.line.action).collect();
    assert_eq!(actions, ["removed", "rotated", "changed", "made"]);
}

async fn many_are_told_again_with_their_answer_or_not_at_all(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let tenant = sender.tenant;
    let webhook = endpoint(&store, tenant, 1, EventFilter::All).await;
    let door = store.tenant(tenant);
    let again = async |seconds: i64| {
        let keep = Keep::with(move |told: &Swept| KeptAnswer {
            tenant: Some(tenant),
            key: key("k", 1),
            sealed: told.moved.to_be_bytes().to_vec(),
        });
        let (since, until) = (at(0), at(100));
        door.redeliver_failed(webhook, since, until, keep, at(seconds))
            .await
    };
    let fail = async |seconds: i64| {
        let all = due(&store, at(seconds)).await;
        for one in &all {
            end(&store, one, DeliveryNext::Failed, at(seconds)).await;
        }
        all.len()
    };
    for n in 0..2 {
        sent(&mut sender, &store, 1, &format!("o{n}"), n + 2).await;
    }
    assert_eq!(fail(10).await, 2);
    let told = Swept {
        moved: 2,
        more: false,
    };
    assert_eq!(again(20).await.unwrap(), told);
    let answer = store.recall(Some(tenant), &key("k", 1), at(21)).await;
    assert_eq!(
        answer.unwrap(),
        Recalled::Answer(2u64.to_be_bytes().to_vec())
    );
    assert_eq!(fail(30).await, 2);
    let twin = again(40).await;
    assert!(matches!(twin, Err(StoreError::Answered)), "{twin:?}");
    assert_eq!(due(&store, at(41)).await, [], "nothing was told again");
}

fn pause(reason: &str, until: DateTime<Utc>) -> LaneNews {
    LaneNews::Pause(LanePause {
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
        LaneNews::Open(appid(1)),
        pause(QUOTA_EXHAUSTED, at(300)),
    ];
    for (second, news) in (0..).zip(news) {
        let platform = store.platform();
        platform.record(&[], &[news], at(second)).await.unwrap();
    }
    let opened = EventType::AppBreakerOpened;
    assert_eq!(kinds(&store, tenant, webhook).await, [opened, opened]);
    let one = due(&store, at(9)).await.remove(0);
    let Facts::Data(data) = one.facts else {
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
        let Facts::Data(data) = one.facts else {
            panic!("{:?}", one.facts)
        };
        percents.push(data["percent"].as_u64().unwrap());
    }
    percents.sort_unstable();
    assert_eq!(percents, [80, 95]);
}

async fn old_deliveries_are_forgotten(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let webhook = endpoint(&store, sender.tenant, 1, EventFilter::All).await;
    sent(&mut sender, &store, 1, "o1", 2).await;
    let forget = || async { store.platform().forget_deliveries(at(10)).await.unwrap() };
    assert_eq!(forget().await.moved, 0, "it is still on its way");
    let one = due(&store, at(3)).await.remove(0);
    end(&store, &one, DeliveryNext::Delivered, at(4)).await;
    assert_eq!(forget().await.moved, 1);
    assert_eq!(told(&store, sender.tenant, webhook).await, []);
}

async fn another_tenant_sees_nothing(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let webhook = endpoint(&store, sender.tenant, 1, EventFilter::All).await;
    sent(&mut sender, &store, 1, "o1", 2).await;
    let event = told(&store, sender.tenant, webhook).await[0].event;
    let stranger = store.tenant(onboard(&store, 2, 100).await);
    assert!(stranger.webhooks(&PAGE).await.unwrap().items.is_empty());
    let refusals = [
        stranger.webhook(webhook).await.map(drop),
        stranger
            .update_webhook(webhook, WebhookPatch::default(), at(3))
            .await
            .map(drop),
        stranger
            .rotate_webhook_secret(webhook, vec![2], at(9), at(3))
            .await
            .map(drop),
        stranger.remove_webhook(webhook, at(3)).await,
        stranger
            .webhook_deliveries(webhook, None, &PAGE)
            .await
            .map(drop),
        stranger.redeliver(webhook, event, at(3)).await.map(drop),
    ];
    for refused in refusals {
        assert!(
            matches!(refused, Err(StoreError::NotFound(_))),
            "{refused:?}"
        );
    }
    let swept = stranger
        .redeliver_failed(webhook, at(0), at(100), Keep::nothing(), at(3))
        .await;
    assert_eq!(swept.unwrap().moved, 0);
}
