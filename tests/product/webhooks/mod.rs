//! Events to tenants about the outcome of each message.

mod events;
pub(crate) mod receiver;

use std::{collections::BTreeSet, time::Duration};

use futures::future::join_all;
use serde_json::{Value, json};
use simulator::{GrantRule, ListedTemplate};

pub(crate) use self::receiver::Receiver;
use self::receiver::events;
use crate::world::{Mode, TEMPLATE, Tenant, World, id, message};

const APP: &str = "wx00000000000000a1";

both_modes!(
    the_outcome_of_a_message_is_reported_once_and_signed,
    a_receiver_that_was_away_for_a_day_misses_nothing,
    a_failed_receiver_gets_no_event_until_it_recovers,
    a_redirect_is_not_followed,
    private_and_plain_addresses_are_refused,
    two_secrets_sign_while_one_is_rotated,
    invalid_settings_are_refused_with_pointers,
    another_tenant_gets_no_events,
);

mod the_limit_of_webhooks_holds_across_replicas {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn production() {
        super::the_limit_of_webhooks_holds_across_replicas().await;
    }
}

mod two_replicas_report_each_event_once {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn production() {
        super::two_replicas_report_each_event_once().await;
    }
}

/// Registers the receiver; the answer has the secret.
pub(crate) async fn hook(tenant: &Tenant, receiver: &Receiver) -> Value {
    let new = json!({"url": receiver.url, "events": ["*"], "description": "test"});
    tenant.client.post("/v1/webhooks", &new).await.expect(201)
}

fn path(webhook: &Value, rest: &str) -> String {
    format!("/v1/webhooks/{}{rest}", id(webhook))
}

/// The endpoint's deliveries, when each delivery satisfies `holds`.
async fn wait_deliveries(
    tenant: &Tenant,
    webhook: &Value,
    what: &str,
    holds: impl Fn(&Value) -> bool,
) -> Vec<Value> {
    let list = path(webhook, "/deliveries");
    let time = tenant.client.time();
    time.eventually(what, || async {
        let page = tenant.client.get(&list).await.expect(200);
        let all = page["data"].as_array().expect("data").clone();
        (!all.is_empty() && all.iter().all(&holds)).then_some(all)
    })
    .await
}

async fn the_outcome_of_a_message_is_reported_once_and_signed(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let receiver = Receiver::start().await;
    let webhook = hook(&tenant, &receiver).await;
    let secret = webhook["secret"].as_str().expect("a secret");
    assert!(secret.starts_with("whsec_"));

    let sent = tenant.send_and_wait(APP, &message("o1")).await;
    receiver.wait(&world, 1).await;
    world.wechat().change_app(APP, |app| {
        app.grants = GrantRule::Counted;
        app.templates = vec![ListedTemplate::one_time(TEMPLATE, &["thing1", "number2"])];
    });
    let failed = tenant.send_and_wait(APP, &message("o2")).await;
    let heard = receiver.wait(&world, 2).await;

    for (one, (kind, message)) in heard
        .iter()
        .zip([("message.sent", &sent), ("message.failed", &failed)])
    {
        assert_eq!(one.kind(), kind);
        assert_eq!(&one.json["data"], message, "as the API shows it");
        assert_eq!(one.json["version"], 1);
        assert_eq!(one.headers["webhook-id"], one.json["id"].as_str().unwrap());
        assert!(one.is_signed_by(secret) && !one.is_signed_by("whsec_AAAA"));
    }
    let done = wait_deliveries(&tenant, &webhook, "both are delivered", |one| {
        one["status"] == "delivered"
    })
    .await;
    assert_eq!(done.len(), 2);
    assert_eq!(
        (&done[1]["message_id"], &done[1]["response_status"]),
        (&sent["id"], &json!(204))
    );
    assert_eq!(receiver.heard().len(), 2, "each once");
    let shown = tenant.client.get(&path(&webhook, "")).await;
    assert!(!shown.text.contains("whsec_"));
    assert_eq!(shown.expect(200)["failures"], 0);
}

