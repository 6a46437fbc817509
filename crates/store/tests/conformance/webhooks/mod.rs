//! Webhooks: the same rules on SQLite and on PostgreSQL.

mod deliveries;
mod endpoints;
mod events;

use std::{collections::BTreeSet, time::Duration};

use chrono::{DateTime, Utc};
use domain::{
    id::{self, MessageId, TenantId, WebhookId},
    webhook::{EventFilter, EventType},
};
use uuid::Uuid;
use wxgate_store::{
    DeliveryNext, DeliveryOutcome, DueDelivery, NewReceipt, NewWebhook, OutboxClaim, OutboxRequest,
    Page, Slots, Store, WebhookDelivery,
};

use crate::{
    common::{appid, at, draft, owner},
    queue::{Sender, accepted, claim, record},
};

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

pub(crate) async fn endpoint(
    store: &Store,
    tenant: TenantId,
    number: u16,
    events: EventFilter,
) -> WebhookId {
    let new = new_endpoint(number, events);
    let made = store.tenant(tenant).create_webhook(new, 20, at(0)).await;
    made.unwrap().unwrap().id
}

async fn claim_due(store: &Store, slots: usize, each: usize, now: DateTime<Utc>) -> OutboxClaim {
    let request = OutboxRequest {
        slots: Slots {
            free: slots,
            ..Slots::default()
        },
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

async fn claim_with(store: &Store, slots: Slots, now: DateTime<Utc>) -> OutboxClaim {
    let request = OutboxRequest {
        slots,
        each: 8,
        cursor: Uuid::nil(),
        lease: now.timestamp_millis(),
        lease_until: now + Duration::from_secs(30),
    };
    let platform = store.platform();
    platform.claim_deliveries(&request, now).await.unwrap()
}

async fn due(store: &Store, now: DateTime<Utc>) -> Vec<DueDelivery> {
    claim_due(store, 1024, 64, now).await.due
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

pub(crate) async fn told(
    store: &Store,
    tenant: TenantId,
    webhook: WebhookId,
) -> Vec<WebhookDelivery> {
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

/// A message that WeChat accepted, recorded at second `second`.
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
        tenant: owner(1),
        appid: appid(1),
        touser: touser.to_owned(),
        msgid: 77,
        delivered: false,
        failure_detail: Some("user refuses".into()),
        circumstances: None,
    };
    let settled = store.platform().receive(&[receipt], now).await.unwrap();
    assert_eq!(settled.0.len(), 1);
}
