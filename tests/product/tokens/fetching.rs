//! One live access token per appid, for any number of callers.

use std::time::Duration;

use futures::stream::{self, StreamExt};
use reqwest::Method;
use serde_json::{Value, json};
use store::{AuditFilter, NewAuditLine, Page};

use crate::world::{Answer, Mode, Tenant, World, message, outcomes};

const APP: &str = "wx00000000000000a1";
const FETCH: &str = "/cgi-bin/stable_token";
const FORCED: &str = "/cgi-bin/stable_token#force_refresh";

both_modes!(
    a_hundred_sends_fetch_one_token,
    a_dead_token_is_replaced_and_the_message_sent,
    fifty_dead_sends_refresh_once,
    a_legacy_app_uses_the_legacy_call,
    a_wrong_secret_pauses_the_app_and_says_why,
    the_state_shows_everything_but_the_token,
    refreshes_are_spaced,
    a_refresh_of_a_refused_app_says_why,
    a_token_given_to_a_caller_works_and_is_in_the_audit_log,
);

/// Nineteen hundred requests: once is enough.
mod too_frequent_refreshes_learn_when_to_retry {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn embedded() {
        super::too_frequent_refreshes_learn_when_to_retry(crate::world::Mode::Embedded).await;
    }
}

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

/// The lines of the audit log about access tokens of the tenant's apps, newest first.
pub(crate) async fn token_audit(world: &World, tenant: &Tenant) -> Vec<NewAuditLine> {
    let page = Page {
        limit: 100,
        after: None,
    };
    let id = tenant.id.parse().expect("a tenant's id");
    let log = world.store().tenant(id);
    let lines = log.audit(&AuditFilter::default(), &page).await;
    let lines = lines.expect("the audit log").items;
    let lines = lines.into_iter().map(|line| line.line);
    lines
        .filter(|line| line.action.starts_with("access_token."))
        .collect()
}

/// How many senders wait at once at each replica.
const SENDERS_EACH: usize = 200;

async fn send_many(tenants: &[Tenant], count: usize) -> Vec<Value> {
    let sends = (0..count).map(|number| {
        let tenant = &tenants[number % tenants.len()];
        async move {
            tenant
                .send_and_wait(APP, &message(&format!("o{number}")))
                .await
        }
    });
    stream::iter(sends)
        .buffered(SENDERS_EACH * tenants.len())
        .collect()
        .await
}

async fn a_hundred_sends_fetch_one_token(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    fresh_app(&world, &tenant).await;
    world.wechat().set_latency(Duration::from_millis(50));

    let messages = send_many(&[tenant], 100).await;

    assert!(
        messages.iter().all(|message| message["status"] == "sent"),
        "{messages:?}"
    );
    assert_eq!(world.wechat().app_stats(APP).total(FETCH), 1);
    assert_eq!(world.wechat().sent(APP).len(), 100);
}

