//! Webhook deliveries: order, rotation and redelivery.

use std::collections::BTreeSet;

use domain::{
    id::{self, TenantId, WebhookId},
    webhook::{EventFilter, EventType},
};
use wxgate_store::{
    AppEvent, AuditFilter, DeliveryNext, DeliveryStatus, DueDelivery, HeldSlots, IdempotencyLookup,
    Keep, Origin, OutboxClaim, OutboxRequest, Received, Slots, Store, StoreError, StoredAnswer,
    Swept, WebhookPatch,
};

use super::{PAGE, claim_due, claim_with, due, end, endpoint, receipt, sent, told};
use crate::{
    common::{appid, at, draft, intake, on_both, onboard},
    keys::key,
    queue::Sender,
};

on_both! {
    events_of_one_message_go_out_in_order
    claims_are_fair_and_bounded_for_each_endpoint
    claims_are_fair_and_bounded_for_each_tenant
    an_endpoint_that_fails_is_tried_by_few_at_a_time
    many_tenants_with_many_endpoints_are_all_served
    a_lost_lease_comes_back
    a_late_record_changes_nothing
    events_are_told_again
    many_are_told_again_with_their_answer_or_not_at_all
    ten_thousand_are_told_again_at_once
    old_deliveries_are_forgotten
    another_tenant_sees_nothing
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
        door.create_delivery(busy, &event, at(0)).await.unwrap();
    }
    let event = AppEvent::new(
        EventType::WebhookTest,
        &appid(1),
        serde_json::json!({"a": 1}),
        at(0),
    );
    door.create_delivery(calm, &event, at(0)).await.unwrap();

    let first = claim_due(&store, 64, 4, at(1)).await;
    let of = |due: &[DueDelivery], webhook| due.iter().filter(|one| one.webhook == webhook).count();
    assert_eq!((of(&first.due, busy), of(&first.due, calm)), (4, 1));
    assert!(first.more);
    let second = claim_due(&store, 64, 4, at(2)).await;
    assert_eq!(second.due, [], "four are under way");
    end(&store, &first.due[0], DeliveryNext::Delivered, at(3)).await;
    assert_eq!(claim_due(&store, 64, 4, at(4)).await.due.len(), 1);
}

/// Writes `count` test events for an endpoint.
async fn tell(store: &Store, tenant: TenantId, webhook: WebhookId, count: u16) {
    let door = store.tenant(tenant);
    for n in 0..count {
        let kind = EventType::WebhookTest;
        let event = AppEvent::new(kind, &appid(n), serde_json::json!({}), at(0));
        door.create_delivery(webhook, &event, at(0)).await.unwrap();
    }
}

async fn claims_are_fair_and_bounded_for_each_tenant(store: Store) {
    let (busy, calm) = (onboard(&store, 1, 100).await, onboard(&store, 2, 100).await);
    for number in 0..20 {
        let webhook = endpoint(&store, busy, number, EventFilter::All).await;
        tell(&store, busy, webhook, 8).await;
    }
    let webhook = endpoint(&store, calm, 30, EventFilter::All).await;
    tell(&store, calm, webhook, 3).await;
    let of =
        |claim: &OutboxClaim, tenant| claim.due.iter().filter(|one| one.tenant == tenant).count();

    let first = claim_due(&store, 64, 8, at(1)).await;
    assert_eq!(of(&first, calm), 3);
    let quarter = of(&first, busy);
    assert!((15..=16).contains(&quarter), "{quarter}");
    // The slots that the tenant holds count, however many others are free.
    let mut slots = Slots {
        free: 48,
        ..Slots::default()
    };
    let held = HeldSlots {
        all: 16,
        failing: 0,
    };
    slots.held.insert(busy, held);
    let second = claim_with(&store, slots, at(2)).await;
    assert_eq!((of(&second, busy), second.cursor), (0, uuid::Uuid::nil()));
}

async fn an_endpoint_that_fails_is_tried_by_few_at_a_time(store: Store) {
    let tenant = onboard(&store, 1, 100).await;
    let webhook = endpoint(&store, tenant, 1, EventFilter::All).await;
    tell(&store, tenant, webhook, 8).await;
    let first = claim_due(&store, 64, 1, at(1)).await.due;
    end(&store, &first[0], DeliveryNext::Later(at(500)), at(2)).await;
    let second = claim_due(&store, 64, 8, at(3)).await.due;
    assert_eq!((second.len(), second[0].failing), (2, true));
    end(&store, &second[0], DeliveryNext::Delivered, at(4)).await;
    let third = claim_due(&store, 64, 8, at(5)).await.due;
    assert_eq!((third.len(), third[0].failing), (5, false));
}

