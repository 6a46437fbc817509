//! Messages of each channel: what WeChat gets, and what the tenant reads.

use serde_json::{Value, json};
use simulator::{AccountKind, Effect, Fault, GrantRule, ListedTemplate};

use crate::world::{Mode, TEMPLATE, Tenant, World, message, message_with, outcomes};

const APP: &str = "wx00000000000000a1";
const OFFICIAL: &str = "wx00000000000000f0";
const SUBSCRIBE: &str = "/cgi-bin/message/subscribe/send";

both_modes!(
    a_subscribe_message_arrives_as_requested,
    a_form_id_message_arrives_with_all_its_fields,
    an_official_account_message_arrives,
    a_channel_needs_its_kind_of_app,
    a_user_who_did_not_subscribe_fails_the_message,
    a_value_that_wechat_refuses_fails_the_message,
    a_dry_run_checks_and_sends_nothing,
    a_busy_answer_of_wechat_is_retried,
    one_user_gets_one_message_at_a_time,
    high_priority_is_sent_before_low,
    messages_without_a_waiting_request_are_sent_too,
);

/// The only message that WeChat took, and its body.
fn only_body(world: &World, appid: &str) -> (simulator::Sent, Value) {
    let mut sent = world.wechat().sent(appid);
    assert_eq!(sent.len(), 1, "{sent:?}");
    let sent = sent.remove(0);
    let body = serde_json::from_str(sent.body.as_deref().expect("a body")).expect("JSON");
    (sent, body)
}

/// Asserts what holds for every message that was sent at the first attempt.
fn assert_sent(message: &Value) {
    assert_eq!(message["status"], "sent", "{message}");
    assert_eq!(message["failure"], Value::Null);
    let attempt = &message["attempts"][0];
    assert_eq!(
        (
            &attempt["number"],
            &attempt["outcome"],
            &attempt["errcode"],
            &attempt["errmsg"]
        ),
        (&json!(1), &json!("accepted"), &json!(0), &json!("ok")),
        "{message}"
    );
    assert!(
        attempt["duration_ms"].is_u64() && attempt["started_at"].is_string(),
        "{message}"
    );
    assert_eq!(message["attempts"].as_array().map(Vec::len), Some(1));
}

async fn a_subscribe_message_arrives_as_requested(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let asked = json!({
        "channel": "subscribe", "touser": "oA_1-x", "template_id": TEMPLATE, "page": "pages/order?id=1&marker=a",
        "data": {"thing1": {"value": "保温杯 \"黑\""}, "amount2": {"value": "¥12.50"}, "number3": {"value": 7}},
        "miniprogram_state": "trial", "lang": "en_US", "reference": "order-42", "metadata": {"any": ["thing", 1]},
    });

    let message = tenant.send_and_wait(APP, &asked).await;

    assert_sent(&message);
    for (field, value) in asked.as_object().unwrap() {
        assert_eq!(&message[field], value, "{field}");
    }
    assert_eq!(
        (&message["priority"], &message["ttl"]),
        (&json!("normal"), &json!(86400))
    );
    assert_eq!(
        (&message["on_uncertain"], &message["dry_run"]),
        (&json!("hold"), &json!(false))
    );
    let (sent, body) = only_body(&world, APP);
    assert_eq!(
        message["msgid"],
        sent.msgid.to_string(),
        "a string, to the last digit"
    );
    assert_eq!(sent.path, SUBSCRIBE);
    assert_eq!(
        body,
        json!({
            "touser": "oA_1-x", "template_id": TEMPLATE, "page": "pages/order?id=1&marker=a",
            "miniprogram_state": "trial", "lang": "en_US",
            "data": {"thing1": {"value": "保温杯 \"黑\""}, "amount2": {"value": "¥12.50"}, "number3": {"value": "7"}},
        })
    );
    assert!(
        !sent.body.unwrap().contains("\\u"),
        "WeChat refuses \\u escapes"
    );
}

