//! One live access token per appid, whoever asks and however many.

use futures::future::join_all;
use serde_json::{Value, json};

use crate::world::{Mode, Tenant, World, message, outcomes};

const APP: &str = "wx00000000000000a1";
const FETCH: &str = "/cgi-bin/stable_token";
const FORCED: &str = "/cgi-bin/stable_token#force_refresh";

both_modes!(
    a_hundred_sends_fetch_one_token,
    a_dead_token_is_replaced_and_the_message_sent,
    fifty_dead_sends_refresh_once,
    a_legacy_app_uses_the_legacy_call,
    a_wrong_secret_pauses_the_app_and_says_why,
);

/// Replicas share the token too.
mod three_replicas_fetch_one_token {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn production() {
        super::three_replicas_fetch_one_token().await;
    }
}

/// An app that the gateway has no token for yet.
async fn fresh_app(world: &World, tenant: &Tenant) {
    let new = json!({"appid": APP, "secret": "s", "tenant_id": tenant.id, "verify": false});
    world.operator().post("/v1/apps", &new).await.expect(201);
}

async fn send_many(tenants: &[Tenant], count: usize) -> Vec<Value> {
    let sends = (0..count).map(|number| {
        let tenant = &tenants[number % tenants.len()];
        async move {
            tenant
                .send_and_wait(APP, &message(&format!("o{number}")))
                .await
        }
    });
    join_all(sends).await
}

async fn a_hundred_sends_fetch_one_token(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    fresh_app(&world, &tenant).await;
    world
        .wechat()
        .set_latency(std::time::Duration::from_millis(50));

    let messages = send_many(&[tenant], 100).await;

    assert!(
        messages.iter().all(|message| message["status"] == "sent"),
        "{messages:?}"
    );
    assert_eq!(world.wechat().app_stats(APP).total(FETCH), 1);
    assert_eq!(world.wechat().sent(APP).len(), 100);
}

async fn three_replicas_fetch_one_token() {
    let world = World::plan(Mode::Production).replicas(3).start().await;
    let tenant = world.tenant("a").await;
    fresh_app(&world, &tenant).await;
    world
        .wechat()
        .set_latency(std::time::Duration::from_millis(50));
    let tenants: Vec<_> = (0..3).map(|replica| world.at(replica, &tenant)).collect();

    let messages = send_many(&tenants, 100).await;

    assert!(
        messages.iter().all(|message| message["status"] == "sent"),
        "{messages:?}"
    );
    assert_eq!(world.wechat().app_stats(APP).total(FETCH), 1);
    assert_eq!(world.wechat().sent(APP).len(), 100);
}

async fn a_dead_token_is_replaced_and_the_message_sent(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    tenant.send_and_wait(APP, &message("o1")).await;

    world.wechat().kill_tokens(APP);
    let message = tenant.send_and_wait(APP, &message("o1")).await;

    assert_eq!(message["status"], "sent", "{message}");
    assert_eq!(outcomes(&message), ["stale_token", "accepted"]);
    assert_eq!(
        (
            &message["attempts"][0]["errcode"],
            &message["attempts"][1]["number"]
        ),
        (&json!(40001), &json!(2))
    );
    assert_eq!(world.wechat().sent(APP).len(), 2);
}

async fn fifty_dead_sends_refresh_once(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    tenant.send_and_wait(APP, &message("o0")).await;
    let before = world.wechat().app_stats(APP);
    world.wechat().kill_tokens(APP);
    world
        .wechat()
        .set_latency(std::time::Duration::from_millis(50));

    let messages = send_many(&[tenant], 50).await;

    assert!(
        messages.iter().all(|message| message["status"] == "sent"),
        "{messages:?}"
    );
    let after = world.wechat().app_stats(APP);
    assert!(
        after.total(FORCED) <= 1,
        "forced refreshes are rare goods: {after:?}"
    );
    let fetches = after.total(FETCH) - before.total(FETCH);
    assert_eq!(fetches, 1, "one refresh for all: {after:?}");
}

async fn a_legacy_app_uses_the_legacy_call(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app_with(APP, json!({"token_mode": "legacy"})).await;
    let message = tenant.send_and_wait(APP, &message("o1")).await;
    assert_eq!(message["status"], "sent", "{message}");
    let stats = world.wechat().app_stats(APP);
    assert_eq!((stats.total("/cgi-bin/token"), stats.total(FETCH)), (1, 0));
}

async fn a_wrong_secret_pauses_the_app_and_says_why(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    fresh_app(&world, &tenant).await;
    world
        .wechat()
        .change_app(APP, |app| app.secret = Some("another".into()));

    let blocked = tenant.send(APP, &message("o1")).await;
    let blocked = tenant.wait_attempt(&blocked, "app_blocked").await;
    assert_eq!(
        blocked["status"], "queued",
        "a repaired app sends it: {blocked}"
    );
    assert_eq!(blocked["attempts"][0]["errcode"], 40125);
    let waiting = tenant.send(APP, &message("o2")).await;
    let path = format!("/v1/apps/{APP}");
    let app = tenant.client.get(&path).await.expect(200);
    assert_eq!(app["pause"]["reason"], "wrong_secret", "{app}");
    assert!(
        app["pause"]["detail"]
            .as_str()
            .is_some_and(|detail| detail.contains("/secret")),
        "{app}"
    );

    tenant
        .client
        .put(&format!("{path}/secret"), &json!({"secret": "another"}))
        .await
        .expect(200);
    assert_eq!(tenant.wait_ended(&blocked).await["status"], "sent");
    assert_eq!(tenant.wait_ended(&waiting).await["status"], "sent");
}
