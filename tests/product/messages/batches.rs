//! Many messages in one request.

use std::{collections::HashSet, time::Duration};

use futures::future::join_all;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use crate::world::{Answer, Mode, Tenant, World, finish, id, message, message_with};

const APP: &str = "wx00000000000000a1";
const MEBIBYTE: usize = 1024 * 1024;

both_modes!(
    each_message_of_a_batch_has_its_own_result,
    a_batch_has_1_to_1000_messages,
    a_large_batch_is_accepted_and_a_larger_one_refused,
    a_repeated_batch_gets_the_first_results,
    a_batch_is_accepted_as_far_as_the_quota_lasts,
    many_messages_arrive,
    an_answer_does_not_outgrow_its_batch,
    a_duplicate_field_is_refused_in_a_batch_too,
);

fn path() -> String {
    format!("/v1/apps/{APP}/messages/batch")
}

async fn batch(tenant: &Tenant, messages: &[Value]) -> Answer {
    let body = json!({ "messages": messages });
    tenant.client.post(&path(), &body).await
}

async fn keyed(tenant: &Tenant, key: &str, messages: &[Value]) -> Answer {
    let request = tenant.client.request(Method::POST, &path()).await;
    let body = json!({ "messages": messages });
    finish(request.header("Idempotency-Key", key).json(&body)).await
}

#[track_caller]
fn results(answer: Answer) -> Vec<Value> {
    let body = answer.expect(200);
    body["data"].as_array().expect("data").clone()
}

fn statuses(results: &[Value]) -> Vec<u64> {
    let status = |result: &Value| result["status"].as_u64().expect("a status");
    results.iter().map(status).collect()
}

async fn each_message_of_a_batch_has_its_own_result(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let long = json!({"data": {"thing1": {"value": "x".repeat(21)}}});
    let far = (world.now() + Duration::from_hours(1)).to_rfc3339();
    let messages = [
        message_with("o1", json!({"reference": "first", "metadata": {"n": 1}})),
        json!("no object"),
        message_with("o2", json!({"extra": 1})),
        message_with("o3", long),
        message_with("o4", json!({"channel": "official"})),
        message_with("o5", json!({"dry_run": true})),
        message_with("o6", json!({"send_at": far})),
        json!({"template_id": "t"}),
    ];

    let results = results(batch(&tenant, &messages).await);

    assert_eq!(
        statuses(&results),
        [202, 422, 422, 422, 422, 200, 202, 422],
        "{results:#?}"
    );
    let pointer = |at: usize| {
        let error = &results[at]["error"];
        assert_eq!(
            (&error["code"], &error["status"]),
            (&json!("validation_failed"), &json!(422))
        );
        assert!(results[at].get("message").is_none(), "{error}");
        error["errors"][0]["pointer"].as_str().expect("a pointer")
    };
    assert_eq!(
        [1, 2, 3, 4, 7].map(pointer),
        ["", "/extra", "/data/thing1/value", "/page", "/touser"]
    );
    let first = &results[0]["message"];
    assert_eq!(
        (&first["reference"], &first["metadata"]),
        (&json!("first"), &json!({"n": 1}))
    );
    assert_eq!(results[5]["message"]["dry_run"], true);
    assert_eq!(results[6]["message"]["status"], "scheduled");
    let sent = tenant.wait_ended(first).await;
    assert_eq!(sent["status"], "sent");
    let listed = format!("/v1/apps/{APP}/messages");
    let listed = tenant.client.get(&listed).await.expect(200);
    assert_eq!(listed["data"].as_array().map(Vec::len), Some(2));
}

async fn a_batch_has_1_to_1000_messages(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let dry = message_with("o1", json!({"dry_run": true}));
    for count in [0, 1001] {
        let refused = batch(&tenant, &vec![dry.clone(); count]).await;
        let refused = refused.problem(422, "validation_failed");
        assert_eq!(refused["errors"][0]["pointer"], "/messages");
    }
    for wrong in [
        json!({}),
        json!({"messages": {}}),
        json!({"messages": [], "more": 1}),
    ] {
        let refused = tenant.client.post(&path(), &wrong).await;
        refused.problem(422, "validation_failed");
    }
    let unknown = "/v1/apps/wx00000000000000ff/messages/batch";
    for messages in [json!([dry]), json!(["no object"])] {
        let body = json!({ "messages": messages });
        let refused = tenant.client.post(unknown, &body).await;
        refused.problem(404, "not_found");
    }
}

/// A request with a JSON body that is padded with spaces to `bytes` bytes.
async fn padded(tenant: &Tenant, path: &str, body: &Value, bytes: usize) -> RequestBuilder {
    let mut text = body.to_string();
    text.push_str(&" ".repeat(bytes - text.len()));
    let request = tenant.client.request(Method::POST, path).await;
    request
        .header("Content-Type", "application/json")
        .body(text)
}

/// The status line of the answer to a request that announces a body of `bytes` bytes and sends only the head.
async fn announced(world: &World, tenant: &Tenant, bytes: usize) -> String {
    let (path, token) = (path(), tenant.client.token().await);
    let address = world.url(0).trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: wxgate.test\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {bytes}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("room");
    let mut line = String::new();
    let mut answer = BufReader::new(stream);
    tokio::time::timeout(Duration::from_secs(20), answer.read_line(&mut line))
        .await
        .expect("an answer before the body")
        .expect("a line");
    line.trim_end().to_owned()
}

