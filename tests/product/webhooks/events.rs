//! Each event, from its cause to what the receiver gets.

use std::time::Duration;

use serde_json::{Value, json};
use simulator::{AccountState, Effect, Fault, PushEvent, PushFormat, PushMode};

use super::{
    APP, hook, path,
    receiver::{Heard, Receiver},
};
use crate::{
    callbacks::{arrived, assert_success, hearing, letter, msgid, post},
    world::{Mode, TEMPLATE, Tenant, World, eventually, id, message, message_with},
};

const SUBSCRIBE: &str = "/cgi-bin/message/subscribe/send";

both_modes!(
    receipts_are_reported_in_order,
    an_early_and_repeated_receipt_is_reported_once,
    an_uncertain_message_is_reported,
    an_expired_message_is_reported,
    a_paused_app_is_reported_once,
    a_nearly_spent_quota_is_reported_twice,
    a_foreign_refresh_is_reported,
);

/// A tenant with the app, and a receiver of all its events.
async fn listening(world: &World) -> (Tenant, Receiver, Value) {
    let tenant = world.tenant("a").await;
    let receiver = Receiver::start().await;
    let webhook = hook(&tenant, &receiver).await;
    (tenant, receiver, webhook)
}

/// The types of events about a message, in the order in which the receiver got the events.
fn of<'a>(heard: &'a [Heard], message: &Value) -> Vec<&'a str> {
    let mine = heard
        .iter()
        .filter(|one| one.json["data"]["id"] == message["id"]);
    mine.map(Heard::kind).collect()
}

/// All posts that the receiver has when a test event, sent after everything else, has arrived.
async fn all(tenant: &Tenant, receiver: &Receiver, webhook: &Value) -> Vec<Heard> {
    let test = path(webhook, "/test");
    tenant.client.post(&test, &Value::Null).await.expect(202);
    let time = tenant.client.time();
    let heard = time
        .eventually("the test event is heard", || async {
            let heard = receiver.heard();
            heard
                .iter()
                .any(|one| one.kind() == "webhook.test")
                .then_some(heard)
        })
        .await;
    heard
        .into_iter()
        .filter(|one| one.kind() != "webhook.test")
        .collect()
}

#[track_caller]
fn assert_signed(heard: &[Heard], webhook: &Value) {
    let secret = webhook["secret"].as_str().expect("a secret");
    assert!(heard.iter().all(|one| one.is_signed_by(secret)));
}

async fn receipts_are_reported_in_order(mode: Mode) {
    let world = World::start(mode).await;
    let (tenant, receiver, webhook) = listening(&world).await;
    hearing(&world, &tenant, PushMode::Safe, PushFormat::Json).await;
    let good = tenant.send_and_wait(APP, &message("o1")).await;
    let bad = tenant.send_and_wait(APP, &message("o2")).await;
    let failed = PushEvent::failed("o2", TEMPLATE, msgid(&bad), 1003, "system error");
    for event in [&arrived(&good), &arrived(&good), &failed, &failed] {
        assert_success(&post(&world, &letter(&world, event)).await);
    }
    receiver.wait(&world, 4).await;
    let heard = all(&tenant, &receiver, &webhook).await;
    assert_signed(&heard, &webhook);
    assert_eq!(of(&heard, &good), ["message.sent", "message.delivered"]);
    assert_eq!(of(&heard, &bad), ["message.sent", "message.undelivered"]);
    for one in [&good, &bad] {
        let shown = tenant.read(one).await;
        let last = heard
            .iter()
            .rfind(|heard| heard.json["data"]["id"] == one["id"]);
        assert_eq!(last.expect("an event").json["data"], shown);
    }
}

async fn an_early_and_repeated_receipt_is_reported_once(mode: Mode) {
    let world = World::start(mode).await;
    let (tenant, receiver, webhook) = listening(&world).await;
    hearing(&world, &tenant, PushMode::Safe, PushFormat::Json).await;
    let slow = Fault::next(1, Effect::Latency { ms: 1000 });
    world.wechat().add_fault(slow.for_path(SUBSCRIBE));
    let accepted = tenant.send(APP, &message("o1")).await;
    let taken = eventually("WeChat has the message", || async {
        world.wechat().sent(APP).pop()
    })
    .await;
    let receipt = PushEvent::delivered("o1", TEMPLATE, taken.msgid);
    for _ in 0..2 {
        assert_success(&post(&world, &letter(&world, &receipt)).await);
    }
    let ended = tenant.wait_for(&accepted, "delivered").await;
    // The same receipt again after the message has ended, and then the opposite receipt.
    let failed = PushEvent::failed("o1", TEMPLATE, taken.msgid, 1003, "failed");
    for event in [&receipt, &failed] {
        assert_success(&post(&world, &letter(&world, event)).await);
    }
    receiver.wait(&world, 2).await;
    let heard = all(&tenant, &receiver, &webhook).await;
    assert_eq!(of(&heard, &ended), ["message.sent", "message.delivered"]);
    assert_eq!(heard.len(), 2, "each once");
    assert_eq!(tenant.read(&accepted).await, ended);
}

