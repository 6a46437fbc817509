//! Every endpoint that takes a credential counts failures by address, and still accepts good credentials meanwhile.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use simulator::{PushEvent, PushFormat, PushMode, PushSettings};

use crate::{
    drop_in::wechat_token,
    world::{Answer, Mode, TEMPLATE, World, finish, message},
};

const APP: &str = "wx00000000000000a1";
const TOKEN: &str = "gatewayTestToken01";

/// Only production mode has more than one replica.
mod a_key_proven_on_one_replica_is_proven_on_all {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn production() {
        super::a_key_proven_on_one_replica_is_proven_on_all().await;
    }
}

both_modes!(
    wrong_secrets_at_the_console_are_limited,
    bad_sessions_at_the_console_are_limited,
    bad_tokens_at_the_drop_in_surface_are_limited,
    unsigned_callbacks_are_limited,
    pass_through_calls_are_in_the_audit_log,
);

/// Reads a page: status, `Retry-After` and text. Pages have no problems in JSON, which [`finish`] expects.
async fn page(request: RequestBuilder) -> (u16, Option<String>, String) {
    let answer = request.send().await.expect("a page");
    assert!(answer.headers().contains_key("x-request-id"), "{answer:?}");
    let wait = answer.headers().get("retry-after");
    let wait = wait.and_then(|wait| wait.to_str().ok()).map(str::to_owned);
    let status = answer.status().as_u16();
    (status, wait, answer.text().await.expect("a page"))
}

fn sign_in(world: &World, secret: &str) -> RequestBuilder {
    let client = world.anonymous();
    let form = client.bare(Method::POST, "/console/sign-in");
    form.header("origin", world.url(0))
        .header("x-request-id", "sign-in-7")
        .form(&[("client_secret", secret)])
}

/// The number of refusals until `refused` returns false, which means that the rate limit answers instead.
async fn until_limited(mut refused: impl AsyncFnMut() -> bool) -> usize {
    let mut times = 0;
    while refused().await {
        times += 1;
        assert!(times < 1000, "failures are not limited");
    }
    times
}

async fn wrong_secrets_at_the_console_are_limited(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let tenant = world.tenant("tea").await;
    let good = &tenant.client.key().client_secret;
    let late = world.key_of(&tenant.id, &["apps:read"]).await;
    assert_eq!(page(sign_in(&world, good)).await.0, 303);
    // The secret has the right form, but the key is revoked.
    let path = format!("/v1/keys/{}", late.key().client_id);
    tenant.client.delete(&path).await.expect(204);
    let wrong = &late.key().client_secret;
    let times = until_limited(async || page(sign_in(&world, wrong)).await.0 == 401).await;
    assert!((20..30).contains(&times), "{times} failures were answered");
    let (status, wait, text) = page(sign_in(&world, wrong)).await;
    assert_eq!(status, 429, "{text}");
    let wait: u64 = wait.expect("Retry-After").parse().expect("seconds");
    assert!((1..=60).contains(&wait), "{wait}");
    assert!(text.contains("too many requests"), "{text}");

    // The failures count at the token endpoint too, and are logged. Keys that succeeded from this address still work.
    let elsewhere = world.anonymous().with_key(late.key().clone());
    let limited = elsewhere.fetch_token(None).await;
    assert_eq!(limited.expect(429)["error"], "rate_limited");
    assert_eq!(page(sign_in(&world, good)).await.0, 303);
    let log = tenant.client.get("/v1/audit?action=token.issue").await;
    let log = log.expect(200);
    let line = &log["data"][0];
    assert_eq!(
        [
            &line["outcome"],
            &line["address"],
            &line["target"],
            &line["request_id"]
        ],
        [
            "refused",
            "127.0.0.1",
            late.key().client_id.as_str(),
            "sign-in-7"
        ],
        "{log}"
    );
}

/// 25 bad secrets at each replica, then the good key, which is proven at one replica only.
async fn a_key_proven_on_one_replica_is_proven_on_all() {
    let world = World::plan(Mode::Production)
        .by_hand()
        .replicas(2)
        .start()
        .await;
    let tenant = world.tenant("tea").await;
    let late = world.key_of(&tenant.id, &["apps:read"]).await;
    assert!(tenant.client.fetch_token(None).await.status.is_success());
    let path = format!("/v1/keys/{}", late.key().client_id);
    tenant.client.delete(&path).await.expect(204);
    for replica in [0, 1] {
        let wrong = late.at(world.url(replica)).with_key(late.key().clone());
        let mut statuses = Vec::new();
        for _ in 0..25 {
            statuses.push(wrong.fetch_token(None).await.status.as_u16());
        }
        assert_eq!(statuses.last(), Some(&429), "{statuses:?}");
    }
    let at = |replica| {
        let good = world.at(replica, &tenant).client;
        async move { good.fetch_token(None).await.status.as_u16() }
    };
    assert_eq!([at(0).await, at(1).await], [200, 200]);
    // A key without an earlier success from this address is refused.
    let new = world.key_of(&tenant.id, &["apps:read"]).await;
    assert_eq!(new.at(world.url(1)).fetch_token(None).await.status, 429);
}

