//! The audit log: actors, actions, addresses, and the callers that may read the log.

use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{Key, Mode, SECRET, World, finish, id, run};

const APP: &str = "wx00000000000000a1";

both_modes!(
    every_change_is_in_the_audit_log,
    changes_of_webhooks_are_in_the_audit_log,
    failed_attempts_are_in_the_audit_log_and_limited,
    commands_are_in_the_audit_log,
    entries_are_filtered_and_paged,
);

fn actions(page: &Value) -> Vec<String> {
    let lines = page["data"].as_array().expect("data").iter();
    lines
        .map(|line| {
            let word = |name: &str| line[name].as_str().unwrap_or("-").to_owned();
            format!("{} {}", word("action"), word("outcome"))
        })
        .collect()
}

async fn every_change_is_in_the_audit_log(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("tea").await;
    let (client, operator) = (&tenant.client, world.operator());
    let new = json!({"name": "b", "scopes": ["apps:read"]});
    let key = client.post("/v1/keys", &new).await.expect(201);
    let key = key["client_id"].as_str().expect("an id");
    client.delete(&format!("/v1/keys/{key}")).await.expect(204);
    client.delete(&format!("/v1/keys/{key}")).await.expect(204);
    tenant.app(APP).await;
    let app = format!("/v1/apps/{APP}");
    client
        .patch(&app, &json!({"name": "leaf"}))
        .await
        .expect(200);
    client
        .post(&format!("{app}/verify"), &json!({}))
        .await
        .expect(200);
    let secret = json!({"secret": SECRET});
    client
        .put(&format!("{app}/secret"), &secret)
        .await
        .expect(200);
    client.delete(&app).await.expect(204);
    client.delete(&app).await.expect(404);
    let rate = json!({"limits": {"requests_per_second": 50_000}});
    let itself = format!("/v1/tenants/{}", tenant.id);
    operator.patch(&itself, &rate).await.expect(200);

    let log = client.get("/v1/audit").await.expect(200);
    let expected = [
        "tenant.update ok",
        "app.remove ok",
        "app.set_secret ok",
        "app.verify ok",
        "app.update ok",
        "app.register ok",
        "key.revoke ok",
        "key.create ok",
        "key.create ok",
        "tenant.create ok",
    ];
    assert_eq!(actions(&log), expected);
    let lines = log["data"].as_array().expect("data");
    for line in &lines[1..8] {
        assert_eq!(line["actor"], client.key().client_id.as_str(), "{line}");
        assert_eq!(line["address"], "127.0.0.1", "{line}");
        assert!(
            line["request_id"].is_string() && line["tenant_id"].is_null(),
            "{line}"
        );
        assert!(
            line["id"].as_str().expect("an id").starts_with("evt_"),
            "{line}"
        );
    }
    assert_eq!(lines[6]["target"], key);
    assert_eq!(
        (&lines[0]["actor"], &lines[0]["address"]),
        (&json!("operator"), &Value::Null)
    );
    assert!(!log.to_string().contains(SECRET));

    let all = operator.get("/v1/audit?limit=1").await.expect(200);
    let line = &all["data"][0];
    assert_eq!(line["actor"], operator.key().client_id.as_str());
    assert_eq!(
        (&line["tenant_id"], &line["address"]),
        (&json!(tenant.id), &json!("127.0.0.1"))
    );
}

