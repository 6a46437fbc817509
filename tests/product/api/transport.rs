//! How answers travel: compressed or not, by which version of HTTP, with and without a body.

use bytes::Bytes;
use reqwest::Method;
use serde_json::json;
use tokio::net::TcpStream;

use crate::world::{Answer, Client, Mode, World, finish};

const APP: &str = "wx00000000000000a1";

both_modes!(
    large_answers_are_compressed_except_those_with_secrets,
    http2_is_spoken_without_tls,
    a_head_is_a_get_without_its_body,
    cross_origin_requests_are_not_permitted,
);

/// Asks for a compressed answer; the client here decompresses nothing.
async fn compressed(client: &Client, method: Method, path: &str, coding: &str) -> Answer {
    let request = client.request(method, path).await;
    finish(request.header("Accept-Encoding", coding)).await
}

async fn large_answers_are_compressed_except_those_with_secrets(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    let client = &tenant.client;
    for n in 0..10 {
        let key = json!({"name": format!("key {n}"), "scopes": ["messages:send", "messages:read"]});
        client.post("/v1/keys", &key).await.expect(201);
    }
    let plain = client.get("/v1/keys").await;
    assert_eq!(plain.header("content-encoding"), None);
    for coding in ["gzip", "br"] {
        let packed = compressed(client, Method::GET, "/v1/keys", coding).await;
        assert_eq!(packed.header("content-encoding"), Some(coding));
        assert!(
            packed
                .header("vary")
                .is_some_and(|vary| vary.contains("accept-encoding"))
        );
        assert!(packed.text.len() < plain.text.len(), "{coding}");
    }
    // A list of one key fits into a packet.
    let small = compressed(client, Method::GET, "/v1/keys?limit=1", "gzip").await;
    assert_eq!(small.header("content-encoding"), None);

    // A secret beside a long text that the caller has chosen.
    let hook = json!({
        "url": format!("https://203.0.113.1/{}", "x".repeat(1900)), "events": ["*"],
    });
    let request = client.request(Method::POST, "/v1/webhooks").await;
    let hook = finish(request.header("Accept-Encoding", "gzip").json(&hook)).await;
    assert_eq!(hook.header("content-encoding"), None);
    assert!(hook.text.len() > 1900);
    hook.expect(201);
    let form = [("grant_type", "client_credentials")];
    let key = client.key();
    let request = client
        .bare(Method::POST, "/oauth/token")
        .basic_auth(&key.client_id, Some(&key.client_secret))
        .header("Accept-Encoding", "gzip")
        .form(&form);
    let token = finish(request).await;
    assert_eq!(token.header("content-encoding"), None);
    token.expect(200);
}

async fn http2_is_spoken_without_tls(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    let token = tenant.client.token().await;
    let address = world.url(0).strip_prefix("http://").expect("an address");
    let stream = TcpStream::connect(address).await.expect("a connection");
    let (sender, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    let url = world.url(0);
    let asking = async move {
        let mut sender: h2::client::SendRequest<Bytes> = sender.ready().await.expect("room");
        let mut answers = Vec::new();
        for n in 0..50 {
            let request = axum::http::Request::get(format!("{url}/v1/apps"))
                .version(axum::http::Version::HTTP_2)
                .header("authorization", format!("Bearer {token}"))
                .header("x-request-id", format!("stream-{n}"))
                .body(())
                .expect("a request");
            let (answer, _) = sender.send_request(request, true).expect("a stream");
            answers.push(answer);
            sender = sender.ready().await.expect("room for another");
        }
        for (n, answer) in answers.into_iter().enumerate() {
            let answer = answer.await.expect("an answer");
            assert_eq!(answer.status(), 200);
            assert_eq!(answer.headers()["x-request-id"], format!("stream-{n}"));
        }
    };
    let ((), ended) = futures::join!(asking, connection);
    ended.expect("a connection that ends well");
}

async fn a_head_is_a_get_without_its_body(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    for path in [
        "/v1/apps".to_owned(),
        format!("/v1/apps/{APP}"),
        "/openapi.json".to_owned(),
        "/healthz".to_owned(),
    ] {
        let got = tenant.client.get(&path).await;
        let asked = tenant.client.call(Method::HEAD, &path, None).await;
        assert_eq!(
            (asked.status.as_u16(), asked.text.as_str()),
            (200, ""),
            "{path}"
        );
        for name in ["content-type", "etag", "content-length"] {
            assert_eq!(asked.header(name), got.header(name), "{path} {name}");
        }
    }
    // HEAD permits no more than GET does.
    let other = world.key_of(&tenant.id, &["messages:send"]).await;
    let request = other.request(Method::HEAD, "/v1/apps").await;
    let refused = request.send().await.expect("an answer");
    assert_eq!(refused.status(), 403);
}

async fn cross_origin_requests_are_not_permitted(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    let request = tenant.client.request(Method::GET, "/v1/apps").await;
    let answer = finish(request.header("Origin", "https://pages.example")).await;
    let told = answer
        .headers
        .keys()
        .any(|name| name.as_str().starts_with("access-control"));
    assert!(!told, "{:?}", answer.headers);
    let preflight = tenant.client.bare(Method::OPTIONS, "/v1/apps");
    let preflight = preflight
        .header("Origin", "https://pages.example")
        .header("Access-Control-Request-Method", "GET");
    let refused = finish(preflight).await;
    assert_eq!(refused.header("access-control-allow-origin"), None);
    refused.problem(405, "invalid_request");
}
