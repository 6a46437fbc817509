//! Stray refusals: WeChat's edge refuses live tokens now and then, and WeChat refuses pass-through calls because of
//! credentials in their bodies. Neither pauses an app nor costs a forced refresh.

use std::time::Duration;

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use simulator::{Effect, Fault};
use tokio::time::Instant;

use crate::{
    drop_in::{call, post, ready, wechat_token},
    world::{Mode, Tenant, World, message, outcomes},
};

const APP: &str = "wx00000000000000a1";
const SUBSCRIBE: &str = "/cgi-bin/message/subscribe/send";
const CHECK: &str = "/cgi-bin/get_api_domain_ip";
const FETCH: &str = "/cgi-bin/stable_token";
const FORCED: &str = "/cgi-bin/stable_token#force_refresh";
const ANY: &str = "/cgi-bin/any/thing";

both_modes!(
    a_stray_refusal_of_each_message_costs_no_forced_refresh,
    stray_refusals_of_a_tenth_of_all_sends_do_not_stop_the_app,
    an_answer_without_a_json_refusal_is_passed_on,
);

/// Thousands of calls: once is enough.
mod a_call_with_a_credential_in_the_body_costs_no_refresh {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn embedded() {
        super::a_call_with_a_credential_in_the_body_costs_no_refresh(crate::world::Mode::Embedded)
            .await;
    }
}

fn refused() -> Effect {
    Effect::Errcode {
        errcode: 40001,
        errmsg: None,
    }
}

/// Asserts that the app has no pause, no forced refresh and no foreign refresh.
async fn assert_undisturbed(world: &World, tenant: &Tenant) {
    let app = tenant.client.get(&format!("/v1/apps/{APP}")).await;
    let app = app.expect(200);
    assert_eq!(
        (&app["pause"], &app["foreign_refresh"]),
        (&Value::Null, &Value::Null),
        "{app}"
    );
    assert_eq!(world.wechat().app_stats(APP).total(FORCED), 0);
}

async fn a_stray_refusal_of_each_message_costs_no_forced_refresh(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    for number in 0..10 {
        let once = Fault::next(1, refused()).for_path(SUBSCRIBE);
        world
            .wechat()
            .add_fault(once.for_user(format!("o{number}")));
    }
    let began = Instant::now();
    let one = async |number: usize| {
        let message = message(&format!("o{number}"));
        let accepted = tenant.send(APP, &message).await;
        tenant.wait_ended(&accepted).await
    };
    let sent = join_all((0..10).map(one)).await;
    let stats = world.wechat().app_stats(APP);
    eprintln!(
        "ten messages with a stray refusal each: {:?}, {} fetches, {} forced, {} looks",
        began.elapsed(),
        stats.total(FETCH),
        stats.total(FORCED),
        stats.total(CHECK),
    );
    for message in &sent {
        assert_eq!(message["status"], "sent", "{message}");
        assert_eq!(outcomes(message), ["stale_token", "accepted"], "{message}");
    }
    assert_eq!(
        (stats.total(FETCH), world.wechat().sent(APP).len()),
        (1, 10)
    );
    assert_undisturbed(&world, &tenant).await;
}

/// 100 messages at 10 a second, on a clock that the test sets.
async fn stray_refusals_of_a_tenth_of_all_sends_do_not_stop_the_app(mode: Mode) {
    const STEP: Duration = Duration::from_millis(100);
    let world = World::plan(mode).by_hand().start().await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    for path in [SUBSCRIBE, CHECK] {
        let tenth = Fault::sometimes(0.1, refused()).for_path(path);
        world.wechat().add_fault(tenth);
    }
    let sent = || world.wechat().sent(APP).len();
    for number in 0..100 {
        tenant.send(APP, &message(&format!("o{number}"))).await;
        tenant.wait_count(APP, "sending", 0).await;
        world.pass(STEP);
    }
    let at_once = sent();
    let mut late = Duration::ZERO;
    while sent() < 100 {
        assert!(late < Duration::from_mins(3), "{} are sent", sent());
        world.pass(STEP * 5);
        late += STEP * 5;
        tenant.wait_count(APP, "sending", 0).await;
    }
    let stats = world.wechat().app_stats(APP);
    eprintln!(
        "100 messages, a tenth refused: {} stood still at the end, the last for {late:?}; {} refusals, {} forced, {} looks",
        100 - at_once,
        stats.count(SUBSCRIBE, 40001),
        stats.total(FORCED),
        stats.total(CHECK),
    );
    assert!(at_once >= 90, "{at_once} of 100 were sent in their time");
    assert!(late <= Duration::from_secs(10), "{late:?}");
    assert_undisturbed(&world, &tenant).await;
}

/// One call each 31 s for a day, refused for a component's credential in the body.
async fn a_call_with_a_credential_in_the_body_costs_no_refresh(mode: Mode) {
    const EVERY: Duration = Duration::from_secs(31);
    let world = World::plan(mode).by_hand().start().await;
    let (tenant, mut token) = ready(&world).await;
    let always = Fault::always(refused()).for_path(ANY);
    world.wechat().add_fault(always);
    let body = json!({"component_access_token": "of somebody else"});
    for number in 0..86_400 / EVERY.as_secs() {
        if number % 200 == 0 {
            token = wechat_token(&tenant.client, APP).await;
        }
        let answer = post(&tenant.client, ANY, &token, &body).await;
        // An SDK that gets 40001 would fetch another token.
        assert_eq!(answer["errcode"], -1, "{answer}");
        world.pass(EVERY);
    }
    let stats = world.wechat().app_stats(APP);
    eprintln!(
        "refused each 31 s for a day: {} fetches, {} forced, {} looks",
        stats.total(FETCH),
        stats.total(FORCED),
        stats.total(CHECK),
    );
    assert_undisturbed(&world, &tenant).await;
    let sent = tenant.send_and_wait(APP, &message("o1")).await;
    assert_eq!(outcomes(&sent), ["accepted"], "{sent}");
}

async fn an_answer_without_a_json_refusal_is_passed_on(mode: Mode) {
    let world = World::start(mode).await;
    let (tenant, token) = ready(&world).await;
    for page in [
        "<html>errcode 40001: invalid credential</html>",
        "errcode: 40001, errmsg: access_token is invalid",
        r#"{"errcode":40001,"errmsg":"a page that says so"}"#,
    ] {
        let page = Effect::Status {
            status: 200,
            body: Some(page.to_owned()),
        };
        world.wechat().add_fault(Fault::next(1, page).for_path(ANY));
        let answer = call(&tenant.client, Method::GET, ANY, &token, &Value::Null).await;
        assert!(answer.text.contains("40001"), "{answer:?}");
    }
    let stats = world.wechat().app_stats(APP);
    assert_eq!((stats.total(CHECK), stats.total(FETCH)), (0, 1));
}