async fn changes_of_webhooks_are_in_the_audit_log(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("tea").await;
    let client = &tenant.client;
    // No server listens at this URL, and the gateway makes one attempt for a test event.
    let new = json!({"url": "http://127.0.0.1:9/hook?key=hidden4711", "events": ["message.sent"]});
    let mut answers = Vec::new();
    for _ in 0..2 {
        let request = client.request(Method::POST, "/v1/webhooks").await;
        let request = request.header("Idempotency-Key", "hook").json(&new);
        answers.push(finish(request).await.expect(201));
    }
    assert_eq!(answers[0], answers[1], "made once");
    let hook = id(&answers[0]);
    let path = format!("/v1/webhooks/{hook}");
    let call = async |rest: &str, body: Value| {
        let answer = client.post(&format!("{path}{rest}"), &body).await;
        assert!(answer.status.is_success(), "{answer:?}");
        answer.body
    };
    let given_up = async || {
        let time = client.time();
        time.eventually("the test is given up", || async {
            let page = client.get(&format!("{path}/deliveries")).await.expect(200);
            (page["data"][0]["status"] == "failed").then_some(())
        })
        .await;
    };
    let changes = json!({"events": ["*"], "description": "d", "status": "enabled"});
    client.patch(&path, &changes).await.expect(200);
    call("/rotate-secret", json!({})).await;
    let told = call("/test", json!({})).await;
    let event = told["event_id"].as_str().expect("an event");
    given_up().await;
    call(&format!("/deliveries/{event}/redeliver"), json!({})).await;
    given_up().await;
    let since = json!({"since": "2020-01-01T00:00:00Z"});
    assert_eq!(call("/redeliver", since.clone()).await["redelivered"], 1);
    given_up().await;
    let before = json!({"since": "2020-01-01T00:00:00Z", "until": "2020-01-02T00:00:00Z"});
    assert_eq!(call("/redeliver", before).await["redelivered"], 0);
    client.delete(&path).await.expect(204);
    client.delete(&path).await.expect(404);
    client
        .post(&format!("{path}/redeliver"), &since)
        .await
        .expect(404);

    let about = format!("/v1/audit?target={hook}");
    let log = client.get(&about).await.expect(200);
    let lines = log["data"].as_array().expect("data");
    let said: Vec<_> = lines
        .iter()
        .map(|line| {
            assert_eq!(line["actor"], client.key().client_id.as_str(), "{line}");
            assert_eq!(line["address"], "127.0.0.1", "{line}");
            let detail = line["detail"].as_str().unwrap_or("-");
            // Compare the counts without the times.
            let detail = detail.split(" from ").next().unwrap_or_default();
            format!("{} {}: {detail}", line["action"], line["outcome"]).replace('"', "")
        })
        .collect();
    let redelivered = format!("webhook.redeliver ok: {event}");
    let expected = [
        "webhook.remove ok: -",
        "webhook.redeliver ok: 1 failed deliveries,",
        &redelivered,
        "webhook.test ok: -",
        "webhook.rotate_secret ok: -",
        "webhook.update ok: events *, description, enabled",
        "webhook.create ok: URL at http://127.0.0.1:9, events message.sent, no description",
    ];
    assert_eq!(said, expected);
    assert!(!log.to_string().contains("hidden4711"));
}

