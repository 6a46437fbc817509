//! The statements that visit tenants with webhooks or apps with receipts in rotation: by hops over an index, however
//! many rows wait.

use std::collections::BTreeSet;

use domain::{
    id::{self, TenantId},
    webhook::{EventFilter, EventType},
};
use sea_orm::{ConnectionTrait, DbBackend, Statement};
use uuid::Uuid;

use super::{ENDED, at};
use crate::{
    AppEvent, DeliveryNext, DeliveryOutcome, NewReceipt, NewWebhook, OutboxRequest, Slots, Store,
    timestamp::millis,
};

/// Inserts deliveries and receipts of many tenants and apps. Half of the deliveries are pending.
async fn fill(store: &Store) {
    let connection = store.write();
    let uuid = match connection.get_database_backend() {
        DbBackend::Postgres => "gen_random_uuid()",
        _ => "randomblob(16)",
    };
    let count = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ENDED}) SELECT"
    );
    let due = millis(at(0));
    for insert in [
        format!(
            "INSERT INTO webhook_delivery (webhook_id, event_id, tenant_id, kind, facts, status, attempt_count, due_at, retry_from, \
             created_at) {count} {uuid}, {uuid}, {uuid}, 'webhook.test', '{{}}', CASE WHEN i % 2 = 0 THEN 'pending' ELSE 'delivered' \
             END, 0, {due} + i, {due}, {due} FROM n"
        ),
        format!(
            "INSERT INTO receipt (appid, touser, msgid, status, received_at, look_at) {count} 'wx' || (1000000000000000 + i / 100), 'o' || i, \
             '' || i, 'delivered', {due}, {due} + i FROM n"
        ),
    ] {
        let insert = Statement::from_string(connection.get_database_backend(), insert);
        connection.execute_raw(insert).await.unwrap();
    }
}

/// Claims, records, receives and sweeps.
pub(super) async fn work(store: &Store, tenant: TenantId) {
    fill(store).await;
    let (platform, now) = (store.platform(), at(60));
    let webhook = NewWebhook {
        id: id::new(at(0), 1, 1),
        url: "https://hooks.example/".into(),
        events: EventFilter::All,
        description: None,
        secret_sealed: vec![1; 60],
    };
    let endpoint = webhook.id;
    let door = store.tenant(tenant);
    door.create_webhook(webhook, 20, at(0)).await.unwrap();
    let event = AppEvent {
        id: id::new(at(0), 2, 2),
        kind: EventType::WebhookTest,
        data: serde_json::json!({}),
    };
    door.create_delivery(endpoint, &event, at(0)).await.unwrap();
    // The tenant is the next one in the rotation.
    let cursor = Uuid::from_u128(tenant.uuid().as_u128() - 1);
    let request = OutboxRequest {
        slots: Slots {
            free: 64,
            ..Slots::default()
        },
        each: 8,
        cursor,
        lease: 1,
        lease_until: at(120),
    };
    let claim = platform.claim_deliveries(&request, now).await.unwrap();
    let outcomes: Vec<DeliveryOutcome> = claim
        .due
        .iter()
        .map(|due| DeliveryOutcome {
            webhook: due.webhook,
            event: due.event,
            lease: due.lease,
            next: DeliveryNext::Delivered,
            response_status: Some(200),
            response_excerpt: None,
            error: None,
        })
        .collect();
    assert!(!outcomes.is_empty());
    platform.record_deliveries(&outcomes, now).await.unwrap();
    let receipt = NewReceipt {
        tenant: uuid::Uuid::nil().into(),
        appid: "wx0000000000000001".parse().unwrap(),
        touser: "o1".into(),
        msgid: 7,
        delivered: true,
        failure_detail: None,
        circumstances: None,
    };
    platform.receive(&[receipt], now).await.unwrap();
    let swept = platform.sweep_receipts("", now).await.unwrap();
    assert!(swept.more);
}

/// The statements that visit tenants or apps in rotation, each once.
pub(super) fn rounds(made: Vec<Statement>) -> Vec<Statement> {
    let mut known = BTreeSet::new();
    let mut rounds = made;
    rounds.retain(|one| one.sql.contains("WITH RECURSIVE") && known.insert(one.sql.clone()));
    assert_eq!(rounds.len(), 2, "{rounds:?}");
    rounds
}

/// Whether a node of a plan scans all deliveries or receipts, or those of more than one tenant or app.
pub(super) fn is_walk(line: &str, next: &str) -> bool {
    let on = |table: &str| line.contains(" Scan ") && line.contains(&format!(" on {table} "));
    let looks_for = |column: &str| next.contains("Index Cond: ") && next.contains(column);
    on("webhook_delivery") && !looks_for("tenant_id") || on("receipt") && !looks_for("appid")
}