async fn a_form_id_message_arrives_with_all_its_fields(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let asked = json!({
        "channel": "template", "touser": "o1", "template_id": TEMPLATE, "page": "index", "form_id": "form-1",
        "data": {"keyword1": {"value": "339208499"}, "keyword2": {"value": "2015年01月05日 12:30"}},
        "emphasis_keyword": "keyword1.DATA",
    });

    let message = tenant.send_and_wait(APP, &asked).await;

    assert_sent(&message);
    for field in ["channel", "form_id", "emphasis_keyword", "page", "data"] {
        assert_eq!(message[field], asked[field], "{field}");
    }
    let (sent, body) = only_body(&world, APP);
    assert_eq!(sent.path, "/cgi-bin/message/wxopen/template/send");
    let mut expected = asked.clone();
    expected.as_object_mut().unwrap().remove("channel");
    assert_eq!(body, expected);

    let again = tenant.send_and_wait(APP, &asked).await;
    assert_eq!(
        (&again["status"], &again["failure"]["code"]),
        (&json!("failed"), &json!("invalid_form_id"))
    );
    assert_eq!(again["attempts"][0]["errcode"], 41029);
}

async fn an_official_account_message_arrives(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    world
        .wechat()
        .change_app(OFFICIAL, |app| app.kind = AccountKind::OfficialAccount);
    tenant
        .app_with(OFFICIAL, json!({"kind": "official_account"}))
        .await;
    let asked = json!({
        "channel": "official", "touser": "o1", "template_id": TEMPLATE, "url": "https://example.com/a?b=c",
        "miniprogram": {"appid": APP, "pagepath": "index?foo=bar"}, "client_msg_id": "MSG_000001",
        "data": {"thing1": {"value": "巧克力"}},
    });

    let message = tenant.send_and_wait(OFFICIAL, &asked).await;

    assert_sent(&message);
    let (sent, body) = only_body(&world, OFFICIAL);
    assert_eq!(sent.path, "/cgi-bin/message/template/send");
    assert_eq!(message["msgid"], sent.msgid.to_string());
    let mut expected = asked.clone();
    expected.as_object_mut().unwrap().remove("channel");
    assert_eq!(body, expected);
}

async fn a_channel_needs_its_kind_of_app(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let official = json!({
        "channel": "official", "touser": "o1", "template_id": TEMPLATE, "data": {"thing1": {"value": "x"}},
    });
    let refused = tenant
        .try_send_and_wait(APP, &official)
        .await
        .problem(422, "validation_failed");
    assert_eq!(refused["errors"][0]["pointer"], "/channel");
    assert_eq!(world.wechat().stats().accepted, 0);
}

async fn a_user_who_did_not_subscribe_fails_the_message(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    world.wechat().change_app(APP, |app| {
        app.grants = GrantRule::Counted;
        app.templates = vec![ListedTemplate::one_time(TEMPLATE, &["thing1", "number2"])];
    });
    world.wechat().grant(APP, "o1", TEMPLATE, 1);

    assert_sent(&tenant.send_and_wait(APP, &message("o1")).await);
    let refused = tenant.send_and_wait(APP, &message("o1")).await;

    assert_eq!(refused["status"], "failed", "{refused}");
    assert_eq!(refused["failure"]["code"], "no_grant");
    let detail = refused["failure"]["detail"].as_str().unwrap_or_default();
    assert!(
        detail.contains("requestSubscribeMessage"),
        "it says what to do: {detail}"
    );
    assert_eq!(
        (&refused["msgid"], &refused["attempts"][0]["errcode"]),
        (&Value::Null, &json!(43101))
    );
    assert!(refused["attempts"][0]["rid"].is_string(), "{refused}");
    assert_eq!(outcomes(&refused), ["rejected"]);
}

async fn a_value_that_wechat_refuses_fails_the_message(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let templates = vec![ListedTemplate::one_time(
        TEMPLATE,
        &["thing1", "number2", "date3"],
    )];
    world
        .wechat()
        .change_app(APP, |app| app.templates = templates);

    let refused = tenant.send_and_wait(APP, &message("o1")).await;

    assert_eq!(
        (&refused["status"], &refused["failure"]["code"]),
        (&json!("failed"), &json!("invalid_value"))
    );
    assert_eq!(refused["attempts"][0]["errcode"], 47003);
    let errmsg = refused["attempts"][0]["errmsg"]
        .as_str()
        .unwrap_or_default();
    assert!(
        errmsg.contains("date3"),
        "WeChat's own words say which: {errmsg}"
    );
}

