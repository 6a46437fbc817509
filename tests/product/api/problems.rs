//! Requests that the gateway cannot serve: each gets its problem. The client of these tests asserts for every answer
//! that a problem has its form, its `X-Request-Id` and, with status 429 or 503, its `Retry-After`.

use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{Mode, Tenant, World, finish, message};

const APP: &str = "wx00000000000000a1";

both_modes!(
    missing_resources_and_unreadable_bodies_are_problems,
    a_valid_request_id_of_the_caller_is_kept,
    a_problem_lists_every_invalid_field_of_a_message,
    a_rate_limited_caller_learns_when_to_retry,
    forbidden_requests_count_against_the_rate_limit,
    lists_refuse_invalid_queries,
);

async fn missing_resources_and_unreadable_bodies_are_problems(mode: Mode) {
    let world = World::start(mode).await;
    let Tenant { client, .. } = world.tenant("a").await;
    let path = "/v1/apps";
    let json = |body: &str| {
        let body = body.to_owned();
        let client = client.clone();
        async move {
            let request = client.request(Method::POST, path).await;
            finish(
                request
                    .header("Content-Type", "application/json")
                    .body(body),
            )
            .await
        }
    };

    client.get("/v1/nothing").await.problem(404, "not_found");
    client.get("/nothing").await.problem(404, "not_found");
    let wrong_method = client.put("/v1/apps", &json!({})).await;
    assert!(wrong_method.header("allow").is_some(), "{wrong_method:?}");
    wrong_method.problem(405, "invalid_request");

    json("{\"appid\": ").await.problem(400, "invalid_request");
    json("").await.problem(400, "invalid_request");
    let unknown =
        json("{\"appid\": \"wx00000000000000a1\", \"secret\": \"s\", \"colour\": 1}").await;
    let unknown = unknown.problem(422, "validation_failed");
    assert_eq!(unknown["errors"][0]["pointer"], "/colour");
    let wrong_type = json("{\"appid\": 7, \"secret\": \"s\"}")
        .await
        .problem(422, "validation_failed");
    assert_eq!(wrong_type["errors"][0]["pointer"], "/appid");

    for field in ["kind", "token_mode", "grant_policy"] {
        for value in ["1", "true", "{}"] {
            let body = format!(
                "{{\"appid\": \"wx00000000000000a1\", \"secret\": \"s\", \"{field}\": {value}}}"
            );
            let no_word = json(&body).await.problem(422, "validation_failed");
            assert_eq!(no_word["errors"][0]["pointer"], format!("/{field}"));
        }
    }

    let text = client
        .request(Method::POST, path)
        .await
        .header("Content-Type", "text/plain")
        .body("{}");
    finish(text).await.problem(415, "unsupported_media_type");

    let large = format!("{{\"name\": \"{}\"}}", "x".repeat(1024 * 1024));
    json(&large).await.problem(413, "payload_too_large");
}

async fn a_valid_request_id_of_the_caller_is_kept(mode: Mode) {
    let world = World::start(mode).await;
    let nobody = world.anonymous();
    let answer = |id: &'static str| {
        let request = nobody
            .bare(Method::GET, "/v1/apps")
            .header("X-Request-Id", id);
        async move { finish(request).await }
    };
    let sane = answer("order-42.try_1").await;
    assert_eq!(sane.header("x-request-id"), Some("order-42.try_1"));
    assert_eq!(sane.body["instance"], "urn:request:order-42.try_1");
    let strange = answer("<script>").await;
    assert_ne!(strange.header("x-request-id"), Some("<script>"));
    let (first, second) = (nobody.get("/healthz").await, nobody.get("/healthz").await);
    assert_ne!(first.header("x-request-id"), second.header("x-request-id"));
}

async fn a_problem_lists_every_invalid_field_of_a_message(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let path = format!("/v1/apps/{APP}/messages");
    let wrong = json!({
        "touser": "", "template_id": "t", "url": "https://example.com", "ttl": 0,
        "data": {"thing1": {"value": "x".repeat(21)}, "number2": {"value": "two"}, "thing3": "bare"},
    });

    let problem = tenant
        .client
        .post(&path, &wrong)
        .await
        .problem(422, "validation_failed");
    let mut pointers: Vec<&str> = problem["errors"]
        .as_array()
        .expect("errors")
        .iter()
        .map(|error| error["pointer"].as_str().unwrap_or_default())
        .collect();
    pointers.sort_unstable();
    assert_eq!(
        pointers,
        [
            "/data/number2/value",
            "/data/thing1/value",
            "/data/thing3",
            "/touser",
            "/ttl",
            "/url"
        ]
    );
    assert!(
        problem["errors"]
            .as_array()
            .unwrap()
            .iter()
            .all(|error| error["detail"] != ""),
        "every place says its rule: {problem}"
    );
    assert_eq!(
        world
            .wechat()
            .stats()
            .total("/cgi-bin/message/subscribe/send"),
        0
    );
    let listed = tenant.client.get(&path).await.expect(200);
    assert_eq!(listed, json!({"data": [], "next_cursor": null}));
}

async fn a_rate_limited_caller_learns_when_to_retry(mode: Mode) {
    let world = World::start(mode).await;
    let hasty = world
        .tenant_with("hasty", json!({"requests_per_second": 1}))
        .await;
    let calm = world.tenant("calm").await;
    hasty.client.token().await;

    let answers = futures::future::join_all((0..40).map(|_| hasty.client.get("/v1/apps"))).await;
    let refused: Vec<_> = answers
        .iter()
        .filter(|answer| answer.status == 429)
        .collect();
    assert!(
        !refused.is_empty(),
        "40 requests at once pass a limit of one a second"
    );
    assert!(
        answers.iter().any(|answer| answer.status == 200),
        "a burst is allowed"
    );
    for answer in &answers {
        assert!(answer.header("ratelimit").is_some(), "{answer:?}");
        assert!(answer.header("ratelimit-policy").is_some(), "{answer:?}");
    }
    let code = refused.first().map(|answer| answer.body["code"].clone());
    assert_eq!(code, Some(Value::from("rate_limited")));
    calm.client.get("/v1/apps").await.expect(200);
}

async fn forbidden_requests_count_against_the_rate_limit(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let hasty = world
        .tenant_with("hasty", json!({"requests_per_second": 1}))
        .await;
    let reader = world.key_of(&hasty.id, &["apps:read"]).await;
    // Ten requests may come at once.
    for _ in 0..10 {
        let refused = reader.get("/v1/keys").await;
        assert!(refused.header("ratelimit").is_some(), "{refused:?}");
        assert!(refused.header("ratelimit-policy").is_some(), "{refused:?}");
        refused.problem(403, "insufficient_scope");
    }
    let refused = reader.get("/v1/keys").await;
    refused.problem(429, "rate_limited");
    let same_tenant = hasty.client.get("/v1/apps").await;
    same_tenant.problem(429, "rate_limited");
}

async fn lists_refuse_invalid_queries(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    tenant.send_and_wait(APP, &message("o1")).await;
    for query in [
        "limit=0",
        "limit=201",
        "limit=x",
        "cursor=nonsense",
        "colour=red",
        "status=lost",
        "created_after=today",
    ] {
        let path = format!("/v1/apps/{APP}/messages?{query}");
        tenant
            .client
            .get(&path)
            .await
            .problem(400, "invalid_request");
    }
}
