//! Canceled messages.

use std::time::Duration;

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use simulator::{Effect, Fault};

use crate::world::{Answer, Mode, Tenant, World, finish, id, message, message_with};

const APP: &str = "wx00000000000000a1";
const SUBSCRIBE: &str = "/cgi-bin/message/subscribe/send";

both_modes!(
    a_scheduled_message_is_canceled,
    a_queued_message_is_canceled,
    a_message_that_wechat_may_have_is_not_canceled,
    a_canceled_message_does_not_delay_the_next,
    a_waiting_request_learns_of_the_cancel,
    each_message_is_either_sent_or_canceled,
);

async fn cancel(tenant: &Tenant, message: &Value) -> Answer {
    let path = format!("/v1/messages/{}/cancel", id(message));
    finish(tenant.client.request(Method::POST, &path).await).await
}

/// Delays WeChat's answer to the next send by `ms` milliseconds.
fn slow(world: &World, ms: u64) {
    let slow = Fault::next(1, Effect::Latency { ms });
    world.wechat().add_fault(slow.for_path(SUBSCRIBE));
}

async fn a_scheduled_message_is_canceled(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let send_at = (world.now() + Duration::from_hours(1)).to_rfc3339();
    let scheduled = tenant
        .send(APP, &message_with("o1", json!({"send_at": send_at})))
        .await;
    assert_eq!(scheduled["status"], "scheduled");

    let canceled = cancel(&tenant, &scheduled).await.expect(200);
    assert_eq!(
        (&canceled["status"], &canceled["failure"]),
        (&json!("canceled"), &Value::Null)
    );
    assert_eq!(tenant.read(&scheduled).await, canceled);
    assert_eq!(
        cancel(&tenant, &scheduled).await.expect(200),
        canceled,
        "once more changes nothing"
    );

    world.pass(Duration::from_hours(2));
    // The send of this message proves that the gateway has looked at the queue since then.
    tenant.send_and_wait(APP, &message("o2")).await;
    assert_eq!(tenant.read(&scheduled).await["status"], "canceled");
    assert_eq!(world.wechat().sent(APP).len(), 1);
}

async fn a_queued_message_is_canceled(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let tenant = world.tenant("a").await;
    // The first message uses up the daily quota, so the second message waits for the next day.
    tenant.app_with(APP, json!({"daily_quota": 1})).await;
    tenant.send_and_wait(APP, &message("o1")).await;
    let waiting = tenant.send(APP, &message("o2")).await;
    assert_eq!(waiting["status"], "queued");

    let canceled = cancel(&tenant, &waiting).await.expect(200);
    assert_eq!(canceled["status"], "canceled");
    world.pass(Duration::from_hours(15));
    tenant.send_and_wait(APP, &message("o3")).await;
    let to: Vec<_> = world
        .wechat()
        .sent(APP)
        .into_iter()
        .map(|sent| sent.touser)
        .collect();
    assert_eq!(to, ["o1", "o3"]);
    let metrics = world.anonymous().get("/metrics").await.text;
    assert!(
        metrics.contains("wxgate_messages_ended_total{status=\"canceled\"} 1"),
        "{metrics}"
    );
}

async fn a_message_that_wechat_may_have_is_not_canceled(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    slow(&world, 1500);
    let sent = tenant.send(APP, &message("o1")).await;
    tenant.wait_for(&sent, "sending").await;
    let refused = cancel(&tenant, &sent).await.problem(409, "conflict");
    let detail = refused["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("sending"), "{detail}");

    assert_eq!(tenant.wait_ended(&sent).await["status"], "sent");
    let refused = cancel(&tenant, &sent).await.problem(409, "conflict");
    let detail = refused["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("sent"), "{detail}");
    assert_eq!(tenant.read(&sent).await["status"], "sent");
}

async fn a_canceled_message_does_not_delay_the_next(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    slow(&world, 1500);
    let first = tenant.send(APP, &message("o1")).await;
    tenant.wait_for(&first, "sending").await;
    let second = tenant.send(APP, &message("o1")).await;
    let third = tenant.send(APP, &message("o1")).await;
    assert_eq!(
        cancel(&tenant, &second).await.expect(200)["status"],
        "canceled"
    );
    for message in [&first, &third] {
        assert_eq!(tenant.wait_ended(message).await["status"], "sent");
    }
    assert_eq!(world.wechat().sent(APP).len(), 2);
}

async fn a_waiting_request_learns_of_the_cancel(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let far = (world.now() + Duration::from_hours(1)).to_rfc3339();
    let waits = message_with("o1", json!({"send_at": far, "reference": "waits"}));
    let waiting = tenant.send_and_wait(APP, &waits);
    let canceling = async {
        let path = format!("/v1/apps/{APP}/messages?reference=waits");
        let time = tenant.client.time();
        let listed = time.eventually("the message is accepted", || async {
            let page = tenant.client.get(&path).await.expect(200);
            page["data"].get(0).cloned()
        });
        cancel(&tenant, &listed.await).await.expect(200)
    };
    let (told, canceled) = tokio::join!(waiting, canceling);
    assert_eq!(told, canceled);
}

async fn each_message_is_either_sent_or_canceled(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let races = (0..80).map(|number| {
        let tenant = tenant.clone();
        async move {
            // 80 messages go to 20 users, so that some messages are in flight and others wait behind another message.
            let message = message(&format!("o{}", number % 20));
            let accepted = tenant.send(APP, &message).await;
            let answer = cancel(&tenant, &accepted).await;
            let ended = tenant.wait_ended(&accepted).await;
            let wanted = if answer.status == 200 {
                "canceled"
            } else {
                answer.problem(409, "conflict");
                "sent"
            };
            assert_eq!(ended["status"], wanted, "{ended}");
            wanted
        }
    });
    let ends = join_all(races).await;
    let sent = ends.iter().filter(|end| **end == "sent").count();
    assert_eq!(world.wechat().sent(APP).len(), sent);
}
