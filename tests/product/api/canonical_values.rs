//! The gateway stores, sends and shows every value in the form that was checked, on every surface that takes the value.

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    api::hostile_requests::connect,
    world::{Answer, Mode, Tenant, World, finish, id, message},
};

const APP: &str = "wx00000000000000a1";

both_modes!(
    a_duplicate_field_is_refused_with_its_pointer,
    a_send_at_is_shown_in_one_form_in_a_replay_too,
    a_cursor_belongs_to_its_list,
    a_webhook_url_is_stored_as_called,
    a_request_without_one_host_is_refused,
    an_encoded_body_is_unsupported,
    names_contain_no_bidirectional_controls,
);

/// Sends a body byte for byte as written.
async fn raw(tenant: &Tenant, path: &str, body: &str) -> Answer {
    let request = tenant.client.request(Method::POST, path).await;
    let request = request.header("content-type", "application/json");
    finish(request.body(body.to_owned())).await
}

fn pointers(problem: &Value) -> Vec<String> {
    let errors = problem["errors"].as_array().expect("errors");
    let pointer = |error: &'_ Value| error["pointer"].as_str().expect("a pointer").to_owned();
    errors.iter().map(pointer).collect()
}

async fn a_duplicate_field_is_refused_with_its_pointer(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let messages = format!("/v1/apps/{APP}/messages");
    let message = |more: &str| format!(r#"{{"touser": "o", "template_id": "t", {more}}}"#);
    let data = r#""data": {"thing1": {"value": "x"}}"#;
    for (more, expected) in [
        (format!(r#""touser": "p", {data}"#), "/touser"),
        (
            r#""data": {"thing1": {"value": "x"}, "thing1": {"value": "y"}}"#.to_owned(),
            "/data/thing1",
        ),
        (
            r#""data": {"thing1": {"value": "x", "value": "y"}}"#.to_owned(),
            "/data/thing1/value",
        ),
        (
            format!(r#"{data}, "metadata": {{"a": 1, "a": 2}}"#),
            "/metadata/a",
        ),
        (
            format!(r#"{data}, "metadata": {{"a": [{{"b/c": 1, "b\/c": 2}}]}}"#),
            "/metadata/a/0/b~1c",
        ),
        (
            format!(r#"{data}, "metadata": {{"\u0061": 1, "a": 2}}"#),
            "/metadata/a",
        ),
    ] {
        let body = message(&more);
        let alone = raw(&tenant, &messages, &body).await;
        let alone = alone.problem(422, "validation_failed");
        assert_eq!(pointers(&alone), [expected], "{body}");
        let batch = format!(r#"{{"messages": [{body}]}}"#);
        let batch = raw(&tenant, &format!("{messages}/batch"), &batch).await;
        let item = &batch.expect(200)["data"][0];
        assert_eq!(item["status"], 422, "{item}");
        assert_eq!(pointers(&item["error"]), [expected], "{body}");
    }
    for (path, body, expected) in [
        (
            "/v1/keys",
            r#"{"name": "a", "name": "b", "scopes": []}"#,
            "/name",
        ),
        (
            "/v1/webhooks",
            r#"{"url": "https://a.example/", "url": "https://b.example/", "events": ["*"]}"#,
            "/url",
        ),
    ] {
        let answer = raw(&tenant, path, body).await;
        let problem = answer.problem(422, "validation_failed");
        assert_eq!(pointers(&problem), [expected], "{body}");
    }
}

async fn a_send_at_is_shown_in_one_form_in_a_replay_too(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let path = format!("/v1/apps/{APP}/messages");
    let send = async |send_at: &str, key: &str| {
        let mut new = message("o1");
        new["send_at"] = send_at.into();
        new["page"] = "pages/order".into();
        let request = tenant.client.request(Method::POST, &path).await;
        finish(request.header("idempotency-key", key).json(&new)).await
    };
    for long_ago in ["0000-01-01T00:00:00Z", "2019-12-31T23:59:60Z"] {
        let refused = send(long_ago, "k").await.problem(422, "validation_failed");
        assert_eq!(pointers(&refused), ["/send_at"], "{long_ago}");
    }
    let soon = world.now() + chrono::Duration::days(2);
    let minute = soon.format("%Y-%m-%dT%H:%M");
    let next = (soon + chrono::Duration::minutes(1)).format("%Y-%m-%dT%H:%M:00.000Z");
    let leap = format!("{minute}:60Z");
    let first = send(&leap, "leap").await.expect(202);
    let again = send(&leap, "leap").await;
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    let again = again.expect(202);
    let path = format!("/v1/messages/{}", id(&first));
    let read = tenant.client.get(&path).await.expect(200);
    for shown in [&first, &again, &read] {
        assert_eq!(shown["send_at"], next.to_string(), "{shown}");
    }
}

async fn a_cursor_belongs_to_its_list(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    tenant.app("wx00000000000000a2").await;
    for number in 0..2 {
        let new = json!({"name": format!("key {number}"), "scopes": ["apps:read"]});
        tenant.client.post("/v1/keys", &new).await.expect(201);
        let url = format!("http://127.0.0.1:9/{number}");
        let new = json!({"url": url, "events": ["*"]});
        tenant.client.post("/v1/webhooks", &new).await.expect(201);
        let new = message(&format!("o{number}"));
        tenant.send_and_wait(APP, &new).await;
    }
    let lists = [
        format!("/v1/apps/{APP}/messages"),
        "/v1/keys".to_owned(),
        "/v1/webhooks".to_owned(),
        "/v1/apps".to_owned(),
        "/v1/audit".to_owned(),
    ];
    for list in &lists {
        let page = tenant.client.get(&format!("{list}?limit=1")).await;
        let page = page.expect(200);
        let cursor = page["next_cursor"].as_str().expect("a second page");
        for other in &lists {
            let answer = tenant.client.get(&format!("{other}?cursor={cursor}")).await;
            if other == list {
                answer.expect(200);
                continue;
            }
            let problem = answer.problem(400, "invalid_request");
            let detail = problem["detail"].as_str().expect("a detail");
            assert!(detail.contains("`cursor`"), "{detail}");
        }
    }
}

async fn a_webhook_url_is_stored_as_called(mode: Mode) {
    let world = World::plan(mode).public_webhooks_only().start().await;
    let tenant = world.tenant("a").await;
    for (typed, called) in [
        ("  https://hooks.example/ ", "https://hooks.example/"),
        (
            "HTTPS://Hooks.Example:443/a/../b",
            "https://hooks.example/b",
        ),
        ("https://hooks.example", "https://hooks.example/"),
        ("https://hooks.example\\a", "https://hooks.example/a"),
    ] {
        let new = json!({"url": typed, "events": ["*"]});
        let made = tenant.client.post("/v1/webhooks", &new).await.expect(201);
        assert_eq!(made["url"], called, "{typed:?}");
        let path = format!("/v1/webhooks/{}", id(&made));
        let read = tenant.client.get(&path).await.expect(200);
        assert_eq!(read["url"], called, "{typed:?}");
        let change = json!({"url": typed});
        let changed = tenant.client.patch(&path, &change).await.expect(200);
        assert_eq!(changed["url"], called, "{typed:?}");
    }
    let new = json!({"url": "https://hooks.example\\@other.example/", "events": ["*"]});
    let made = tenant.client.post("/v1/webhooks", &new).await.expect(201);
    assert_eq!(made["url"], "https://hooks.example/@other.example/");
}

async fn a_request_without_one_host_is_refused(mode: Mode) {
    let world = World::start(mode).await;
    for (head, status) in [
        ("GET /healthz HTTP/1.1\r\n", "400"),
        ("GET /healthz HTTP/1.1\r\nHost: a\r\nHost: a\r\n", "400"),
        (
            "GET /console/sign-in HTTP/1.1\r\nHost: a\r\nHost: b\r\n",
            "400",
        ),
        ("GET /healthz HTTP/1.1\r\nHost: a\r\n", "200"),
        ("GET /healthz HTTP/1.0\r\n", "200"),
    ] {
        let mut stream = connect(&world).await;
        let request = format!("{head}Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        let line = answer.lines().next().unwrap_or_default();
        assert_eq!(line.split(' ').nth(1), Some(status), "{head:?}: {answer}");
        if status == "400" {
            assert!(answer.contains("\"code\":\"invalid_request\""), "{answer}");
            assert!(answer.to_lowercase().contains("x-request-id"), "{answer}");
        }
    }
}

async fn an_encoded_body_is_unsupported(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    for path in ["/v1/keys", &format!("/v1/apps/{APP}/messages")] {
        let encoded = async |encoding: &str| {
            let request = tenant.client.request(Method::POST, path).await;
            let request = request.header("content-encoding", encoding);
            finish(request.json(&json!({}))).await
        };
        let answer = encoded("gzip").await;
        assert_eq!(answer.header("accept-encoding"), Some("identity"));
        let problem = answer.problem(415, "unsupported_media_type");
        let detail = problem["detail"].as_str().expect("a detail");
        assert!(detail.contains("gzip"), "{detail}");
        let plain = encoded("identity").await;
        plain.problem(422, "validation_failed");
    }
}

async fn names_contain_no_bidirectional_controls(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let app = format!("/v1/apps/{APP}");
    for name in [
        "a\u{202e}b",
        "\u{2066}a",
        "a\u{200f}",
        "\u{202c}",
        "\u{61c}a",
    ] {
        let refused = |answer: Answer, pointer: &str| {
            let problem = answer.problem(422, "validation_failed");
            assert_eq!(pointers(&problem), [pointer], "{name:?}");
        };
        let client = &tenant.client;
        let new = json!({"name": name});
        refused(world.operator().post("/v1/tenants", &new).await, "/name");
        let new = json!({"name": name, "scopes": ["apps:read"]});
        refused(client.post("/v1/keys", &new).await, "/name");
        refused(client.patch(&app, &json!({"name": name})).await, "/name");
        let new = json!({"url": "http://127.0.0.1:9/", "events": ["*"], "description": name});
        refused(client.post("/v1/webhooks", &new).await, "/description");
    }
    let fine = json!({"name": "小店 ☕ é עברית"});
    tenant.client.patch(&app, &fine).await.expect(200);
}