async fn a_receiver_that_was_away_for_a_day_misses_nothing(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let receiver = Receiver::start().await;
    receiver.answers(503);
    let webhook = hook(&tenant, &receiver).await;
    for n in 0..3 {
        tenant.send_and_wait(APP, &message(&format!("o{n}"))).await;
    }
    wait_deliveries(&tenant, &webhook, "all are tried", |one| {
        one["response_status"] == 503
    })
    .await;
    world.pass(Duration::from_hours(12));
    wait_deliveries(&tenant, &webhook, "all are tried after 12 hours", |one| {
        one["attempts"].as_u64() >= Some(2) && one["response_status"] == 503
    })
    .await;
    world.pass(Duration::from_hours(12) - Duration::from_mins(10));
    receiver.answers(200);
    world.pass(Duration::from_mins(20));
    let done = wait_deliveries(&tenant, &webhook, "all are delivered", |one| {
        one["status"] == "delivered"
    })
    .await;
    assert_eq!(done.len(), 3);
    let heard = receiver.heard();
    assert_eq!(events(&heard).len(), 3);
    let secret = webhook["secret"].as_str().expect("a secret");
    assert!(heard.iter().all(|one| one.is_signed_by(secret)));
    let stamps: BTreeSet<&str> = heard
        .iter()
        .filter_map(|one| one.headers["webhook-timestamp"].to_str().ok())
        .collect();
    // An attempt may be in flight when the clock advances, so one of three attempts can share the time of the next.
    assert!(stamps.len() >= 2, "a try is signed for its own time");
}

async fn a_failed_receiver_gets_no_event_until_it_recovers(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let receiver = Receiver::start().await;
    receiver.answers(410);
    let webhook = hook(&tenant, &receiver).await;
    tenant.send_and_wait(APP, &message("o1")).await;
    let failed = wait_deliveries(&tenant, &webhook, "it has failed", |one| {
        one["status"] == "failed"
    })
    .await;
    let shown = tenant.client.get(&path(&webhook, "")).await.expect(200);
    assert_eq!(shown["status"], "disabled");
    let audit = tenant.client.get("/v1/audit?action=webhook.disable").await;
    assert_eq!(audit.expect(200)["data"].as_array().unwrap().len(), 1);
    tenant.send_and_wait(APP, &message("o2")).await;
    let test = path(&webhook, "/test");
    tenant
        .client
        .post(&test, &Value::Null)
        .await
        .problem(409, "conflict");

    receiver.answers(200);
    let on = json!({"status": "enabled"});
    let shown = tenant.client.patch(&path(&webhook, ""), &on).await;
    assert_eq!(shown.expect(200)["disabled_reason"], Value::Null);
    let event = failed[0]["event_id"].as_str().unwrap();
    let again = path(&webhook, &format!("/deliveries/{event}/redeliver"));
    tenant.client.post(&again, &Value::Null).await.expect(202);
    let heard = receiver.wait(&world, 2).await;
    assert_eq!(heard[0].json, heard[1].json, "the same event once more");

    let window = json!({"since": "2020-01-01T00:00:00Z"});
    let none = tenant
        .client
        .post(&path(&webhook, "/redeliver"), &window)
        .await;
    let none = none.expect(202);
    assert_eq!(none, json!({"redelivered": 0, "more": false}));
    tenant.client.post(&test, &Value::Null).await.expect(202);
    let heard = receiver.wait(&world, 3).await;
    assert_eq!(heard[2].kind(), "webhook.test");
}

async fn a_redirect_is_not_followed(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    let receiver = Receiver::start().await;
    receiver.answers(307);
    let webhook = hook(&tenant, &receiver).await;
    let test = path(&webhook, "/test");
    tenant.client.post(&test, &Value::Null).await.expect(202);
    let failed = wait_deliveries(&tenant, &webhook, "it has failed", |one| {
        one["status"] == "failed"
    })
    .await;
    assert_eq!(failed[0]["response_status"], 307);
    let error = failed[0]["error"].as_str().unwrap();
    assert!(error.contains("redirects are not followed"), "{error}");
    assert_eq!(receiver.heard().len(), 1);
}

async fn private_and_plain_addresses_are_refused(mode: Mode) {
    let world = World::plan(mode).public_webhooks_only().start().await;
    let tenant = world.tenant("a").await;
    let receiver = Receiver::start().await;
    let plain = receiver.url.clone();
    let secure = plain.replace("http://", "https://");
    for url in [plain.as_str(), &secure, "https://localhost/hook"] {
        let new = json!({"url": url, "events": ["*"]});
        let refused = tenant.client.post("/v1/webhooks", &new).await;
        let problem = refused.problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["pointer"], "/url", "{problem}");
    }
    assert!(receiver.heard().is_empty());
}

