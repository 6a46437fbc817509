//! Messages retried by hand.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use simulator::{Effect, Fault, GrantRule};

use crate::world::{Answer, Mode, Tenant, World, finish, id, message, message_with, outcomes};

const APP: &str = "wx00000000000000a1";
const SUBSCRIBE: &str = "/cgi-bin/message/subscribe/send";

both_modes!(
    a_failed_message_is_sent_again,
    an_expired_message_has_its_whole_ttl_again,
    an_uncertain_message_may_arrive_twice,
    open_and_sent_messages_are_not_retried,
    a_retry_with_an_idempotency_key_happens_once,
    a_retry_needs_quota,
    a_retry_keeps_to_a_schedule,
);

/// Asks for a retry with these headers.
async fn retry_with(tenant: &Tenant, message: &Value, headers: &[(&'static str, &str)]) -> Answer {
    let path = format!("/v1/messages/{}/retry", id(message));
    let mut request = tenant.client.request(Method::POST, &path).await;
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    tenant.client.time().during(finish(request)).await
}

async fn retry(tenant: &Tenant, message: &Value) -> Answer {
    retry_with(tenant, message, &[]).await
}

const WAIT: (&str, &str) = ("prefer", "wait=20");

/// A message that WeChat has refused, and that WeChat would take now.
async fn failed(world: &World, tenant: &Tenant) -> Value {
    let grants = |policy| world.wechat().change_app(APP, |app| app.grants = policy);
    grants(GrantRule::Counted);
    let failed = tenant.send_and_wait(APP, &message("o1")).await;
    assert_eq!(failed["status"], "failed", "{failed}");
    grants(GrantRule::Unlimited);
    failed
}

async fn a_failed_message_is_sent_again(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let failed = failed(&world, &tenant).await;

    let answer = retry(&tenant, &failed).await;
    assert_eq!(
        answer.header("location"),
        Some(&*format!("/v1/messages/{}", id(&failed)))
    );
    let queued = answer.expect(202);
    assert_eq!(
        (&queued["status"], &queued["failure"]),
        (&json!("queued"), &Value::Null)
    );
    assert_eq!(queued["attempts"], failed["attempts"]);
    assert_eq!(queued["created_at"], failed["created_at"]);

    let sent = tenant.wait_ended(&failed).await;
    assert_eq!(sent["status"], "sent", "{sent}");
    assert_eq!(outcomes(&sent), ["rejected", "accepted"]);
    assert_eq!(
        (
            &sent["attempts"][0]["number"],
            &sent["attempts"][1]["number"]
        ),
        (&json!(1), &json!(2))
    );
    assert!(sent["msgid"].is_string());
}

async fn an_expired_message_has_its_whole_ttl_again(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let busy = Effect::Errcode {
        errcode: -1,
        errmsg: None,
    };
    world
        .wechat()
        .add_fault(Fault::always(busy).for_path(SUBSCRIBE));
    let short = message_with("o1", json!({"ttl": 60}));
    let short = tenant.send(APP, &short).await;
    tenant.wait_attempt(&short, "retry").await;
    world.pass(Duration::from_mins(2));
    assert_eq!(tenant.wait_ended(&short).await["status"], "expired");

    world.wechat().clear_faults();
    world.pass(Duration::from_hours(1));
    let before = world.now();
    let sent = retry_with(&tenant, &short, &[WAIT]).await;
    assert_eq!(sent.header("preference-applied"), Some("wait=20"));
    let sent = sent.expect(200);
    assert_eq!(sent["status"], "sent", "{sent}");
    let ends: chrono::DateTime<chrono::Utc> = sent["expires_at"]
        .as_str()
        .expect("a time")
        .parse()
        .unwrap();
    assert!(ends >= before + Duration::from_mins(1), "{sent}");
}

async fn an_uncertain_message_may_arrive_twice(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    world
        .wechat()
        .add_fault(Fault::next(1, Effect::BreakAfter).for_path(SUBSCRIBE));
    let lost = tenant.send_and_wait(APP, &message("o1")).await;
    assert_eq!(lost["status"], "uncertain");

    world.expect_copies();
    let sent = retry_with(&tenant, &lost, &[WAIT]).await.expect(200);
    assert_eq!(sent["status"], "sent");
    assert_eq!(outcomes(&sent), ["unknown", "accepted"]);
    assert_eq!(world.wechat().sent(APP).len(), 2);
}

async fn open_and_sent_messages_are_not_retried(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let far = (world.now() + Duration::from_hours(1)).to_rfc3339();
    let scheduled = tenant
        .send(APP, &message_with("o1", json!({"send_at": far})))
        .await;
    let sent = tenant.send_and_wait(APP, &message("o2")).await;
    for message in [&scheduled, &sent] {
        let refused = retry(&tenant, message).await.problem(409, "conflict");
        let detail = refused["detail"].as_str().unwrap_or_default();
        let status = message["status"].as_str().unwrap_or_default();
        assert!(detail.contains(status), "{detail}");
    }
    let path = format!("/v1/messages/{}/cancel", id(&scheduled));
    tenant
        .client
        .call(Method::POST, &path, None)
        .await
        .expect(200);
    // A canceled message can be retried too; a scheduled one keeps its time.
    let again = retry(&tenant, &scheduled).await.expect(202);
    assert_eq!(again["status"], "scheduled", "{again}");
    assert_eq!(again["expires_at"], scheduled["expires_at"]);
    assert_eq!(world.wechat().sent(APP).len(), 1);
}

/// A scheduled message that was canceled and then retried is sent at its original time.
async fn a_retry_keeps_to_a_schedule(mode: Mode) {
    let world = World::plan(mode).own_process().start().await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let soon = world.now() + Duration::from_secs(6);
    let fields = json!({"send_at": soon.to_rfc3339(), "ttl": 60});
    let scheduled = tenant.send(APP, &message_with("o1", fields)).await;
    let path = format!("/v1/messages/{}/cancel", id(&scheduled));
    let canceled = tenant.client.call(Method::POST, &path, None).await;
    canceled.expect(200);
    let again = retry(&tenant, &scheduled).await.expect(202);
    assert_eq!(again["status"], "scheduled", "{again}");
    assert_eq!(again["expires_at"], scheduled["expires_at"]);
    let sent = tenant.wait_ended(&scheduled).await;
    assert_eq!(sent["status"], "sent", "{sent}");
    let taken = world.wechat().sent(APP);
    assert!(taken[0].at >= soon.timestamp_millis(), "{taken:?}");
}

async fn a_retry_with_an_idempotency_key_happens_once(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let failed = failed(&world, &tenant).await;
    let keyed = [("idempotency-key", "again")];

    let first = retry_with(&tenant, &failed, &keyed).await;
    assert_eq!(first.header("idempotent-replayed"), None);
    let first = first.expect(202);
    assert_eq!(tenant.wait_ended(&failed).await["status"], "sent");
    let replayed = retry_with(&tenant, &failed, &keyed).await;
    assert_eq!(replayed.header("idempotent-replayed"), Some("true"));
    assert_eq!(replayed.expect(202), first, "the first answer");
    let waited = retry_with(&tenant, &failed, &[keyed[0], WAIT]).await;
    assert_eq!(waited.header("idempotent-replayed"), Some("true"));
    assert_eq!(waited.expect(200)["status"], "sent");

    tenant
        .send_keyed(APP, "again", &message("o1"))
        .await
        .problem(422, "idempotency_key_reused");
    retry_with(&tenant, &failed, &[("idempotency-key", "a b")])
        .await
        .problem(400, "invalid_request");
    assert_eq!(world.wechat().sent(APP).len(), 1);
}

async fn a_retry_needs_quota(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let tenant = world.tenant("a").await;
    tenant.app_with(APP, json!({"daily_quota": 2})).await;
    let short = json!({"priority": "high", "ttl": 3600});
    let one = tenant
        .send_and_wait(APP, &message_with("o1", short.clone()))
        .await;
    assert_eq!(one["status"], "sent");
    world
        .wechat()
        .change_app(APP, |app| app.grants = GrantRule::Counted);
    let failed = tenant.send_and_wait(APP, &message_with("o2", short)).await;
    assert_eq!(failed["status"], "failed");
    world
        .wechat()
        .change_app(APP, |app| app.grants = GrantRule::Unlimited);

    let refused = retry(&tenant, &failed).await;
    assert_eq!(refused.header("retry-after"), Some("50400"), "{refused:?}");
    let refused = refused.problem(429, "quota_exhausted");
    let detail = refused["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("app's daily quota"), "{detail}");
    assert_eq!(tenant.read(&failed).await, failed);

    world.pass(Duration::from_secs(14 * 3600 + 5));
    let sent = retry_with(&tenant, &failed, &[WAIT]).await.expect(200);
    assert_eq!(sent["status"], "sent");
}
