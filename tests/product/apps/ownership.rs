//! An appid that moves to another tenant, and an appid that another tenant already has.

use std::time::Duration;

use serde_json::{Value, json};
use simulator::{CallbackRequest, PushEvent, PushFormat, PushMode, PushSettings};

use crate::world::{Answer, Mode, SECRET, TEMPLATE, Tenant, World, finish, message};

const APP: &str = "wx00000000000000a1";
const FREE: &str = "wx00000000000000b2";
const TOKENS: [&str; 2] = ["ownerOneToken", "ownerTwoToken"];

both_modes!(
    receipts_are_for_the_present_owners_messages,
    data_of_a_former_owner_does_not_reach_the_next_owner,
    only_a_holder_of_the_secret_learns_that_an_appid_is_taken,
    attempts_of_another_tenant_do_not_affect_the_owner,
    attempts_to_register_an_appid_are_limited,
);

/// Makes the tenant the owner of the app, with a Token of its own for callbacks.
async fn own(tenant: &Tenant, token: &str) {
    tenant.app_with(APP, json!({"callback_token": token})).await;
}

async fn give_up(tenant: &Tenant) {
    let path = format!("/v1/apps/{APP}");
    tenant.client.delete(&path).await.expect(204);
}

/// A callback that WeChat signs with this Token.
fn letter(world: &World, token: &str, event: &PushEvent) -> CallbackRequest {
    let push = PushSettings {
        url: format!("{}/callbacks/{APP}", world.url(0)),
        token: token.into(),
        aes_key: None,
        mode: PushMode::Plain,
        format: PushFormat::Json,
        receipts: false,
    };
    let wechat = world.wechat();
    wechat.change_app(APP, |app| app.push = Some(push));
    wechat.letter(APP, event).expect("a letter")
}

async fn push(world: &World, token: &str, event: &PushEvent) -> Answer {
    let letter = letter(world, token, event);
    let path = format!("/callbacks/{APP}?{}", letter.query);
    let client = world.anonymous();
    finish(client.bare(reqwest::Method::POST, &path).body(letter.body)).await
}

#[track_caller]
fn taken(answer: &Answer) {
    assert_eq!(answer.text, "success", "{answer:?}");
}

fn msgid(message: &Value) -> u64 {
    message["msgid"]
        .as_str()
        .expect("a msgid")
        .parse()
        .expect("a number")
}

async fn receipts_are_for_the_present_owners_messages(mode: Mode) {
    let world = World::start(mode).await;
    let (one, two) = (world.tenant("one").await, world.tenant("two").await);
    own(&one, TOKENS[0]).await;
    let theirs = one.send_and_wait(APP, &message("o1")).await;
    give_up(&one).await;
    own(&two, TOKENS[1]).await;
    let ours = two.send_and_wait(APP, &message("o1")).await;
    let lie = PushEvent::failed("o1", TEMPLATE, msgid(&theirs), 1003, "a lie");
    taken(&push(&world, TOKENS[1], &lie).await);
    taken(
        &push(
            &world,
            TOKENS[1],
            &PushEvent::delivered("o1", TEMPLATE, msgid(&ours)),
        )
        .await,
    );
    assert_eq!(two.read(&ours).await["status"], "delivered");
    let read = one.read(&theirs).await;
    assert_eq!(read["status"], "sent", "{read}");
    // The old owner's Token is no longer valid.
    let late = PushEvent::failed("o1", TEMPLATE, msgid(&ours), 1003, "a lie");
    push(&world, TOKENS[0], &late)
        .await
        .problem(403, "bad_signature");
}

/// The old owner forges callbacks about messages that the next owner will send.
async fn data_of_a_former_owner_does_not_reach_the_next_owner(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let (one, two) = (world.tenant("one").await, world.tenant("two").await);
    own(&one, TOKENS[0]).await;
    let sent = one.send_and_wait(APP, &message("o0")).await;
    // The message does not exist yet, so the gateway keeps the receipt.
    let next = msgid(&sent) + 1;
    let planted = PushEvent::failed("o1", TEMPLATE, next, 1003, "planted");
    taken(&push(&world, TOKENS[0], &planted).await);
    let accepted = PushEvent::Popup {
        openid: "o1".into(),
        choices: vec![(TEMPLATE.into(), "accept".into())],
    };
    taken(&push(&world, TOKENS[0], &accepted).await);
    give_up(&one).await;

    own(&two, TOKENS[1]).await;
    let ours = two.send_and_wait(APP, &message("o1")).await;
    assert_eq!(msgid(&ours), next, "the simulator counts");
    // The sweeper looks at waiting receipts repeatedly.
    for _ in 0..4 {
        world.pass(Duration::from_secs(2));
        let other = two.send_and_wait(APP, &message("o2")).await;
        assert_eq!(other["status"], "sent");
    }
    assert_eq!(two.read(&ours).await["status"], "sent");
    // Callbacks for the next owner count.
    let heard = "wxgate_callbacks_total{event=\"subscribe_msg_popup_event\",outcome=\"taken\"}";
    let before = crate::callbacks::counted(&world, heard).await;
    taken(&push(&world, TOKENS[1], &accepted).await);
    assert_eq!(crate::callbacks::counted(&world, heard).await, before + 1);
    taken(
        &push(
            &world,
            TOKENS[1],
            &PushEvent::delivered("o1", TEMPLATE, next),
        )
        .await,
    );
    assert_eq!(two.read(&ours).await["status"], "delivered");
    // The next owner does not get the grants of the old owner.
    let path = format!("/v1/apps/{APP}/grants?openid=o1");
    let grants = two.client.get(&path).await.expect(200);
    assert_eq!(grants["data"][0]["remaining"], 1, "{grants}");
}