async fn many_tenants_with_many_endpoints_are_all_served(store: Store) {
    let mut told = BTreeSet::new();
    for number in 0..12u8 {
        let tenant = onboard(&store, number + 1, 100).await;
        for each in 0..20u16 {
            let number = u16::from(number) * 20 + each;
            let webhook = endpoint(&store, tenant, number, EventFilter::All).await;
            tell(&store, tenant, webhook, 1).await;
            told.insert(webhook);
        }
    }
    let mut cursor = uuid::Uuid::nil();
    for turn in 0..1_000 {
        let request = OutboxRequest {
            slots: Slots {
                free: 7,
                ..Slots::default()
            },
            each: 8,
            cursor,
            lease: turn,
            lease_until: at(100),
        };
        let claim = store.platform().claim_deliveries(&request, at(1)).await;
        let claim = claim.unwrap();
        for one in &claim.due {
            assert!(told.remove(&one.webhook), "once");
        }
        if told.is_empty() {
            return;
        }
        cursor = claim.cursor;
    }
    panic!("{} were not told", told.len());
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
    let door = store.tenant(sender.tenant).with_audit_line(line);
    // The second call finds the delivery pending already.
    for _ in 0..2 {
        let again = door.redeliver(webhook, all[1].event, at(40)).await.unwrap();
        assert_eq!((again.status, again.attempts), (DeliveryStatus::Pending, 0));
    }
    let one = due(&store, at(41)).await;
    assert_eq!(
        (one.len(), one[0].event, one[0].retry_from),
        (1, all[1].event, at(40))
    );
    // Only the first of the two failed deliveries was created in this period.
    let keep = Keep::nothing();
    let swept = door.redeliver_failed(webhook, at(0), at(12), keep, at(50));
    assert_eq!(swept.await.unwrap().moved, 1);
    assert_eq!(due(&store, at(50)).await[0].event, all[0].event);
    let none = door.redeliver_failed(webhook, at(0), at(12), Keep::nothing(), at(50));
    assert_eq!(none.await.unwrap().moved, 0);
    let log = door.audit(&AuditFilter::default(), &PAGE).await.unwrap();
    let words = |line: usize| log.items[line].line.detail.as_deref().unwrap_or_default();
    assert_eq!((log.items.len(), words(1)), (2, ""));
    assert!(words(0).starts_with("1 failed deliveries, from "));
    let unknown = door.redeliver(webhook, id::new(at(0), 0, 9), at(51)).await;
    assert!(matches!(unknown, Err(StoreError::NotFound("delivery"))));
}

async fn many_are_told_again_with_their_answer_or_not_at_all(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let tenant = sender.tenant;
    let webhook = endpoint(&store, tenant, 1, EventFilter::All).await;
    let door = store.tenant(tenant);
    let again = async |seconds: i64| {
        let keep = Keep::with(move |told: &Swept| StoredAnswer {
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
        IdempotencyLookup::Answer(2u64.to_be_bytes().to_vec())
    );
    assert_eq!(fail(30).await, 2);
    let twin = again(40).await;
    assert!(matches!(twin, Err(StoreError::Answered)), "{twin:?}");
    assert_eq!(due(&store, at(41)).await, [], "nothing was told again");
}

async fn ten_thousand_are_told_again_at_once(store: Store) {
    const MANY: usize = 10_001;
    let mut sender = Sender::new(&store, 1).await;
    let tenant = sender.tenant;
    let webhook = endpoint(&store, tenant, 1, EventFilter::All).await;
    let batches = [1_000; 10].into_iter().chain([1]);
    for (second, size) in (0..).zip(batches) {
        let batch: Vec<_> = (0..size)
            .map(|n| sender.new_message(1, draft(&format!("o{n}")), at(second)))
            .collect();
        let received = intake(&store, &batch, at(second)).await;
        assert!(received.iter().all(|one| *one == Received::Stored));
    }
    let mut expired = 0;
    while expired < MANY {
        let some = store.platform().expire(at(3_700)).await.unwrap().len();
        assert!(some > 0, "{expired} of {MANY} expired");
        expired += some;
    }
    let door = store.tenant(tenant);
    let switch = async |enabled: bool| {
        let patch = WebhookPatch {
            enabled: Some(enabled),
            ..WebhookPatch::default()
        };
        let patched = door.update_webhook(webhook, patch, at(3_701)).await;
        patched.unwrap();
    };
    // A claim ends the pending deliveries of a disabled endpoint.
    switch(false).await;
    while claim_due(&store, MANY, MANY, at(3_701)).await.more {}
    switch(true).await;
    let again = async |seconds: i64| {
        let keep = Keep::nothing();
        let told = door.redeliver_failed(webhook, at(0), at(5_000), keep, at(seconds));
        told.await.unwrap()
    };
    let moved = |moved, more| Swept { moved, more };
    assert_eq!(again(3_702).await, moved(10_000, true));
    assert_eq!(again(3_703).await, moved(1, false));
    assert_eq!(again(3_704).await, moved(0, false));
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