async fn an_uncertain_message_is_reported(mode: Mode) {
    let world = World::start(mode).await;
    let (tenant, receiver, webhook) = listening(&world).await;
    tenant.app(APP).await;
    let lost = Fault::next(1, Effect::BreakAfter);
    world.wechat().add_fault(lost.for_path(SUBSCRIBE));
    let lost = tenant.send_and_wait(APP, &message("o1")).await;
    let heard = receiver.wait(&world, 1).await;
    assert_signed(&heard, &webhook);
    assert_eq!(of(&heard, &lost), ["message.uncertain"]);
    assert_eq!(heard[0].json["data"], lost);
}

async fn an_expired_message_is_reported(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let (tenant, receiver, webhook) = listening(&world).await;
    tenant.app(APP).await;
    let busy = Effect::Errcode {
        errcode: -1,
        errmsg: None,
    };
    world
        .wechat()
        .add_fault(Fault::always(busy).for_path(SUBSCRIBE));
    let late = message_with("o1", json!({"ttl": 2}));
    let late = tenant.send(APP, &late).await;
    tenant.wait_attempt(&late, "retry").await;
    world.pass(Duration::from_secs(3));
    let late = tenant.wait_for(&late, "expired").await;
    let heard = receiver.wait(&world, 1).await;
    assert_signed(&heard, &webhook);
    assert_eq!(of(&heard, &late), ["message.expired"]);
    assert_eq!(heard[0].json["data"]["failure"]["code"], "expired");
}

async fn a_paused_app_is_reported_once(mode: Mode) {
    let world = World::start(mode).await;
    let (tenant, receiver, webhook) = listening(&world).await;
    tenant.app(APP).await;
    world
        .wechat()
        .change_app(APP, |app| app.state = AccountState::ApiForbidden);
    for number in 0..5 {
        tenant.send(APP, &message(&format!("o{number}"))).await;
    }
    receiver.wait(&world, 1).await;
    let app = format!("/v1/apps/{APP}");
    let app = tenant.client.get(&app).await.expect(200);
    let heard = all(&tenant, &receiver, &webhook).await;
    assert_signed(&heard, &webhook);
    let kinds: Vec<&str> = heard.iter().map(Heard::kind).collect();
    assert_eq!(kinds, ["app.breaker_opened"]);
    let data = &heard[0].json["data"];
    assert_eq!(
        (&data["appid"], &data["reason"]),
        (&json!(APP), &app["pause"]["reason"])
    );
    assert!(data["paused_until"].is_string() && data["detail"].is_string());
}

async fn a_nearly_spent_quota_is_reported_twice(mode: Mode) {
    const ROUND: Duration = Duration::from_secs(31);
    let world = World::plan(mode).by_hand().start().await;
    let (tenant, receiver, webhook) = listening(&world).await;
    let only = json!({"events": ["app.quota_warning"]});
    let changed = tenant.client.patch(&path(&webhook, ""), &only).await;
    changed.expect(200);
    tenant.app_with(APP, json!({"daily_quota": 20})).await;
    let send = async |from: usize, to: usize| {
        for number in from..to {
            let high = message_with(&format!("o{number}"), json!({"priority": "high"}));
            tenant.send_and_wait(APP, &high).await;
        }
        world.pass(ROUND);
    };
    send(0, 15).await;
    send(15, 16).await;
    let heard = receiver.wait(&world, 1).await;
    let percent = |one: &Heard| one.json["data"]["percent"].clone();
    assert_eq!(percent(&heard[0]), 80);
    assert_eq!(heard[0].json["data"]["used"], 16);
    send(16, 19).await;
    let heard = receiver.wait(&world, 2).await;
    assert_eq!(percent(&heard[1]), 95);
    assert_eq!(heard[1].json["data"]["remaining"], 1);
    send(19, 20).await;
    world.pass(ROUND);
    let heard = all(&tenant, &receiver, &webhook).await;
    assert_signed(&heard, &webhook);
    assert_eq!(heard.len(), 2, "once a day each");
    // The next day has new warnings.
    world.pass(Duration::from_hours(24));
    send(20, 37).await;
    let time = tenant.client.time();
    let again = time
        .eventually("the next day's mark is told", || async {
            let heard = receiver.heard();
            let marks = heard.iter().filter(|one| one.kind() == "app.quota_warning");
            (marks.count() == 3).then_some(heard)
        })
        .await;
    assert_eq!(percent(again.last().expect("an event")), 80);
}

async fn a_foreign_refresh_is_reported(mode: Mode) {
    let world = World::start(mode).await;
    let (tenant, receiver, webhook) = listening(&world).await;
    tenant.app_with(APP, json!({"token_mode": "legacy"})).await;
    tenant.send_and_wait(APP, &message("o1")).await;
    // The first fetch leaves the gateway's token five minutes, the second ends that token.
    world.wechat().foreign_fetch(APP);
    world.wechat().foreign_fetch(APP);
    let sent = tenant.send_and_wait(APP, &message("o2")).await;
    assert_eq!(sent["status"], "sent");
    let time = tenant.client.time();
    let told = time
        .eventually("the foreign refresh is told", || async {
            let heard = receiver.heard();
            heard
                .into_iter()
                .find(|one| one.kind() == "app.foreign_refresh")
        })
        .await;
    assert_signed(std::slice::from_ref(&told), &webhook);
    let data = &told.json["data"];
    assert_eq!(
        (&data["appid"], &data["count_today"]),
        (&json!(APP), &json!(1))
    );
    assert!(!id(&told.json).is_empty());
}
