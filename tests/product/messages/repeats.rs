//! Repeats of a send that had no answer: WeChat may have taken the first attempt, whatever WeChat answers to the
//! repeat.

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use simulator::{Effect, Fault, FormId, FormIdKind, FormIdPolicy, GrantRule};

use crate::world::{Mode, Tenant, World, finish, id, message_with, outcomes};

const APP: &str = "wx00000000000000a1";
const OFFICIAL: &str = "wx00000000000000f0";

both_modes!(
    a_refused_repeat_leaves_the_message_uncertain,
    a_refused_repeat_by_hand_leaves_the_message_uncertain,
    a_spent_grant_leaves_the_message_uncertain,
    a_used_up_form_id_of_its_own_says_that_the_message_arrived,
    a_used_up_prepay_id_of_its_own_says_nothing,
    a_refused_form_id_of_the_pool_leaves_the_message_uncertain,
    a_refused_repeat_with_a_client_msg_id_leaves_the_message_uncertain,
);

/// Retries the message by hand, and waits until the message has ended.
async fn retry(tenant: &Tenant, message: &Value) -> Value {
    let path = format!("/v1/messages/{}/retry", id(message));
    let request = tenant.client.request(Method::POST, &path).await;
    let answered = finish(request.header("prefer", "wait=20"));
    tenant.client.time().during(answered).await.expect(200)
}

/// Makes the next send to the user end without an answer, and the one after that be refused.
fn lost_then_refused(world: &World, openid: &str, first: Effect, errcode: i64) {
    let refused = Effect::Errcode {
        errcode,
        errmsg: None,
    };
    for effect in [first, refused] {
        world
            .wechat()
            .add_fault(Fault::next(1, effect).for_user(openid));
    }
}

#[track_caller]
fn assert_uncertain(message: &Value, errcode: i64) {
    assert_eq!(message["status"], "uncertain", "{message}");
    assert_eq!(outcomes(message), ["unknown", "rejected"], "{message}");
    assert_eq!(message["failure"]["code"], "unanswered", "{message}");
    let detail = message["failure"]["detail"].as_str().unwrap_or_default();
    assert!(
        detail.contains("may or may not") && detail.contains(&errcode.to_string()),
        "{detail}"
    );
}

/// Refusals of each kind, with one code that the gateway does not know.
const REFUSALS: [i64; 7] = [43101, 40003, 40037, 47003, 41030, 43004, 98765];

async fn a_refused_repeat_leaves_the_message_uncertain(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let sends = REFUSALS.iter().enumerate().map(|(number, errcode)| {
        let (openid, arrived) = (format!("o{number}"), number % 2 == 0);
        let first = if arrived {
            Effect::BreakAfter
        } else {
            Effect::BreakBefore
        };
        lost_then_refused(&world, &openid, first, *errcode);
        let message = message_with(&openid, json!({"on_uncertain": "retry"}));
        let tenant = &tenant;
        async move { (*errcode, tenant.send_and_wait(APP, &message).await) }
    });
    for (errcode, message) in join_all(sends).await {
        assert_uncertain(&message, errcode);
    }
    assert_eq!(tenant.count(APP, "failed").await, 0);
}

async fn a_refused_repeat_by_hand_leaves_the_message_uncertain(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let sends = REFUSALS.iter().enumerate().map(|(number, errcode)| {
        let openid = format!("o{number}");
        lost_then_refused(&world, &openid, Effect::BreakAfter, *errcode);
        let tenant = &tenant;
        async move {
            let message = message_with(&openid, json!({}));
            let lost = tenant.send_and_wait(APP, &message).await;
            assert_eq!(lost["status"], "uncertain", "{lost}");
            (*errcode, retry(tenant, &lost).await)
        }
    });
    for (errcode, message) in join_all(sends).await {
        assert_uncertain(&message, errcode);
        // An uncertain message stays uncertain, however often the tenant retries the message.
        let again = Fault::next(
            1,
            Effect::Errcode {
                errcode,
                errmsg: None,
            },
        );
        let openid = message["touser"].as_str().unwrap_or_default();
        world.wechat().add_fault(again.for_user(openid));
        let again = retry(&tenant, &message).await;
        assert_eq!(again["status"], "uncertain", "{again}");
    }
}

async fn a_spent_grant_leaves_the_message_uncertain(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    world
        .wechat()
        .change_app(APP, |app| app.grants = GrantRule::Counted);
    let lost = Fault::next(1, Effect::BreakAfter).for_user("o1");
    world.wechat().add_fault(lost);
    world.wechat().grant(APP, "o1", crate::world::TEMPLATE, 1);
    let message = message_with("o1", json!({"on_uncertain": "retry"}));
    let message = tenant.send_and_wait(APP, &message).await;
    assert_uncertain(&message, 43101);
    assert_eq!(world.wechat().sent(APP).len(), 1, "the first try arrived");
}

