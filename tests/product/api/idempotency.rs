//! A request with an `Idempotency-Key` creates its resource once, and later requests get the first answer again.

use std::time::Duration;

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{Answer, Client, Key, Mode, SECRET, World, finish, id};

const APP: &str = "wx00000000000000a1";

both_modes!(
    every_creation_repeats_its_first_answer,
    concurrent_requests_with_one_key_create_one_resource,
    requests_at_two_replicas_with_one_key_create_one_resource,
    a_secret_is_repeated_only_to_its_creator,
    a_refused_request_leaves_its_key_unused,
    a_key_belongs_to_one_request_of_any_operation,
);

async fn post(client: &Client, path: &str, key: &str, body: Option<&Value>) -> Answer {
    let request = client.request(Method::POST, path).await;
    let mut request = request.header("Idempotency-Key", key);
    if let Some(body) = body {
        request = request.json(body);
    }
    finish(request).await
}

/// Sends the request twice and asserts that the second answer is the first one plus a mark.
async fn twice(client: &Client, path: &str, body: Option<&Value>) -> Value {
    let first = post(client, path, path, body).await;
    assert_eq!(first.header("idempotent-replayed"), None, "{first:?}");
    assert!(first.status.is_success(), "{first:?}");
    let again = post(client, path, path, body).await;
    assert_eq!(
        again.header("idempotent-replayed"),
        Some("true"),
        "{again:?}"
    );
    assert_eq!((again.status, &again.text), (first.status, &first.text));
    assert_eq!(again.header("location"), first.header("location"));
    first.body
}

async fn count(client: &Client, path: &str) -> usize {
    let page = client.get(path).await.expect(200);
    page["data"].as_array().expect("data").len()
}

async fn every_creation_repeats_its_first_answer(mode: Mode) {
    let world = World::start(mode).await;
    let operator = world.operator();
    let tenants = count(&operator, "/v1/tenants").await;
    let acme = twice(&operator, "/v1/tenants", Some(&json!({"name": "Tea"}))).await;
    assert_eq!(count(&operator, "/v1/tenants").await, tenants + 1);
    let keys = format!("/v1/tenants/{}/keys", id(&acme));
    let new_key = json!({"name": "k", "scopes": ["messages:send"]});
    let key = twice(&operator, &keys, Some(&new_key)).await;
    assert_eq!(count(&operator, &keys).await, 1);
    // The secret that both answers show works.
    let fetched = world.anonymous().with_key(Key::of(&key));
    fetched.fetch_token(None).await.expect(200);

    let tenant = world.tenant("a").await;
    let client = &tenant.client;
    twice(client, "/v1/keys", Some(&new_key)).await;
    let app = json!({"appid": APP, "secret": SECRET, "name": "first"});
    let registered = twice(client, "/v1/apps", Some(&app)).await;
    // The repeated answer shows the app as the first answer did, also after a change of the app.
    let path = format!("/v1/apps/{APP}");
    client
        .patch(&path, &json!({"name": "second"}))
        .await
        .expect(200);
    let again = post(client, "/v1/apps", "/v1/apps", Some(&app)).await;
    assert_eq!(again.expect(201), registered);
    assert_eq!(client.get(&path).await.expect(200)["name"], "second");

    let hook = json!({"url": "https://203.0.113.1/hook", "events": ["*"]});
    let hook = twice(client, "/v1/webhooks", Some(&hook)).await;
    assert_eq!(count(client, "/v1/webhooks").await, 1);
    let path = format!("/v1/webhooks/{}", id(&hook));
    let rotated = twice(client, &format!("{path}/rotate-secret"), None).await;
    assert_ne!(rotated["secret"], hook["secret"]);
    let told = twice(client, &format!("{path}/test"), None).await;
    let deliveries = format!("{path}/deliveries");
    assert_eq!(count(client, &deliveries).await, 1);
    let event = told["event_id"].as_str().expect("an event");
    twice(client, &format!("{deliveries}/{event}/redeliver"), None).await;
    let since = json!({"since": world.now() - chrono::Duration::hours(1)});
    twice(client, &format!("{path}/redeliver"), Some(&since)).await;
}

/// Exactly one of several twins is executed. The other twins get the answer of that one, or a 409 while that one runs.
fn one_answer(answers: Vec<Answer>, status: u16) -> Value {
    let mut bodies = Vec::new();
    for answer in answers {
        match answer.status.as_u16() {
            409 => drop(answer.problem(409, "conflict")),
            _ => bodies.push(answer.expect(status)),
        }
    }
    bodies.dedup();
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    bodies.remove(0)
}

async fn concurrent_requests_with_one_key_create_one_resource(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    let keys = count(&tenant.client, "/v1/keys").await;
    let new = json!({"name": "k", "scopes": ["messages:send"]});
    let twins = (0..20).map(|_| post(&tenant.client, "/v1/keys", "twin", Some(&new)));
    one_answer(join_all(twins).await, 201);
    assert_eq!(count(&tenant.client, "/v1/keys").await, keys + 1);

    let app = json!({"appid": APP, "secret": SECRET});
    let twins = (0..20).map(|_| post(&tenant.client, "/v1/apps", "app", Some(&app)));
    let app = one_answer(join_all(twins).await, 201);
    assert_eq!(app["appid"], APP);
    assert_eq!(
        world.wechat().app_stats(APP).total("/cgi-bin/stable_token"),
        1
    );
}