async fn a_large_batch_is_accepted_and_a_larger_one_refused(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let body = json!({"messages": [message("o1")]});
    let largest = padded(&tenant, &path(), &body, 8 * MEBIBYTE).await;
    assert_eq!(statuses(&results(finish(largest).await)), [202]);
    let refused = announced(&world, &tenant, 8 * MEBIBYTE + 1).await;
    assert_eq!(refused, "HTTP/1.1 413 Payload Too Large");
    let single = format!("/v1/apps/{APP}/messages");
    let too_large = padded(&tenant, &single, &message("o1"), MEBIBYTE + 1).await;
    finish(too_large).await.problem(413, "payload_too_large");
    tenant.wait_count(APP, "sent", 1).await;
}

async fn a_repeated_batch_gets_the_first_results(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let messages = [
        message("o1"),
        json!("no object"),
        message_with("o2", json!({"dry_run": true})),
        message("o3"),
    ];
    let first = keyed(&tenant, "news", &messages).await;
    assert_eq!(first.header("idempotent-replayed"), None);
    let first = first.expect(200);
    tenant.wait_count(APP, "sent", 2).await;

    let again = keyed(&tenant, "news", &messages).await;
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(again.expect(200), first, "as it was accepted");
    keyed(&tenant, "news", &messages[..1])
        .await
        .problem(422, "idempotency_key_reused");
    tenant
        .send_keyed(APP, "news", &message("o1"))
        .await
        .problem(422, "idempotency_key_reused");

    let hopeless = [json!("no object")];
    for replayed in [None, Some("true")] {
        let answer = keyed(&tenant, "hopeless", &hopeless).await;
        assert_eq!(answer.header("idempotent-replayed"), replayed);
        assert_eq!(statuses(&results(answer)), [422]);
    }
    assert_eq!(world.wechat().sent(APP).len(), 2);
}

async fn a_batch_is_accepted_as_far_as_the_quota_lasts(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let tenant = world.tenant("a").await;
    tenant.app_with(APP, json!({"daily_quota": 1})).await;
    tenant.send_and_wait(APP, &message("o1")).await;
    let short = message_with("o2", json!({"ttl": 3600}));
    let messages = [short, message("o3")];

    let results = results(batch(&tenant, &messages).await);

    assert_eq!(statuses(&results), [429, 202], "the second has time");
    assert_eq!(results[0]["error"]["code"], "quota_exhausted");
}

async fn many_messages_arrive(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let messages: Vec<_> = (0..1300).map(|n| message(&format!("o{n}"))).collect();
    // Concurrent requests, with more messages than one transaction accepts.
    let (whole, rest) = messages.split_at(1000);
    let parts = std::iter::once(whole).chain(rest.chunks(100));
    let answers = join_all(parts.map(|part| batch(&tenant, part))).await;
    let results = answers.into_iter().flat_map(results);
    let ids: HashSet<_> = results
        .map(|result| id(&result["message"]).to_owned())
        .collect();
    assert_eq!(ids.len(), 1300);
    let time = tenant.client.time();
    time.eventually("WeChat has all", || async {
        (world.wechat().sent(APP).len() == 1300).then_some(())
    })
    .await;
}

/// The errors of a batch are stored under the idempotency key for a day, so each message's share must be a few words.
async fn an_answer_does_not_outgrow_its_batch(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let bad_keys = |count: usize| {
        let data: serde_json::Map<_, _> =
            (0..count).map(|key| (key.to_string(), json!(0))).collect();
        json!({"touser": "o1", "template_id": "t", "data": data})
    };
    let one = results(keyed(&tenant, "one", &[bad_keys(100_000)]).await);
    let errors = one[0]["error"]["errors"].as_array().expect("errors");
    assert_eq!(errors.len(), 1, "{errors:?}");

    let many = keyed(&tenant, "many", &vec![bad_keys(50); 1000]).await;
    assert!(many.text.len() < MEBIBYTE, "{}", many.text.len());
    let many = results(many);
    let said = |result: &Value| result["error"]["errors"].as_array().expect("errors").len();
    assert!(
        many.iter()
            .all(|result| result["status"] == 422 && said(result) > 0)
    );
    assert!(many.iter().map(said).sum::<usize>() <= 2000);

    let long = json!({"touser": "o1", "template_id": "t", "k".repeat(100_000): 0});
    let long = keyed(&tenant, "long", &[long]).await;
    assert!(long.text.len() < 3_000, "{}", long.text.len());

    let scopes = json!({"name": "k", "scopes": vec!["x"; 100_000]});
    let refused = tenant.client.post("/v1/keys", &scopes).await;
    assert!(refused.text.len() < 3_000, "{}", refused.text.len());
    refused.problem(422, "validation_failed");
}

/// Parsers differ in which of two equal keys wins: the recipient that is checked might not be the one that is used.
async fn a_duplicate_field_is_refused_in_a_batch_too(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let twice = r#"{"touser": "o1", "touser": "o2", "template_id": "t", "data": {"thing1": {"value": "x"}}}"#;
    let send = async |path: String, body: String| {
        let request = tenant.client.request(Method::POST, &path).await;
        let request = request.header("Content-Type", "application/json");
        finish(request.body(body)).await
    };
    let alone = send(format!("/v1/apps/{APP}/messages"), twice.to_owned()).await;
    let alone = alone.problem(422, "validation_failed");
    let batch = send(path(), format!("{{\"messages\": [{twice}]}}")).await;
    assert_eq!(results(batch)[0]["error"]["errors"], alone["errors"]);
}
