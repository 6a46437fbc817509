//! Callbacks of WeChat, and their effects on messages.

mod authentication;
mod lookup_cost;
mod lost_answers;
mod replays;

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use simulator::{
    AccountKind, CallbackRequest, Effect, Fault, PushEvent, PushFormat, PushMode, PushReceipt,
    PushSettings,
};

use crate::world::{Answer, Mode, TEMPLATE, Tenant, World, eventually, finish, message};

const APP: &str = "wx00000000000000a1";
const OTHER: &str = "wx00000000000000b2";
const OFFICIAL: &str = "wx00000000000000f0";
const TOKEN: &str = "gatewayTestToken01";
/// The last character has bits that strict base64 decoders refuse.
const AES_KEY: &str = "q7Xc2Vn8Lk4Rz1Tb6Ym9Wd3Hs5Jf0Gp7Ua2Ke4Qi8Or";

both_modes!(
    messages_are_delivered_in_every_mode_and_format,
    an_undelivered_message_says_why,
    an_official_accounts_message_is_delivered,
    an_event_counts_once,
    an_event_may_come_before_the_answer_of_the_send,
    one_event_may_report_several_messages,
    unknown_events_are_answered_and_counted,
    settings_and_digests_survive_a_restart,
);

/// Registers an app with callback settings, and gives WeChat the same settings.
pub(crate) async fn hearing(world: &World, tenant: &Tenant, mode: PushMode, format: PushFormat) {
    let mut given = json!({"callback_token": TOKEN});
    if mode != PushMode::Plain {
        given["callback_aes_key"] = json!(AES_KEY);
    }
    tenant.app_with(APP, given).await;
    pushes(world, APP, settings(world, mode, format));
}

fn settings(world: &World, mode: PushMode, format: PushFormat) -> PushSettings {
    PushSettings {
        url: format!("{}/callbacks/{APP}", world.url(0)),
        token: TOKEN.into(),
        aes_key: (mode != PushMode::Plain).then(|| AES_KEY.into()),
        mode,
        format,
        receipts: false,
    }
}

/// Changes the settings in WeChat's console.
fn pushes(world: &World, appid: &str, push: PushSettings) {
    world
        .wechat()
        .change_app(appid, |app| app.push = Some(push));
}

pub(crate) fn letter(world: &World, event: &PushEvent) -> CallbackRequest {
    letter_of(world, APP, event)
}

pub(crate) fn letter_of(world: &World, appid: &str, event: &PushEvent) -> CallbackRequest {
    world.wechat().letter(appid, event).unwrap()
}

/// Posts a callback to an app, as WeChat does.
pub(crate) async fn post_to(world: &World, appid: &str, letter: &CallbackRequest) -> Answer {
    let path = format!("/callbacks/{appid}?{}", letter.query);
    let request = world
        .anonymous()
        .bare(Method::POST, &path)
        .header("content-type", letter.content_type)
        .body(letter.body.clone());
    finish(request).await
}

pub(crate) async fn post(world: &World, letter: &CallbackRequest) -> Answer {
    post_to(world, APP, letter).await
}