async fn requests_at_two_replicas_with_one_key_create_one_resource(mode: Mode) {
    let replicas = if mode == Mode::Production { 2 } else { 1 };
    let world = World::plan(mode).replicas(replicas).start().await;
    let tenant = world.tenant("a").await;
    let callers: Vec<Client> = (0..20)
        .map(|number| world.at(number % replicas, &tenant).client)
        .collect();
    let app = json!({"appid": APP, "secret": SECRET});
    let twins = callers
        .iter()
        .map(|client| post(client, "/v1/apps", "app", Some(&app)));
    one_answer(join_all(twins).await, 201);
    let hook = json!({"url": "https://203.0.113.1/hook", "events": ["*"]});
    let twins = callers
        .iter()
        .map(|client| post(client, "/v1/webhooks", "hook", Some(&hook)));
    one_answer(join_all(twins).await, 201);
    assert_eq!(count(&tenant.client, "/v1/webhooks").await, 1);
}

async fn a_secret_is_repeated_only_to_its_creator(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    let new = json!({"name": "k", "scopes": ["messages:send"]});
    post(&tenant.client, "/v1/keys", "k", Some(&new))
        .await
        .expect(201);
    // Another key of the tenant, with fewer scopes than the new key has, does not get the stored answer.
    let other = world.key_of(&tenant.id, &["keys:write"]).await;
    let stolen = post(&other, "/v1/keys", "k", Some(&new)).await;
    stolen.problem(422, "idempotency_key_reused");
    // The same key with a token whose scopes do not suffice for the request does not get the stored answer either.
    let narrow = tenant.client.fetch_token(Some("keys:write")).await;
    let narrow = narrow.expect(200)["access_token"].clone();
    let asked = async |key: &str| {
        let request = tenant.client.bare(Method::POST, "/v1/keys");
        let request = request.bearer_auth(narrow.as_str().expect("a token"));
        finish(request.header("Idempotency-Key", key).json(&new)).await
    };
    asked("l").await.problem(403, "insufficient_scope");
    asked("k").await.problem(422, "idempotency_key_reused");
    // Another token with the same scopes as the first one gets the stored answer.
    let all = tenant.client.fetch_token(None).await.expect(200);
    let request = tenant.client.bare(Method::POST, "/v1/keys");
    let request = request.bearer_auth(all["access_token"].as_str().expect("a token"));
    let again = finish(request.header("Idempotency-Key", "k").json(&new)).await;
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    again.expect(201);
    // Another tenant's idempotency keys are separate.
    let other_tenant = world.tenant("b").await;
    let own = post(&other_tenant.client, "/v1/keys", "k", Some(&new)).await;
    assert_eq!(own.header("idempotent-replayed"), None);
    own.expect(201);
}

async fn a_refused_request_leaves_its_key_unused(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let tenant = world.tenant("a").await;
    let wrong = json!({"name": "k", "scopes": ["messages:fly"]});
    let refused = post(&tenant.client, "/v1/keys", "k", Some(&wrong)).await;
    refused.problem(422, "validation_failed");
    let right = json!({"name": "k", "scopes": ["messages:send"]});
    post(&tenant.client, "/v1/keys", "k", Some(&right))
        .await
        .expect(201);
    // A request for an app that exists gets 409 each time, also under the same idempotency key.
    tenant.app(APP).await;
    let app = json!({"appid": APP, "secret": SECRET});
    for _ in 0..2 {
        let taken = post(&tenant.client, "/v1/apps", "app", Some(&app)).await;
        taken.problem(409, "conflict");
    }
    // A day later the key is free for another request.
    world.pass(Duration::from_hours(25));
    let other = json!({"name": "other", "scopes": ["messages:send"]});
    post(&tenant.client, "/v1/keys", "k", Some(&other))
        .await
        .expect(201);
}

async fn a_key_belongs_to_one_request_of_any_operation(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let message = crate::world::message("o1");
    tenant.send_keyed(APP, "k", &message).await.expect(202);
    let new = json!({"name": "k", "scopes": ["messages:send"]});
    let keys = post(&tenant.client, "/v1/keys", "k", Some(&new)).await;
    keys.problem(422, "idempotency_key_reused");
    post(&tenant.client, "/v1/keys", "l", Some(&new))
        .await
        .expect(201);
    let sent = tenant.send_keyed(APP, "l", &message).await;
    sent.problem(422, "idempotency_key_reused");
    let other = json!({"name": "l", "scopes": ["messages:send"]});
    let keys = post(&tenant.client, "/v1/keys", "l", Some(&other)).await;
    keys.problem(422, "idempotency_key_reused");
}