async fn bad_sessions_at_the_console_are_limited(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let front = |cookie: &str| {
        let client = world.anonymous();
        let request = client.bare(Method::GET, "/console");
        page(request.header("cookie", format!("wxgate_console={cookie}")))
    };
    let times = until_limited(async || front("no.jwt.atall").await.0 == 303).await;
    assert!(times >= 120, "{times}");
    let (status, wait, _) = front("no.jwt.atall").await;
    assert_eq!(status, 429);
    assert!(wait.is_some());
    let good = world.operator().session().await;
    assert_eq!(front(&good).await.0, 200);
}

async fn bad_tokens_at_the_drop_in_surface_are_limited(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let tenant = world.tenant("tea").await;
    tenant.app(APP).await;
    let good = wechat_token(&tenant.client, APP).await;
    let send = async |token: &str| {
        let path = format!("/cgi-bin/message/subscribe/send?access_token={token}");
        let request = tenant.client.bare(Method::POST, &path);
        let answer = finish(request.json(&message("o1"))).await.expect(200);
        answer["errcode"].as_i64().expect("a code")
    };
    let times = until_limited(async || send("no.jwt.atall").await == 40001).await;
    assert!(times >= 120, "{times}");
    // SDKs do not answer this code with a fetch of another token.
    assert_eq!(send("no.jwt.atall").await, 45011);
    assert_eq!(send(&good).await, 0);
    let bearer = tenant
        .client
        .bare(Method::GET, "/v1/apps")
        .bearer_auth("no");
    finish(bearer).await.problem(429, "rate_limited");
}

async fn unsigned_callbacks_are_limited(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let tenant = world.tenant("tea").await;
    let settings = json!({"callback_token": TOKEN});
    tenant.app_with(APP, settings).await;
    let push = PushSettings {
        url: format!("{}/callbacks/{APP}", world.url(0)),
        token: TOKEN.into(),
        aes_key: None,
        mode: PushMode::Plain,
        format: PushFormat::Json,
        receipts: false,
    };
    let wechat = world.wechat();
    wechat.change_app(APP, |app| app.push = Some(push));
    let post = async |query: &str| -> Answer {
        let letter = wechat
            .letter(APP, &PushEvent::delivered("o1", TEMPLATE, 1))
            .expect("a letter");
        let query = if query.is_empty() {
            &letter.query
        } else {
            query
        };
        let client = world.anonymous();
        let request = client.bare(Method::POST, &format!("/callbacks/{APP}?{query}"));
        finish(request.body(letter.body.clone())).await
    };
    let forged = "signature=0&timestamp=1714036504&nonce=1";
    let mut turn = 0;
    let times = until_limited(async || {
        turn += 1;
        // The limit is the same for all paths, queries and signatures.
        let answer = match turn % 3 {
            0 => post("nonsense").await,
            1 => post(forged).await,
            _ => {
                let path = format!("/callbacks/wx00000000000000ff?{forged}&echostr=1");
                world.anonymous().get(&path).await
            }
        };
        answer.status == 403
    })
    .await;
    assert!(times >= 120, "{times}");
    post(forged).await.problem(429, "rate_limited");
    let taken = post("").await;
    assert_eq!(
        (taken.status.as_u16(), taken.text.as_str()),
        (200, "success")
    );
}

async fn pass_through_calls_are_in_the_audit_log(mode: Mode) {
    let mut world = World::start(mode).await;
    let tenant = world.tenant("tea").await;
    tenant.app(APP).await;
    let token = wechat_token(&tenant.client, APP).await;
    let call = async |method: Method, path: &str| {
        let path = format!("{path}?access_token={token}");
        let request = tenant.client.bare(method, &path);
        let request = request
            .header("x-request-id", "menu-7")
            .body("{\"cgi_path\":\"/x\"}");
        finish(request).await.expect(200)
    };
    call(Method::GET, "/wxaapi/newtmpl/gettemplate").await;
    call(Method::POST, "/cgi-bin/openapi/quota/get").await;
    world.wechat_goes_away().await;
    call(Method::POST, "/cgi-bin/menu/create").await;
    world.wechat_comes_back().await;
    let log = tenant.client.get("/v1/audit?action=wechat.call").await;
    let log = log.expect(200);
    let lines = log["data"].as_array().expect("data");
    let outcomes: Vec<_> = lines.iter().map(|line| &line["outcome"]).collect();
    assert_eq!(outcomes, ["refused", "ok"], "reading is not on record");
    for (line, path) in lines
        .iter()
        .zip(["/cgi-bin/menu/create", "/cgi-bin/openapi/quota/get"])
    {
        let detail = line["detail"].as_str().unwrap_or_default();
        assert!(detail.starts_with(path), "{line}");
        assert_eq!(line["actor"], tenant.client.key().client_id.as_str());
        assert_eq!(
            (&line["target"], &line["address"], &line["request_id"]),
            (&json!(APP), &json!("127.0.0.1"), &json!("menu-7"))
        );
    }
    assert_ne!(lines[0]["id"], Value::Null);
}
