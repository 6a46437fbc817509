//! Tokens at the end of their life: no send uses a token that WeChat may refuse when the request arrives.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use simulator::{Effect, Fault};

use crate::world::{Mode, World, message, outcomes, until};

const APP: &str = "wx00000000000000a1";
const LEGACY: &str = "/cgi-bin/token";

both_modes!(
    a_token_is_not_used_in_its_last_seconds,
    a_token_is_not_used_after_a_refresh_without_an_answer,
);

/// The app was idle for two hours less two seconds, and the request takes these two seconds to arrive.
async fn a_token_is_not_used_in_its_last_seconds(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    tenant.send_and_wait(APP, &message("o1")).await;

    world.pass(Duration::from_secs(7200 - 2));
    world.wechat().clock().advance(Duration::from_secs(2));
    let message = tenant.send_and_wait(APP, &message("o2")).await;

    assert_eq!(message["status"], "sent");
    assert_eq!(outcomes(&message), ["accepted"], "{message}");
}

/// Legacy mode. The answer to a refresh is lost. WeChat keeps the last two tokens, so the next fetch ends the token in
/// use at once. That fetch takes one second here.
async fn a_token_is_not_used_after_a_refresh_without_an_answer(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let tenant = world.tenant("a").await;
    tenant.app_with(APP, json!({"token_mode": "legacy"})).await;
    let wechat = world.wechat();
    let fetches = || wechat.app_stats(APP).total(LEGACY);
    assert_eq!(fetches(), 1);

    wechat.add_fault(Fault::next(1, Effect::BreakAfter).for_path(LEGACY));
    // Nine minutes before the token's end, every replica is due to refresh the token.
    world.pass(Duration::from_mins(120 - 9));
    tenant.send_and_wait(APP, &message("o1")).await;
    let time = tenant.client.time();
    time.eventually("a refresh has failed", || async {
        let state = tenant.client.get(&format!("/v1/apps/{APP}/token")).await;
        (state.expect(200)["failure"] != Value::Null).then_some(())
    })
    .await;
    assert_eq!(fetches(), 2);
    wechat.add_fault(Fault::next(1, Effect::Latency { ms: 1000 }).for_path(LEGACY));
    world.pass(Duration::from_secs(5));
    let path = format!("/v1/apps/{APP}/access-token");
    let asking = tenant.client.call(Method::POST, &path, None);
    let sending = async {
        until("WeChat is asked again", || fetches() == 3).await;
        tenant.send_and_wait(APP, &message("o2")).await
    };
    let (handed, message) = futures::join!(asking, sending);

    handed.expect(200);
    assert_eq!(message["status"], "sent");
    assert_eq!(outcomes(&message), ["accepted"], "{message}");
}