/// In legacy mode a second fetch would end the token of the first, and senders would get 40001.
async fn three_replicas_fetch_one_token() {
    let world = World::plan(Mode::Production).replicas(3).start().await;
    let tenant = world.tenant("a").await;
    let new = json!({"appid": APP, "secret": "s", "tenant_id": tenant.id, "verify": false, "token_mode": "legacy"});
    world.operator().post("/v1/apps", &new).await.expect(201);
    world.wechat().set_latency(Duration::from_millis(50));
    let tenants: Vec<_> = (0..3).map(|replica| world.at(replica, &tenant)).collect();

    let messages = send_many(&tenants, 3 * SENDERS_EACH).await;

    assert!(
        messages.iter().all(|message| message["status"] == "sent"),
        "{messages:?}"
    );
    let stats = world.wechat().app_stats(APP);
    assert_eq!(stats.total("/cgi-bin/token"), 1);
    assert_eq!(stats.count("/cgi-bin/message/subscribe/send", 40001), 0);
    assert_eq!(world.wechat().sent(APP).len(), 3 * SENDERS_EACH);
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
    world.wechat().set_latency(Duration::from_millis(50));

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
    // Before the first legacy fetch, the gateway checks the secret with a stable-token fetch, which does not end a
    // legacy token that another system may use.
    let fetches = || {
        let stats = world.wechat().app_stats(APP);
        (stats.total("/cgi-bin/token"), stats.total(FETCH))
    };
    assert_eq!(fetches(), (1, 1));
    let message = tenant.send_and_wait(APP, &message("o1")).await;
    assert_eq!(message["status"], "sent", "{message}");
    assert_eq!(fetches(), (1, 1));
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

async fn token_state(tenant: &Tenant) -> Value {
    let answer = tenant.client.get(&format!("/v1/apps/{APP}/token")).await;
    answer.expect(200)
}

async fn refresh(tenant: &Tenant) -> Answer {
    let path = format!("/v1/apps/{APP}/token/refresh");
    tenant.client.call(Method::POST, &path, None).await
}

async fn hand_out(tenant: &Tenant) -> Answer {
    let path = format!("/v1/apps/{APP}/access-token");
    tenant.client.call(Method::POST, &path, None).await
}

async fn the_state_shows_everything_but_the_token(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let tenant = world.tenant("a").await;
    fresh_app(&world, &tenant).await;
    let state = token_state(&tenant).await;
    assert_eq!(
        (&state["state"], &state["fetches_today"], &state["age"]),
        (&json!("absent"), &json!(0), &Value::Null),
        "{state}"
    );

    let handed = hand_out(&tenant).await.expect(200);
    world.pass(Duration::from_mins(1));
    let state = token_state(&tenant).await;

    let value = handed["access_token"].as_str().expect("a token");
    assert!(!state.to_string().contains(value), "{state}");
    assert_eq!(
        (&state["state"], &state["fetches_today"], &state["failure"]),
        (&json!("live"), &json!(1), &Value::Null),
        "{state}"
    );
    let (age, left) = (state["age"].as_i64(), state["expires_in"].as_i64());
    assert!(age >= Some(60) && left < Some(7200), "{state}");
    assert_eq!(
        (
            &state["budgets"]["stable_calls"],
            &state["budgets"]["forced_refreshes"]
        ),
        (
            &json!({"used": 1, "limit": 500_000, "low": false}),
            &json!({"used": 0, "limit": 20, "low": false})
        ),
        "{state}"
    );
    assert_eq!(state["foreign_refresh"], Value::Null, "{state}");
}

/// The action of an audit line and its outcome.
fn summary(line: &NewAuditLine) -> (&str, &str) {
    (&line.action, &line.outcome)
}

async fn refreshes_are_spaced(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let before = token_state(&tenant).await;

    let first = refresh(&tenant).await.expect(200);
    assert!(
        first["generation"].as_u64() > before["generation"].as_u64(),
        "{first}"
    );
    assert_eq!(first["budgets"]["forced_refreshes"]["used"], 1, "{first}");
    let again = refresh(&tenant).await;
    assert_eq!(again.header("retry-after"), Some("30"), "{again:?}");
    let request = again.header("x-request-id").map(str::to_owned);
    again.problem(429, "rate_limited");
    let mut lines = token_audit(&world, &tenant).await;
    // The clock stands still, so neither line is newer.
    lines.sort_by(|one, two| one.outcome.cmp(&two.outcome));
    let [done, refused] = lines.as_slice() else {
        panic!("two lines: {lines:?}");
    };
    assert_eq!(summary(done), ("access_token.refresh", "ok"));
    assert_eq!(summary(refused), ("access_token.refresh", "refused"));
    assert!(done.request_id.is_some(), "{done:?}");
    assert_eq!(refused.actor, tenant.client.key().client_id);
    assert_eq!(
        (refused.target.as_str(), &refused.request_id),
        (APP, &request)
    );
    assert_eq!(world.wechat().app_stats(APP).total(FORCED), 1);

    world.pass(Duration::from_secs(30));
    refresh(&tenant).await.expect(200);
    assert_eq!(world.wechat().app_stats(APP).total(FORCED), 2);
    let sent = tenant.send_and_wait(APP, &message("o1")).await;
    assert_eq!(outcomes(&sent), ["accepted"]);
}

async fn a_refresh_of_a_refused_app_says_why(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    fresh_app(&world, &tenant).await;
    world
        .wechat()
        .change_app(APP, |app| app.secret = Some("another".into()));
    let refused = refresh(&tenant).await.problem(422, "wechat_rejected");
    assert_eq!(refused["wechat"]["errcode"], 40125, "{refused}");
    hand_out(&tenant).await.problem(422, "wechat_rejected");
    let lines = token_audit(&world, &tenant).await;
    let [handed, refreshed] = lines.as_slice() else {
        panic!("two lines: {lines:?}");
    };
    for (line, action) in [
        (handed, "access_token.hand_out"),
        (refreshed, "access_token.refresh"),
    ] {
        assert_eq!(summary(line), (action, "refused"));
        assert!(
            line.detail
                .as_ref()
                .is_some_and(|detail| detail.starts_with("wrong_secret: ")),
            "{line:?}"
        );
    }
    let state = token_state(&tenant).await;
    assert_eq!(
        (&state["state"], &state["failure"]["reason"]),
        (&json!("failing"), &json!("wrong_secret")),
        "{state}"
    );
    assert!(state["failure"]["retry_at"].is_string(), "{state}");
    // Repeated requests get the same answer, and the gateway makes no call to WeChat.
    let asked = || world.wechat().app_stats(APP).total("/cgi-bin/stable_token");
    let before = asked();
    for _ in 0..5 {
        let again = refresh(&tenant).await.problem(422, "wechat_rejected");
        assert_eq!(again["wechat"], refused["wechat"]);
    }
    assert_eq!(asked(), before);
}

async fn a_token_given_to_a_caller_works_and_is_in_the_audit_log(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;

    let answer = hand_out(&tenant).await;

    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let request = answer.header("x-request-id").map(str::to_owned);
    let handed = answer.expect(200);
    let left = handed["expires_in"].as_u64().expect("expires_in");
    assert!((1..=7200).contains(&left), "{left}");
    let value = handed["access_token"].as_str().expect("a token");
    let path = format!("/cgi-bin/message/subscribe/send?access_token={value}");
    let wechat = tenant.client.at(&world.wechat_url());
    let direct = wechat.bare(Method::POST, &path).json(&message("o1"));
    let sent: Value = direct.send().await.unwrap().json().await.unwrap();
    assert_eq!(sent["errcode"], 0, "{sent}");
    assert_eq!(world.wechat().app_stats(APP).total(FETCH), 1);

    let lines = token_audit(&world, &tenant).await;
    let [line] = lines.as_slice() else {
        panic!("one line: {lines:?}");
    };
    assert_eq!(summary(line), ("access_token.hand_out", "ok"));
    assert_eq!(line.actor, tenant.client.key().client_id);
    assert_eq!((line.target.as_str(), &line.request_id), (APP, &request));
    assert!(!format!("{line:?}").contains(value));
}

/// The gateway counts WeChat's limits itself: callers get the time of the next permitted request, and the count is
/// shown before the limit is reached.
async fn too_frequent_refreshes_learn_when_to_retry(mode: Mode) {
    const KEPT_FOR_REPAIRS: usize = 1_900;
    let world = World::plan(mode).by_hand().start().await;
    let tenant = world.tenant("a").await;
    tenant.app_with(APP, json!({"token_mode": "legacy"})).await;
    let path = format!("/v1/apps/{APP}/verify");
    let prove = async || tenant.client.call(Method::POST, &path, None).await;
    for _ in 1..KEPT_FOR_REPAIRS {
        prove().await.expect(200);
    }
    let state = token_state(&tenant).await;
    assert_eq!(
        state["budgets"]["legacy_fetches"],
        json!({"used": 1_900, "limit": 2_000, "low": true}),
        "{state}"
    );

    for refused in [prove().await, refresh(&tenant).await] {
        let wait = refused.header("retry-after").map(str::to_owned);
        let wait: u64 = wait.and_then(|wait| wait.parse().ok()).expect("seconds");
        // The clock shows 10:00 in Shanghai.
        assert!((13 * 3_600..=14 * 3_600).contains(&wait), "{wait}");
        refused.problem(429, "rate_limited");
    }
    hand_out(&tenant).await.expect(200);
    assert_eq!(
        world.wechat().app_stats(APP).total("/cgi-bin/token"),
        KEPT_FOR_REPAIRS as u64
    );
}
