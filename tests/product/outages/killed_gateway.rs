//! `kill -9` of the real program: accepted messages are sent, and messages in flight are never sent twice.

use std::time::Duration;

use serde_json::json;
use simulator::{Effect, Fault};

use crate::world::{Mode, World, message, until};

const APP: &str = "wx00000000000000a1";
const SUBSCRIBE: &str = "/cgi-bin/message/subscribe/send";

both_modes!(
    an_accepted_message_survives_a_crash,
    a_message_in_flight_in_a_crash_is_not_sent_twice,
    a_gateway_stops_gracefully_on_request,
);

/// The gateway dies while the app is paused: all messages are queued, none is sent.
async fn an_accepted_message_survives_a_crash(mode: Mode) {
    let mut world = World::plan(mode).own_process().start().await;
    let tenant = world.tenant("a").await;
    let new = json!({"appid": APP, "secret": "s", "tenant_id": tenant.id, "verify": false});
    world.operator().post("/v1/apps", &new).await.expect(201);
    world
        .wechat()
        .change_app(APP, |app| app.secret = Some("another".into()));
    let mut accepted = vec![tenant.send(APP, &message("first")).await];
    tenant.wait_attempt(&accepted[0], "app_blocked").await;
    for number in 0..10 {
        accepted.push(tenant.send(APP, &message(&format!("o{number}"))).await);
    }

    world.kill_replica();
    world.wechat().change_app(APP, |app| app.secret = None);
    world.leap(Duration::from_hours(3));
    world.add_replica(false).await;

    let tenant = world.at(0, &tenant);
    for message in &accepted {
        let ended = tenant.wait_ended(message).await;
        assert_eq!(ended["status"], "sent", "{ended}");
    }
    assert_eq!(world.wechat().sent(APP).len(), accepted.len());
}

/// The gateway dies after WeChat has accepted the message and before WeChat answers.
async fn a_message_in_flight_in_a_crash_is_not_sent_twice(mode: Mode) {
    let mut world = World::plan(mode).own_process().start().await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    world
        .wechat()
        .add_fault(Fault::next(1, Effect::Hang { acted: true }).for_path(SUBSCRIBE));
    let lost = tenant.send(APP, &message("o1")).await;
    until("WeChat has the message", || {
        world.wechat().sent(APP).len() == 1
    })
    .await;

    world.kill_replica();
    world.add_replica(true).await;
    let next = world.at(0, &tenant);
    let other = next.send_and_wait(APP, &message("o2")).await;
    assert_eq!(
        other["status"], "sent",
        "one message in doubt holds up nobody else"
    );
    assert_eq!(
        next.read(&lost).await["status"],
        "sending",
        "its lease is not over yet"
    );
    world.stop_replica().await;

    world.leap(Duration::from_mins(2));
    world.add_replica(false).await;
    let tenant = world.at(0, &tenant);
    let lost = tenant.wait_ended(&lost).await;
    assert_eq!(
        (&lost["status"], &lost["failure"]["code"]),
        (&json!("uncertain"), &json!("unanswered"))
    );
    let again = tenant.send_and_wait(APP, &message("o1")).await;
    assert_eq!(again["status"], "sent", "the user is free again: {again}");
    assert_eq!(world.wechat().sent(APP).len(), 3);
}

async fn a_gateway_stops_gracefully_on_request(mode: Mode) {
    let mut world = World::plan(mode).own_process().start().await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    world
        .wechat()
        .change_app(APP, |app| app.latency_ms = Some(500));
    let message = tenant.send(APP, &message("o1")).await;
    until("WeChat has the message", || {
        world.wechat().sent(APP).len() == 1
    })
    .await;

    assert_eq!(world.terminate_replica(), Some(0));
    world.add_replica(true).await;

    let ended = world.at(0, &tenant).read(&message).await;
    assert_eq!(
        ended["status"], "sent",
        "its answer was waited for and recorded: {ended}"
    );
}
