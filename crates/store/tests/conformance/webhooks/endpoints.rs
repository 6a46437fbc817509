//! The life of webhook endpoints.

use domain::{
    id,
    webhook::{EventFilter, EventType},
};
use tokio::task::JoinSet;
use wxgate_store::{
    AppEvent, AuditFilter, DeliveryNext, DeliveryStatus, Origin, Store, StoreError, WebhookPatch,
};

use super::{PAGE, claim_due, due, end, endpoint, new_endpoint, sent, told};
use crate::{
    common::{appid, at, on_both, onboard},
    queue::Sender,
};

on_both! {
    gone_disables_with_an_audit_line
    days_of_failure_disable
    a_disabled_endpoint_ends_what_was_on_its_way
    a_removed_endpoint_leaves_nothing_pending
    two_secrets_sign_while_one_is_rotated
    changes_of_an_endpoint_are_on_record
    a_tenant_has_no_more_endpoints_than_it_may_have
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
        door.create_delivery(webhook, &event, now).await.unwrap();
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
        door.create_delivery(webhook, &event, now).await.unwrap();
        let one = due(&store, now).await.remove(0);
        assert_eq!(one.secrets_sealed, wanted, "second {second}");
        end(&store, &one, DeliveryNext::Delivered, now).await;
    }
}

async fn a_tenant_has_no_more_endpoints_than_it_may_have(store: Store) {
    let stranger = onboard(&store, 100, 100).await;
    endpoint(&store, stranger, 999, EventFilter::All).await;
    let mut tenant = stranger;
    // The first rounds only open the connections that later rounds use at the same time.
    for round in 1..=8 {
        tenant = onboard(&store, round, 100).await;
        let mut makers = JoinSet::new();
        for number in 0..40 {
            let door = store.tenant(tenant);
            let new = new_endpoint(u16::from(round) * 100 + number, EventFilter::All);
            makers.spawn(async move { door.create_webhook(new, 5, at(1)).await.unwrap() });
        }
        let made = makers.join_all().await;
        assert_eq!(made.iter().flatten().count(), 5);
    }
    let door = store.tenant(tenant);
    let listed = door.webhooks(&PAGE).await.unwrap().items;
    assert_eq!(listed.len(), 5);
    // A removed endpoint makes room for another one, and a refusal leaves no line in the audit log.
    door.remove_webhook(listed[0].id, at(2)).await.unwrap();
    for (number, is_made) in [(50, true), (51, false)] {
        let new = new_endpoint(number, EventFilter::All);
        let door = door
            .clone()
            .with_audit_line(Origin::CLI.did("made", &new.id));
        let made = door.create_webhook(new, 5, at(3)).await.unwrap();
        assert_eq!(made.is_some(), is_made);
    }
    let noted = door.audit(&AuditFilter::default(), &PAGE).await.unwrap();
    assert_eq!(noted.items.len(), 1);
    let nobody = store.tenant(id::new(at(0), 9, 9));
    let made = nobody.create_webhook(new_endpoint(60, EventFilter::All), 5, at(1));
    assert!(matches!(made.await, Err(StoreError::NotFound("tenant"))));
}

async fn changes_of_an_endpoint_are_on_record(store: Store) {
    let tenant = onboard(&store, 1, 100).await;
    let new = new_endpoint(1, EventFilter::All);
    let (webhook, nobody) = (new.id, id::new(at(0), 9, 9));
    let door = |action: &str| {
        store
            .tenant(tenant)
            .with_audit_line(Origin::CLI.did(action, &webhook))
    };
    let patch = WebhookPatch::default;
    let made = door("made").create_webhook(new, 20, at(1)).await;
    assert!(made.unwrap().is_some());
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

    // A refused change leaves no line.
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
