//! Messages with a lost answer, and the receipts that show the result.

use std::time::Duration;

use serde_json::{Value, json};
use simulator::{AccountKind, Effect, Fault, PushEvent, PushFormat, PushMode, PushSettings};

use super::{
    AES_KEY, APP, OFFICIAL, TOKEN, assert_success, hearing, letter, post, pushes, settings,
};
use crate::world::{Mode, TEMPLATE, Tenant, World, eventually, id, message, message_with};

both_modes!(
    a_receipt_settles_a_message_whose_answer_was_lost,
    a_receipt_may_come_before_its_message_is_uncertain,
    a_receipt_that_could_be_of_two_messages_settles_none,
    a_receipt_goes_by_the_template,
    an_official_accounts_receipt_settles_a_message_whose_answer_was_lost,
);

/// A world with an app that gets callbacks. If `receipts`, WeChat sends a receipt for each message that WeChat takes.
async fn listening(mode: Mode, receipts: bool) -> (World, Tenant) {
    let world = World::plan(mode).by_hand().start().await;
    let tenant = world.tenant("a").await;
    hearing(&world, &tenant, PushMode::Safe, PushFormat::Json).await;
    let told = PushSettings {
        receipts,
        ..settings(&world, PushMode::Safe, PushFormat::Json)
    };
    pushes(&world, APP, told);
    (world, tenant)
}

/// Sends a message that WeChat takes and does not answer.
async fn lost(world: &World, tenant: &Tenant, message: &Value) -> Value {
    let openid = message["touser"].as_str().unwrap_or_default();
    world
        .wechat()
        .add_fault(Fault::next(1, Effect::BreakAfter).for_user(openid));
    let ended = tenant.send_and_wait(APP, message).await;
    assert!(
        ended["status"] == "uncertain" || ended["status"] == "delivered",
        "{ended}"
    );
    ended
}

/// WeChat's id of the last message that WeChat took.
async fn taken(world: &World, appid: &str) -> u64 {
    let last = eventually("WeChat has the message", || async {
        world.wechat().sent(appid).pop()
    });
    last.await.msgid
}

/// Waits until the message has the status `wanted`, while the clock advances.
async fn after_a_while(world: &World, tenant: &Tenant, message: &Value, wanted: &str) -> Value {
    eventually(&format!("{} is {wanted}", id(message)), || async {
        world.pass(Duration::from_secs(1));
        let message = tenant.read(message).await;
        (message["status"] == wanted).then_some(message)
    })
    .await
}

async fn a_receipt_settles_a_message_whose_answer_was_lost(mode: Mode) {
    let (world, tenant) = listening(mode, true).await;
    let message = lost(&world, &tenant, &message("o1")).await;
    let delivered = after_a_while(&world, &tenant, &message, "delivered").await;
    let msgid = taken(&world, APP).await;
    assert_eq!(delivered["msgid"], msgid.to_string());
    assert_eq!(delivered["failure"], Value::Null);
    // A later receipt that contradicts the first one is ignored.
    let failed = PushEvent::failed("o1", TEMPLATE, msgid, 1003, "failed");
    assert_success(&post(&world, &letter(&world, &failed)).await);
    assert_eq!(tenant.read(&message).await, delivered);
}

async fn a_receipt_may_come_before_its_message_is_uncertain(mode: Mode) {
    let (world, tenant) = listening(mode, true).await;
    let hangs = Effect::Hang { acted: true };
    world
        .wechat()
        .add_fault(Fault::next(1, hangs).for_user("o1"));
    let message = tenant.send(APP, &message("o1")).await;
    taken(&world, APP).await;
    let delivered = after_a_while(&world, &tenant, &message, "delivered").await;
    assert_eq!(
        delivered["attempts"][0]["outcome"], "unknown",
        "{delivered}"
    );
}

/// Posts a receipt and gives the gateway time to look for the matching message a few times.
async fn pushed_and_looked_at(world: &World, tenant: &Tenant, event: &PushEvent) {
    assert_success(&post(world, &letter(world, event)).await);
    // The receipt of another message, handled afterwards in the same way, shows that the first messages had their time.
    world.pass(Duration::from_secs(5));
    let other = lost(world, tenant, &message("o9")).await;
    let msgid = taken(world, APP).await;
    let receipt = PushEvent::delivered("o9", TEMPLATE, msgid);
    assert_success(&post(world, &letter(world, &receipt)).await);
    after_a_while(world, tenant, &other, "delivered").await;
}

async fn a_receipt_that_could_be_of_two_messages_settles_none(mode: Mode) {
    let (world, tenant) = listening(mode, false).await;
    let mut both = Vec::new();
    for _ in 0..2 {
        both.push(lost(&world, &tenant, &message("o1")).await);
    }
    let receipt = PushEvent::delivered("o1", TEMPLATE, taken(&world, APP).await);
    pushed_and_looked_at(&world, &tenant, &receipt).await;
    for message in &both {
        assert_eq!(tenant.read(message).await["status"], "uncertain");
    }
}

async fn a_receipt_goes_by_the_template(mode: Mode) {
    let (world, tenant) = listening(mode, false).await;
    let other = "o-VxnRzHxkMVwBSkPGXFUNkRDfMlAqV0P1nVTW4Zx9k";
    let first = lost(&world, &tenant, &message("o1")).await;
    let with_other = message_with("o1", json!({ "template_id": other }));
    let second = lost(&world, &tenant, &with_other).await;
    let msgid = taken(&world, APP).await;
    let failed = PushEvent::failed("o1", other, msgid, 1003, "failed");
    assert_success(&post(&world, &letter(&world, &failed)).await);
    let settled = after_a_while(&world, &tenant, &second, "undelivered").await;
    assert_eq!(settled["failure"]["code"], "undelivered");
    assert_eq!(settled["msgid"], msgid.to_string());
    assert_eq!(tenant.read(&first).await["status"], "uncertain");
}

async fn an_official_accounts_receipt_settles_a_message_whose_answer_was_lost(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
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
    world
        .wechat()
        .add_fault(Fault::next(1, Effect::BreakAfter).for_user("o1"));
    let asked = json!({"channel": "official", "touser": "o1", "template_id": TEMPLATE, "data": {"thing1": {"value": "x"}}});
    let message = tenant.send_and_wait(OFFICIAL, &asked).await;
    let delivered = after_a_while(&world, &tenant, &message, "delivered").await;
    let msgid = taken(&world, OFFICIAL).await;
    assert_eq!(delivered["msgid"], msgid.to_string());
}