/// The answer to another tenant without the parts that differ between requests.
fn told(answer: &Answer) -> Value {
    let mut told = json!({"status": answer.status.as_u16(), "body": answer.body});
    told["body"]["wechat"]["rid"] = Value::Null;
    told["body"]["instance"] = Value::Null;
    let text = told
        .to_string()
        .replace(APP, "APPID")
        .replace(FREE, "APPID");
    let no_rid = |text: &str| {
        let mut words = text.split_whitespace().peekable();
        let mut kept = Vec::new();
        while let Some(word) = words.next() {
            kept.push(word);
            if word.ends_with("rid:") {
                words.next();
            }
        }
        kept.join(" ")
    };
    Value::String(no_rid(&text))
}

async fn only_a_holder_of_the_secret_learns_that_an_appid_is_taken(mode: Mode) {
    for token_mode in ["stable", "legacy"] {
        let world = World::start(mode).await;
        let (owner, other_tenant) = (world.tenant("one").await, world.tenant("two").await);
        for appid in [APP, FREE] {
            world
                .wechat()
                .change_app(appid, |app| app.secret = Some(SECRET.into()));
        }
        owner.app_with(APP, json!({"token_mode": token_mode})).await;
        let register = async |appid: &str, secret: &str, mode: &str| {
            let new = json!({"appid": appid, "secret": secret, "token_mode": mode});
            other_tenant.client.post("/v1/apps", &new).await
        };
        for asked in ["stable", "legacy"] {
            let free = register(FREE, "a-guess", asked).await;
            assert_eq!(free.body["wechat"]["errcode"], 40125, "{free:?}");
            let free = told(&free);
            let taken = register(APP, "a-guess", asked).await;
            assert_eq!(told(&taken), free, "{token_mode} {asked}");
            register(APP, SECRET, asked).await.problem(409, "conflict");
        }
        // The gateway checks the fields before any call of WeChat.
        let new = json!({"appid": APP, "secret": "a-guess", "daily_quota": 0});
        let wrong = other_tenant.client.post("/v1/apps", &new).await;
        wrong.problem(422, "validation_failed");
        // Operators see all apps, so an operator gets a 409 at once, also without a check of the secret.
        let new =
            json!({"appid": APP, "secret": SECRET, "tenant_id": other_tenant.id, "verify": false});
        let refused = world.operator().post("/v1/apps", &new).await;
        refused.problem(409, "conflict");
    }
}

async fn attempts_of_another_tenant_do_not_affect_the_owner(mode: Mode) {
    for token_mode in ["stable", "legacy"] {
        let world = World::start(mode).await;
        let (owner, other_tenant) = (world.tenant("one").await, world.tenant("two").await);
        world
            .wechat()
            .change_app(APP, |app| app.secret = Some(SECRET.into()));
        owner.app_with(APP, json!({"token_mode": token_mode})).await;
        owner.send_and_wait(APP, &message("o1")).await;
        let path = format!("/v1/apps/{APP}/token");
        let report = async || {
            let mut report = owner.client.get(&path).await.expect(200);
            for moment in ["age", "expires_in"] {
                report.as_object_mut().expect("an object").remove(moment);
            }
            report
        };
        let (before, tokens) = (report().await, world.wechat().tokens(APP));
        for (number, asked) in ["stable", "legacy"].into_iter().cycle().take(6).enumerate() {
            let secret = if number % 3 == 0 { SECRET } else { "a-guess" };
            let new = json!({"appid": APP, "secret": secret, "token_mode": asked});
            let answer = other_tenant.client.post("/v1/apps", &new).await;
            assert!([409, 422].contains(&answer.status.as_u16()), "{answer:?}");
        }
        assert_eq!(
            report().await,
            before,
            "its budgets are its own: {token_mode}"
        );
        let alive = world.wechat().tokens(APP);
        assert!(
            tokens.iter().all(|token| alive.contains(token)),
            "{token_mode}"
        );
        let sent = owner.send_and_wait(APP, &message("o2")).await;
        assert_eq!(crate::world::outcomes(&sent), ["accepted"], "{sent}");
    }
}

/// WeChat counts every check of a secret against the account. The clock stands still, so the rate limit does not
/// refill.
async fn attempts_to_register_an_appid_are_limited(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let (owner, other_tenant) = (world.tenant("one").await, world.tenant("two").await);
    world
        .wechat()
        .change_app(APP, |app| app.secret = Some(SECRET.into()));
    let guess = json!({"appid": APP, "secret": "a-guess"});
    for _ in 0..10 {
        let refused = other_tenant.client.post("/v1/apps", &guess).await;
        refused.problem(422, "wechat_rejected");
    }
    let asked = || {
        let path = "/cgi-bin/stable_token";
        world.wechat().app_stats(APP).total(path)
    };
    let before = asked();
    for _ in 0..20 {
        let refused = other_tenant.client.post("/v1/apps", &guess).await;
        refused.problem(429, "rate_limited");
    }
    assert_eq!(asked(), before, "WeChat is left alone");
    // The limit stops neither the app's owner nor other apps.
    own(&owner, TOKENS[0]).await;
    other_tenant.app_with(FREE, json!({})).await;
    world.pass(Duration::from_secs(6));
    let again = other_tenant.client.post("/v1/apps", &guess).await;
    again.problem(422, "wechat_rejected");
}