#[track_caller]
pub(crate) fn assert_success(answer: &Answer) {
    assert_eq!(
        (answer.status.as_u16(), answer.text.as_str()),
        (200, "success"),
        "{answer:?}"
    );
    assert_eq!(
        answer.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
}

/// The value of a counter.
pub(crate) async fn counted(world: &World, series: &str) -> u64 {
    let metrics = world.anonymous().get("/metrics").await.text;
    let line = metrics.lines().find_map(|line| line.strip_prefix(series));
    line.map_or(0, |value| value.trim().parse().expect("a number"))
}

pub(crate) fn msgid(message: &Value) -> u64 {
    message["msgid"].as_str().unwrap().parse().unwrap()
}

pub(crate) fn arrived(message: &Value) -> PushEvent {
    let openid = message["touser"].as_str().unwrap();
    PushEvent::delivered(openid, TEMPLATE, msgid(message))
}

fn popup(openid: &str) -> PushEvent {
    PushEvent::Popup {
        openid: openid.into(),
        choices: vec![(TEMPLATE.into(), "accept".into())],
    }
}

async fn messages_are_delivered_in_every_mode_and_format(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    hearing(&world, &tenant, PushMode::Plain, PushFormat::Json).await;
    let mut number = 0;
    for push_mode in [PushMode::Plain, PushMode::Compatible, PushMode::Safe] {
        if push_mode == PushMode::Compatible {
            let key = json!({"callback_aes_key": AES_KEY});
            let path = format!("/v1/apps/{APP}");
            tenant.client.patch(&path, &key).await.expect(200);
        }
        for format in [PushFormat::Json, PushFormat::Xml] {
            let told = PushSettings {
                receipts: true,
                ..settings(&world, push_mode, format)
            };
            pushes(&world, APP, told);
            number += 1;
            let sent = tenant
                .send_and_wait(APP, &message(&format!("o{number}")))
                .await;
            let delivered = tenant.wait_for(&sent, "delivered").await;
            assert_eq!(delivered["failure"], Value::Null);
            assert_eq!(delivered["msgid"], sent["msgid"]);
            assert!(delivered["msgid"].is_string());
        }
    }
    let delivered = "wxgate_messages_settled_total{status=\"delivered\"}";
    assert_eq!(counted(&world, delivered).await, 6);
    assert_eq!(tenant.count(APP, "delivered").await, 6);
}

async fn an_undelivered_message_says_why(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    hearing(&world, &tenant, PushMode::Safe, PushFormat::Json).await;
    let sent = tenant.send_and_wait(APP, &message("o1")).await;
    let event = PushEvent::failed("o1", TEMPLATE, msgid(&sent), 1003, "system error");
    assert_success(&post(&world, &letter(&world, &event)).await);
    let message = tenant.read(&sent).await;
    assert_eq!(
        (&message["status"], &message["failure"]["code"]),
        (&json!("undelivered"), &json!("undelivered")),
        "it is there when WeChat is answered: {message}"
    );
    let detail = message["failure"]["detail"].as_str().unwrap();
    assert!(detail.contains("1003 system error"), "{detail}");
    assert_eq!(message["attempts"], sent["attempts"]);
}

async fn an_official_accounts_message_is_delivered(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    let push = PushSettings {
        url: format!("{}/callbacks/{OFFICIAL}", world.url(0)),
        receipts: true,
        ..settings(&world, PushMode::Safe, PushFormat::Xml)
    };
    world.wechat().change_app(OFFICIAL, |app| {
        app.kind = AccountKind::OfficialAccount;
        app.push = Some(push);
    });
    let kind = json!({
        "kind": "official_account", "callback_token": TOKEN, "callback_aes_key": AES_KEY,
    });
    tenant.app_with(OFFICIAL, kind).await;
    let asked = |openid: &str| json!({"channel": "official", "touser": openid, "template_id": TEMPLATE, "data": {"thing1": {"value": "x"}}});
    let sent = tenant.send_and_wait(OFFICIAL, &asked("o1")).await;
    tenant.wait_for(&sent, "delivered").await;

    world.wechat().change_app(OFFICIAL, |app| {
        app.push.as_mut().expect("settings").receipts = false;
    });
    let sent = tenant.send_and_wait(OFFICIAL, &asked("o2")).await;
    let blocked = PushEvent::JobFinished {
        openid: "o2".into(),
        msgid: msgid(&sent),
        status: "failed:user block".into(),
    };
    world.wechat().push(OFFICIAL, blocked);
    let message = tenant.wait_for(&sent, "undelivered").await;
    let detail = message["failure"]["detail"].as_str().unwrap();
    assert!(detail.contains("failed:user block"), "{detail}");
}

async fn an_event_counts_once(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let tenant = world.tenant("a").await;
    hearing(&world, &tenant, PushMode::Safe, PushFormat::Xml).await;
    let sent = tenant.send_and_wait(APP, &message("o1")).await;

    let receipt = letter(&world, &arrived(&sent));
    assert_success(&post(&world, &receipt).await);
    let delivered = tenant.read(&sent).await;
    assert_eq!(delivered["status"], "delivered");
    let other = PushEvent::failed("o1", TEMPLATE, msgid(&sent), 1003, "failed");
    for letter in [&receipt, &receipt, &letter(&world, &other)] {
        assert_success(&post(&world, letter).await);
    }
    assert_eq!(tenant.read(&sent).await, delivered, "nothing has changed");

    // WeChat signs each repeat with a new nonce.
    let popups: Vec<CallbackRequest> = (0..3).map(|_| letter(&world, &popup("o1"))).collect();
    let posts = popups.iter().map(|letter| post(&world, letter));
    for answer in futures::future::join_all(posts).await {
        assert_success(&answer);
    }
    let heard = |outcome: &str| {
        format!(
            "wxgate_callbacks_total{{event=\"subscribe_msg_popup_event\",outcome=\"{outcome}\"}}"
        )
    };
    assert_eq!(counted(&world, &heard("taken")).await, 1);
    assert_eq!(counted(&world, &heard("repeated")).await, 2);
    world.pass(Duration::from_secs(1));
    assert_success(&post(&world, &letter(&world, &popup("o1"))).await);
    assert_eq!(counted(&world, &heard("taken")).await, 2);
}

async fn an_event_may_come_before_the_answer_of_the_send(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    hearing(&world, &tenant, PushMode::Safe, PushFormat::Json).await;
    let slow = Fault::next(1, Effect::Latency { ms: 1500 });
    world
        .wechat()
        .add_fault(slow.for_path("/cgi-bin/message/subscribe/send"));
    let accepted = tenant.send(APP, &message("o1")).await;
    let taken = eventually("WeChat has the message", || async {
        world.wechat().sent(APP).pop()
    })
    .await;

    // Two equal receipts, then a receipt with the opposite result.
    let failed = PushEvent::failed("o1", TEMPLATE, taken.msgid, 1003, "failed");
    for event in [
        &failed,
        &failed,
        &PushEvent::delivered("o1", TEMPLATE, taken.msgid),
    ] {
        assert_success(&post(&world, &letter(&world, event)).await);
    }
    assert_eq!(tenant.read(&accepted).await["status"], "sending");

    let ended = tenant.wait_for(&accepted, "undelivered").await;
    assert_eq!(ended["msgid"], taken.msgid.to_string());
    assert_eq!(ended["attempts"][0]["outcome"], "accepted");
    let settled = "wxgate_messages_settled_total{status=\"undelivered\"}";
    assert_eq!(counted(&world, settled).await, 1);
}

async fn one_event_may_report_several_messages(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    hearing(&world, &tenant, PushMode::Compatible, PushFormat::Xml).await;
    let mut sent = Vec::new();
    for _ in 0..3 {
        sent.push(tenant.send_and_wait(APP, &message("o1")).await);
    }
    let receipt = |number: usize, error_code: i64| PushReceipt {
        template_id: TEMPLATE.into(),
        msgid: msgid(&sent[number]),
        error_code,
        error_status: "a status".into(),
    };
    let event = PushEvent::Sent {
        openid: "o1".into(),
        receipts: vec![receipt(2, 0), receipt(0, 7)],
    };
    assert_success(&post(&world, &letter(&world, &event)).await);
    for (message, status) in sent.iter().zip(["undelivered", "sent", "delivered"]) {
        assert_eq!(tenant.read(message).await["status"], status);
    }
}

async fn unknown_events_are_answered_and_counted(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    hearing(&world, &tenant, PushMode::Plain, PushFormat::Xml).await;
    let event = PushEvent::Other {
        openid: "o1".into(),
        name: "weapp_audit_success".into(),
    };
    assert_success(&post(&world, &letter(&world, &event)).await);
    let change = PushEvent::Change {
        openid: "o1".into(),
        choices: vec![(TEMPLATE.into(), "reject".into())],
    };
    assert_success(&post(&world, &letter(&world, &change)).await);
    // A receipt of a message that another system has sent.
    let foreign = PushEvent::delivered("o1", TEMPLATE, 7);
    assert_success(&post(&world, &letter(&world, &foreign)).await);
    // The signature is valid, so a refusal would only make WeChat repeat the callback.
    let mut broken = letter(&world, &event);
    broken.body = "<xml><Event>".into();
    assert_success(&post(&world, &broken).await);
    for (event, outcome) in [
        ("unknown", "ignored"),
        ("unreadable", "ignored"),
        ("subscribe_msg_change_event", "taken"),
        ("subscribe_msg_sent_event", "taken"),
    ] {
        let series = format!("wxgate_callbacks_total{{event=\"{event}\",outcome=\"{outcome}\"}}");
        assert_eq!(counted(&world, &series).await, 1, "{series}");
    }
}

async fn settings_and_digests_survive_a_restart(mode: Mode) {
    let mut world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    hearing(&world, &tenant, PushMode::Safe, PushFormat::Json).await;
    let sent = tenant.send_and_wait(APP, &message("o1")).await;
    let (receipt, news) = (
        letter(&world, &arrived(&sent)),
        letter(&world, &popup("o1")),
    );
    assert_success(&post(&world, &news).await);
    world.stop_replica().await;
    world.add_replica(false).await;

    assert_success(&post(&world, &receipt).await);
    let read = world.at(0, &tenant).read(&sent).await;
    assert_eq!(read["status"], "delivered");
    assert_success(&post(&world, &news).await);
    let repeated =
        "wxgate_callbacks_total{event=\"subscribe_msg_popup_event\",outcome=\"repeated\"}";
    assert_eq!(counted(&world, repeated).await, 1);
}

/// Production mode only: callbacks at different replicas need more than one replica.
mod every_replica_accepts_callbacks {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn production() {
        super::every_replica_accepts_callbacks().await;
    }
}

async fn every_replica_accepts_callbacks() {
    let world = World::plan(Mode::Production).replicas(2).start().await;
    let tenant = world.tenant("a").await;
    hearing(&world, &tenant, PushMode::Safe, PushFormat::Json).await;
    let sent = tenant.send_and_wait(APP, &message("o1")).await;
    let elsewhere = PushSettings {
        url: format!("{}/callbacks/{APP}", world.url(1)),
        ..settings(&world, PushMode::Safe, PushFormat::Json)
    };
    pushes(&world, APP, elsewhere);
    world.wechat().push(APP, arrived(&sent));
    tenant.wait_for(&sent, "delivered").await;
}

/// Production mode only: only a separate database server can stop.
mod a_callback_is_answered_only_after_the_commit {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn production() {
        super::a_callback_is_answered_only_after_the_commit().await;
    }
}

async fn a_callback_is_answered_only_after_the_commit() {
    let world = World::plan(Mode::Production).breakable().start().await;
    let tenant = world.tenant("a").await;
    hearing(&world, &tenant, PushMode::Safe, PushFormat::Json).await;
    let sent = tenant.send_and_wait(APP, &message("o1")).await;
    let receipt = letter(&world, &arrived(&sent));

    world.postgres().kill();
    post(&world, &receipt).await.problem(503, "overloaded");
    world.postgres().restart();
    let nobody = world.anonymous();
    eventually("it is ready again", || async {
        (nobody.get("/readyz").await.status == 200).then_some(())
    })
    .await;
    assert_eq!(tenant.read(&sent).await["status"], "sent");
    // WeChat repeats a callback that was not answered with `success`.
    assert_success(&post(&world, &receipt).await);
    assert_eq!(tenant.read(&sent).await["status"], "delivered");
}