/// A template message that names its form id.
fn with_form_id(openid: &str, form_id: &str, more: Value) -> Value {
    let Value::Object(mut fields) = more else {
        unreachable!("an object")
    };
    fields.insert("channel".into(), "template".into());
    fields.insert("form_id".into(), form_id.into());
    fields.insert("data".into(), json!({"keyword1": {"value": "339208499"}}));
    message_with(openid, fields.into())
}

/// Makes this id the only one that WeChat knows.
fn wechat_made(world: &World, id: &str, kind: FormIdKind) {
    world
        .wechat()
        .change_app(APP, |app| app.form_ids = FormIdPolicy::Known);
    let form_id = FormId {
        id: id.to_owned(),
        openid: "o1".to_owned(),
        kind,
        made_at: None,
    };
    world.wechat().add_form_id(APP, form_id);
}

async fn a_used_up_form_id_of_its_own_says_that_the_message_arrived(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    for (form_id, by_hand) in [("f1", false), ("f2", true)] {
        wechat_made(&world, form_id, FormIdKind::Form);
        world
            .wechat()
            .add_fault(Fault::next(1, Effect::BreakAfter).for_user("o1"));
        let policy = if by_hand { "hold" } else { "retry" };
        let message = with_form_id("o1", form_id, json!({"on_uncertain": policy}));
        let mut sent = tenant.send_and_wait(APP, &message).await;
        if by_hand {
            assert_eq!(sent["status"], "uncertain", "{sent}");
            sent = retry(&tenant, &sent).await;
        }
        assert_eq!(sent["status"], "sent", "{sent}");
        assert_eq!(outcomes(&sent), ["unknown", "accepted"]);
        assert_eq!(sent["attempts"][1]["errcode"], 41029);
    }
    assert_eq!(world.wechat().sent(APP).len(), 2, "each arrived once");
    // An id that was used up before the first attempt proves nothing about this message.
    let spent = tenant
        .send_and_wait(APP, &with_form_id("o1", "f1", json!({})))
        .await;
    assert_eq!(
        (&spent["status"], &spent["failure"]["code"]),
        (&json!("failed"), &json!("invalid_form_id"))
    );
    // Nor does an id that WeChat does not know.
    world
        .wechat()
        .add_fault(Fault::next(1, Effect::BreakBefore).for_user("o1"));
    let unknown = with_form_id("o1", "nobody's", json!({"on_uncertain": "retry"}));
    assert_uncertain(&tenant.send_and_wait(APP, &unknown).await, 41028);
}

/// A prepay id is good for three messages: other messages may have used up the id.
async fn a_used_up_prepay_id_of_its_own_says_nothing(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    wechat_made(&world, "wx2017", FormIdKind::Prepay);
    for _ in 0..3 {
        let sent = with_form_id("o1", "wx2017", json!({}));
        assert_eq!(tenant.send_and_wait(APP, &sent).await["status"], "sent");
    }
    world
        .wechat()
        .add_fault(Fault::next(1, Effect::BreakBefore).for_user("o1"));
    let lost = with_form_id("o1", "wx2017", json!({"on_uncertain": "retry"}));
    assert_uncertain(&tenant.send_and_wait(APP, &lost).await, 41029);
}

async fn a_refused_form_id_of_the_pool_leaves_the_message_uncertain(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    wechat_made(&world, "f1", FormIdKind::Form);
    let grant = json!({"kind": "form_id", "openid": "o1", "value": "f1"});
    let path = format!("/v1/apps/{APP}/grants");
    let grants = json!({ "grants": [grant] });
    tenant.client.post(&path, &grants).await.expect(200);
    lost_then_refused(&world, "o1", Effect::BreakAfter, 41031);
    let Value::Object(mut of_pool) = with_form_id("o1", "", json!({})) else {
        unreachable!("an object")
    };
    of_pool.remove("form_id");
    let ended = tenant.send_and_wait(APP, &of_pool.into()).await;
    assert_uncertain(&ended, 41031);
}

async fn a_refused_repeat_with_a_client_msg_id_leaves_the_message_uncertain(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    world.wechat().change_app(OFFICIAL, |app| {
        app.kind = simulator::AccountKind::OfficialAccount;
    });
    let kind = json!({"kind": "official_account"});
    tenant.app_with(OFFICIAL, kind).await;
    lost_then_refused(&world, "o1", Effect::BreakAfter, 43004);
    let asked = json!({
        "channel": "official", "touser": "o1", "template_id": crate::world::TEMPLATE,
        "client_msg_id": "c1", "data": {"thing1": {"value": "x"}},
    });
    let ended = tenant.send_and_wait(OFFICIAL, &asked).await;
    assert_uncertain(&ended, 43004);
}
