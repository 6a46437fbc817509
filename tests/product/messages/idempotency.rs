//! Repeated requests with an idempotency key: the message is sent once.

use std::time::Duration;

use futures::future::join_all;
use reqwest::Method;
use serde_json::json;

use crate::world::{Mode, World, finish, id, message, message_with};

const APP: &str = "wx00000000000000a1";

both_modes!(
    a_repeated_request_gets_the_first_answer,
    twenty_concurrent_requests_with_one_key_create_one_message,
    a_key_belongs_to_one_request,
    a_key_belongs_to_one_tenant,
    a_refused_message_leaves_its_key_unused,
    a_scheduled_request_is_repeated_after_its_time,
    a_key_is_kept_for_a_day,
);

async fn a_repeated_request_gets_the_first_answer(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let message = message("o1");

    let first = tenant.send_keyed(APP, "order-42", &message).await;
    assert_eq!(first.header("idempotent-replayed"), None);
    let first = first.expect(202);
    tenant.wait_ended(&first).await;
    let second = tenant.send_keyed(APP, "order-42", &message).await;
    assert_eq!(second.header("idempotent-replayed"), Some("true"));
    assert_eq!(
        second.header("location"),
        Some(&*format!("/v1/messages/{}", id(&first)))
    );
    assert_eq!(second.expect(202), first, "as it was accepted");
    let path = format!("/v1/apps/{APP}/messages");
    let waiting = tenant.client.request(Method::POST, &path).await;
    let waiting = waiting
        .header("Idempotency-Key", "order-42")
        .header("Prefer", "wait=20")
        .json(&message);
    let third = finish(waiting).await;
    assert_eq!(third.header("idempotent-replayed"), Some("true"));
    assert_eq!(third.expect(200), tenant.read(&first).await, "its end");

    let unkeyed = tenant
        .send_and_wait(APP, &message_with("o2", json!({})))
        .await;
    assert_eq!(unkeyed["status"], "sent");
    assert_eq!(world.wechat().sent(APP).len(), 2);
}

async fn twenty_concurrent_requests_with_one_key_create_one_message(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let message = message("o1");

    let answers = join_all((0..20).map(|_| tenant.send_keyed(APP, "twin", &message))).await;

    let mut ids = Vec::new();
    for answer in answers {
        // A twin may get 409 while the first request still runs, but never another message.
        match answer.status.as_u16() {
            409 => drop(answer.problem(409, "conflict")),
            _ => ids.push(id(&answer.expect(202)).to_owned()),
        }
    }
    assert!(!ids.is_empty());
    ids.dedup();
    assert_eq!(ids.len(), 1, "{ids:?}");
    tenant.wait_count(APP, "sent", 1).await;
    assert_eq!(world.wechat().sent(APP).len(), 1);
}

async fn a_key_belongs_to_one_request(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    tenant
        .send_keyed(APP, "once", &message("o1"))
        .await
        .expect(202);
    tenant
        .send_keyed(APP, "once", &message("o2"))
        .await
        .problem(422, "idempotency_key_reused");
    let long = "x".repeat(256);
    for nonsense in ["", "with blank", long.as_str()] {
        tenant
            .send_keyed(APP, nonsense, &message("o3"))
            .await
            .problem(400, "invalid_request");
    }
    tenant.wait_count(APP, "sent", 1).await;
    assert_eq!(world.wechat().sent(APP).len(), 1);
}

async fn a_key_belongs_to_one_tenant(mode: Mode) {
    let world = World::start(mode).await;
    let (first, second) = (world.tenant("a").await, world.tenant("b").await);
    first.app(APP).await;
    second.app("wx00000000000000b2").await;
    let one = first
        .send_keyed(APP, "same", &message("o1"))
        .await
        .expect(202);
    let other = second
        .send_keyed("wx00000000000000b2", "same", &message("o1"))
        .await;
    assert_eq!(other.header("idempotent-replayed"), None);
    assert_ne!(id(&other.expect(202)), id(&one));
}

async fn a_key_is_kept_for_a_day(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    world.expect_copies();
    let message = message("o1");
    let first = tenant.send_keyed(APP, "daily", &message).await.expect(202);
    tenant.wait_ended(&first).await;

    world.pass(Duration::from_hours(23));
    let same = tenant.send_keyed(APP, "daily", &message).await.expect(202);
    assert_eq!(id(&same), id(&first));
    world.pass(Duration::from_hours(2));
    // The result is the same whether the janitor has deleted the old record or not.
    let fresh = tenant.send_keyed(APP, "daily", &message).await;
    assert_eq!(fresh.header("idempotent-replayed"), None);
    assert_ne!(id(&fresh.expect(202)), id(&first));
}

async fn a_refused_message_leaves_its_key_unused(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let tenant = world.tenant("a").await;
    tenant.app_with(APP, json!({"daily_quota": 1})).await;
    tenant.send_and_wait(APP, &message("o1")).await;
    let short = message_with("o2", json!({"ttl": 3600}));
    for _ in 0..2 {
        tenant
            .send_keyed(APP, "later", &short)
            .await
            .problem(429, "quota_exhausted");
    }
    world.pass(Duration::from_hours(15));
    let taken = tenant.send_keyed(APP, "later", &short).await;
    assert_eq!(taken.header("idempotent-replayed"), None);
    let taken = taken.expect(202);
    assert_eq!(tenant.wait_ended(&taken).await["status"], "sent");
}

async fn a_scheduled_request_is_repeated_after_its_time(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let send_at = (world.now() + chrono::Duration::hours(1)).to_rfc3339();
    let message = message_with("o1", json!({"send_at": send_at, "ttl": 60}));
    let first = tenant.send_keyed(APP, "later", &message).await.expect(202);
    world.pass(Duration::from_hours(2));
    tenant.wait_ended(&first).await;
    let again = tenant.send_keyed(APP, "later", &message).await;
    let again = again.expect(202);
    assert_eq!(again["status"], "scheduled");
    assert_eq!(again, first);
}