async fn a_dry_run_checks_and_sends_nothing(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let dry = message_with("o1", json!({"dry_run": true}));
    let path = format!("/v1/apps/{APP}/messages");

    let checked = tenant.client.post(&path, &dry).await.expect(200);
    assert_eq!(checked["dry_run"], true);
    let wrong = message_with(
        "o1",
        json!({"dry_run": true, "data": {"number1": {"value": "x"}}}),
    );
    tenant
        .client
        .post(&path, &wrong)
        .await
        .problem(422, "validation_failed");
    let unknown = tenant
        .client
        .post("/v1/apps/wx00000000000000ff/messages", &dry)
        .await;
    unknown.problem(404, "not_found");

    assert_sent(&tenant.send_and_wait(APP, &message("o2")).await);
    assert_eq!(world.wechat().stats().accepted, 1);
    let listed = tenant.client.get(&path).await.expect(200);
    assert_eq!(
        listed["data"].as_array().map(Vec::len),
        Some(1),
        "a dry run leaves nothing behind"
    );
}

async fn a_busy_answer_of_wechat_is_retried(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let busy = Effect::Errcode {
        errcode: -1,
        errmsg: None,
    };
    world
        .wechat()
        .add_fault(Fault::next(1, busy).for_path(SUBSCRIBE));

    let message = tenant.send_and_wait(APP, &message("o1")).await;

    assert_eq!(message["status"], "sent", "{message}");
    assert_eq!(outcomes(&message), ["retry", "accepted"]);
    assert_eq!(message["attempts"][0]["errcode"], -1);
    assert_eq!(world.wechat().sent(APP).len(), 1);
}

async fn one_user_gets_one_message_at_a_time(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    world
        .wechat()
        .change_app(APP, |app| app.latency_ms = Some(5));

    let sends = (0..50).map(|_| {
        let tenant = tenant.clone();
        async move { tenant.send_and_wait(APP, &message("o1")).await }
    });
    let messages = futures::future::join_all(sends).await;

    for message in &messages {
        assert_sent(message);
    }
    let stats = world.wechat().app_stats(APP);
    assert_eq!(
        (stats.count(SUBSCRIBE, 0), stats.count(SUBSCRIBE, 43108)),
        (50, 0)
    );
}

/// Both messages wait behind one that is in flight to the same user, so that the gateway chooses the order of the two.
async fn high_priority_is_sent_before_low(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let slow = Fault::next(1, Effect::Latency { ms: 1500 }).for_path(SUBSCRIBE);
    world.wechat().add_fault(slow);
    let first = tenant.send(APP, &message("o1")).await;
    tenant.wait_for(&first, "sending").await;

    let mut waiting = Vec::new();
    for priority in ["low", "normal", "high"] {
        let message = message_with("o1", json!({"priority": priority, "reference": priority}));
        waiting.push(tenant.send(APP, &message).await);
    }
    for message in &waiting {
        assert_eq!(tenant.wait_ended(message).await["status"], "sent");
    }

    let sent = world.wechat().sent(APP);
    let order: Vec<_> = sent
        .iter()
        .skip(1)
        .map(|sent| sent.marker.clone())
        .collect();
    let marker = |message: &Value| {
        Some(
            message["page"]
                .as_str()?
                .split_once("marker=")?
                .1
                .to_owned(),
        )
    };
    let expected: Vec<_> = waiting.iter().rev().map(marker).collect();
    assert_eq!(order, expected, "high, normal, low");
}

async fn messages_without_a_waiting_request_are_sent_too(mode: Mode) {
    let world = World::start(mode).await;
    let (first, second) = (world.tenant("a").await, world.tenant("b").await);
    first.app(APP).await;
    second.app("wx00000000000000b2").await;
    let accept = |tenant: Tenant, appid: &'static str| async move {
        for number in 0..30 {
            let accepted = tenant.send(appid, &message(&format!("o{number}"))).await;
            assert_eq!(accepted["status"], "queued");
            assert_eq!(accepted["attempts"], json!([]));
        }
    };
    tokio::join!(
        accept(first.clone(), APP),
        accept(second.clone(), "wx00000000000000b2")
    );
    tokio::join!(
        first.wait_count(APP, "sent", 30),
        second.wait_count("wx00000000000000b2", "sent", 30)
    );
    assert_eq!(world.wechat().stats().accepted, 60);
}