async fn failed_attempts_are_in_the_audit_log_and_limited(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("tea").await;
    let good = tenant.client.key().clone();
    tenant.client.fetch_token(None).await.expect(200);
    let wrong = world.anonymous().with_key(Key {
        client_secret: world.operator().key().client_secret.clone(),
        client_id: good.client_id.clone(),
    });
    let mut refused = 0;
    let limited = loop {
        let answer = wrong.fetch_token(None).await;
        if answer.status == 429 {
            break answer;
        }
        answer.expect(401);
        refused += 1;
        assert!(refused < 200, "failures are not limited");
    };
    assert_eq!(limited.expect(429)["error"], "rate_limited");
    assert!(
        (20..30).contains(&refused),
        "{refused} failures were answered"
    );

    // The limit spares keys that succeeded from this address before, and callers with a valid token.
    tenant.client.fetch_token(None).await.expect(200);
    tenant.client.get("/v1/apps").await.expect(200);
    world.anonymous().get("/healthz").await.expect(200);

    let path = format!("/v1/audit?action=token.issue&tenant_id={}", tenant.id);
    let by_operator = world.operator().get(&path).await.expect(200);
    // The secret belongs to the operator's key, so the attempts are in the operators' log and in no tenant's log.
    assert_eq!(actions(&by_operator), Vec::<String>::new());
    let tried = world
        .operator()
        .get("/v1/audit?action=token.issue")
        .await
        .expect(200);
    let lines = tried["data"].as_array().expect("data");
    assert_eq!(lines.len(), 10, "{tried}");
    assert_eq!(
        lines[0]["target"],
        world.operator().key().client_id.as_str()
    );
    assert_eq!(
        (&lines[0]["outcome"], &lines[0]["address"]),
        (&json!("refused"), &json!("127.0.0.1"))
    );

    let client = world.anonymous();
    let spoiled = async || {
        let request = client
            .bare(Method::GET, "/v1/apps")
            .bearer_auth("no.jwt.atall");
        finish(request).await
    };
    let mut refused = 0;
    while spoiled().await.status == 401 {
        refused += 1;
        assert!(refused < 1000, "bad tokens are not limited");
    }
    assert!(refused >= 120, "{refused}");
    spoiled().await.problem(429, "rate_limited");
    tenant.client.get("/v1/apps").await.expect(200);
}

async fn commands_are_in_the_audit_log(mode: Mode) {
    let world = World::start(mode).await;
    let wxgate = |arguments: &[&str]| run(world.wxgate(arguments)).expect(0).json();
    let tenant = wxgate(&["tenant", "create", "cli", "--json"]);
    let id = tenant["id"].as_str().expect("an id");
    let key = [
        "key",
        "create",
        "--tenant",
        id,
        "--scope",
        "audit:read",
        "--json",
    ];
    let key = wxgate(&key);
    wxgate(&[
        "key",
        "revoke",
        key["client_id"].as_str().expect("an id"),
        "--json",
    ]);
    wxgate(&["tenant", "suspend", id, "--json"]);
    let path = format!("/v1/audit?tenant_id={id}");
    let log = world.operator().get(&path).await.expect(200);
    let expected = [
        "tenant.update ok",
        "key.revoke ok",
        "key.create ok",
        "tenant.create ok",
    ];
    assert_eq!(actions(&log), expected);
    for line in log["data"].as_array().expect("data") {
        assert_eq!(
            (&line["actor"], &line["address"]),
            (&json!("cli"), &Value::Null)
        );
    }
    assert_eq!(log["data"][0]["detail"], "suspended");
}

async fn entries_are_filtered_and_paged(mode: Mode) {
    let world = World::start(mode).await;
    let (tenant, other) = (world.tenant("tea").await, world.tenant("coffee").await);
    let before = world.now();
    for _ in 0..5 {
        world.key_of(&tenant.id, &["apps:read"]).await;
    }
    let get = async |query: &str| tenant.client.get(&format!("/v1/audit?{query}")).await;
    let all = get("action=key.create").await.expect(200);
    assert_eq!(all["data"].as_array().expect("data").len(), 6);
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = get(&format!("action=key.create&limit=4{cursor}"))
            .await
            .expect(200);
        seen.extend(page["data"].as_array().expect("data").clone());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(Value::from(seen.clone()), all["data"]);
    let target = seen[0]["target"].as_str().expect("a target");
    let found = get(&format!("target={target}")).await.expect(200);
    assert_eq!(found["data"], json!([seen[0]]));
    let time = before.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
    let late = get(&format!("created_after={time}")).await.expect(200);
    assert_eq!(late["data"].as_array().expect("data").len(), 5);
    let early = get(&format!("created_before={time}")).await.expect(200);
    assert_eq!(actions(&early), ["key.create ok", "tenant.create ok"]);

    get(&format!("tenant_id={}", other.id))
        .await
        .problem(400, "invalid_request");
    get(&format!("tenant_id={}", tenant.id)).await.expect(200);
    get("actor=x").await.problem(400, "invalid_request");
}