async fn two_secrets_sign_while_one_is_rotated(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let tenant = world.tenant("a").await;
    let receiver = Receiver::start().await;
    let webhook = hook(&tenant, &receiver).await;
    let rotate = path(&webhook, "/rotate-secret");
    let rotated = tenant.client.post(&rotate, &Value::Null).await.expect(200);
    let [old, new] = [&webhook, &rotated].map(|one| one["secret"].as_str().unwrap());
    assert_ne!(old, new);
    let test = path(&webhook, "/test");
    tenant.client.post(&test, &Value::Null).await.expect(202);
    let heard = receiver.wait(&world, 1).await;
    assert!(heard[0].is_signed_by(old) && heard[0].is_signed_by(new));
    world.pass(Duration::from_hours(25));
    tenant.client.post(&test, &Value::Null).await.expect(202);
    let heard = receiver.wait(&world, 2).await;
    assert!(!heard[1].is_signed_by(old) && heard[1].is_signed_by(new));
}

async fn invalid_settings_are_refused_with_pointers(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    let wrong = json!({"url": "ftp://x", "events": ["message.sent", "message.read"]});
    let refused = tenant.client.post("/v1/webhooks", &wrong).await;
    let problem = refused.problem(422, "validation_failed");
    let pointers: Vec<&Value> = problem["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| &error["pointer"])
        .collect();
    assert_eq!(pointers, ["/url", "/events/1"]);
    let operator = world.operator();
    let listed = operator.get("/v1/webhooks").await;
    assert_eq!(listed.status.as_u16(), 403);
}

async fn another_tenant_gets_no_events(mode: Mode) {
    let world = World::start(mode).await;
    let (tenant, other) = (world.tenant("a").await, world.tenant("b").await);
    tenant.app(APP).await;
    let (receiver, others) = (Receiver::start().await, Receiver::start().await);
    hook(&tenant, &receiver).await;
    let webhook = hook(&other, &others).await;
    tenant.send_and_wait(APP, &message("o1")).await;
    receiver.wait(&world, 1).await;
    // A wrong event at the other tenant's endpoint would have arrived before this test event.
    let test = path(&webhook, "/test");
    other.client.post(&test, &Value::Null).await.expect(202);
    let heard = others.wait(&world, 1).await;
    assert_eq!((heard.len(), heard[0].kind()), (1, "webhook.test"));
    let theirs = tenant.client.get(&path(&webhook, "/deliveries")).await;
    theirs.problem(404, "not_found");
}

async fn the_limit_of_webhooks_holds_across_replicas() {
    let world = World::plan(Mode::Production).replicas(2).start().await;
    let tenant = world.tenant("a").await;
    let replicas = [0, 1].map(|replica| world.at(replica, &tenant));
    let makers = (0..40).map(|n| {
        let client = &replicas[n % 2].client;
        async move {
            let new = json!({"url": format!("http://127.0.0.1:9/{n}"), "events": ["*"]});
            client.post("/v1/webhooks", &new).await.status.as_u16()
        }
    });
    let mut answered = futures::future::join_all(makers).await;
    answered.sort_unstable();
    assert_eq!(answered, [[201; 20], [409; 20]].concat());
    let listed = tenant
        .client
        .get("/v1/webhooks?limit=100")
        .await
        .expect(200);
    assert_eq!(listed["data"].as_array().map(Vec::len), Some(20));
}

/// In general an event may arrive twice, when a replica dies between the post and its record: no replica dies here.
async fn two_replicas_report_each_event_once() {
    const MESSAGES: usize = 100;
    let world = World::plan(Mode::Production).replicas(2).start().await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let receiver = Receiver::start().await;
    let webhook = hook(&tenant, &receiver).await;
    let sends = (0..MESSAGES).map(|n| {
        let at = world.at(n % 2, &tenant);
        async move { at.send(APP, &message(&format!("o{n}"))).await }
    });
    join_all(sends).await;
    let heard = receiver.wait(&world, MESSAGES).await;
    assert_eq!(events(&heard).len(), MESSAGES);
    wait_deliveries(&tenant, &webhook, "all are recorded", |one| {
        one["status"] == "delivered" && one["attempts"] == 1
    })
    .await;
    assert_eq!(receiver.heard().len(), MESSAGES);
}
