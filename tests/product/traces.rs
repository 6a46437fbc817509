//! What a collector of traces is told, and what it is not.

use std::sync::{Arc, Mutex};

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, routing::post};
use reqwest::Method;
use tokio::{net::TcpListener, task::JoinSet};

use crate::world::{Mode, Running, SECRET, World, eventually, finish, free_port, message};

const APP: &str = "wx00000000000000a1";

both_modes!(a_request_goes_on_with_its_callers_trace_and_tells_no_secret);

/// Everything that was posted to a collector.
type Told = Arc<Mutex<Vec<u8>>>;

/// Starts a collector that ends with its set, and returns where it is and what it is told.
async fn collector() -> (JoinSet<()>, String, Told) {
    let told = Told::default();
    let take = async |State(told): State<Told>, headers: HeaderMap, body: Bytes| {
        assert_eq!(headers["content-type"], "application/x-protobuf");
        told.lock().expect("a lock").extend_from_slice(&body);
    };
    let routes = Router::new().route("/v1/traces", post(take));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("its address"));
    let serving = axum::serve(listener, routes.with_state(told.clone()));
    let mut server = JoinSet::new();
    server.spawn(async move { serving.await.expect("a collector") });
    (server, url, told)
}

fn holds(told: &Told, bytes: &[u8]) -> bool {
    let told = told.lock().expect("a lock");
    told.windows(bytes.len()).any(|window| window == bytes)
}

async fn a_request_goes_on_with_its_callers_trace_and_tells_no_secret(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let (_collector, url, told) = collector().await;
    let address = format!("127.0.0.1:{}", free_port());
    let mut command = world.wxgate(&["serve", "--listen", &address]);
    command
        .env("WXGATE_OTLP_ENDPOINT", &url)
        .env("WXGATE_PUBLIC_URL", "http://wxgate.test");
    let home = tempfile::tempdir().expect("a folder");
    let mut running = Running::start(command, home.path().join("log"));
    let base = format!("http://{address}");
    running.wait_ready(&base).await;
    let client = tenant.client.at(&base);

    let trace = [
        0x4b, 0xf9, 0x2f, 0x35, 0x77, 0xb3, 0x4d, 0xa6, 0xa3, 0xce, 0x92, 0x9d, 0x0e, 0x0e, 0x47,
        0x36,
    ];
    let named: String = trace
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<Vec<_>>()
        .concat();
    let path = format!("/v1/apps/{APP}/messages");
    let request = client.request(Method::POST, &path).await;
    let request = request
        .header("traceparent", format!("00-{named}-00f067aa0ba902b7-01"))
        .header("Prefer", "wait=20")
        .json(&message("oSecretReader"));
    let sent = finish(request).await.expect(200);
    let token = client.token().await;
    let drop_in = format!(
        "/cgi-bin/token?grant_type=client_credential&appid={APP}&secret={}",
        client.key().client_secret
    );
    finish(client.bare(Method::GET, &drop_in)).await.expect(200);

    eventually("the collector has both ends", || async {
        let all = ["http", "request", "intake", "send", "wechat", "accepted"];
        let id = sent["id"].as_str().expect("an id");
        let there = all.iter().chain([&id, &"/v1/apps/{appid}/messages"]);
        let mut there = there.map(|name| holds(&told, name.as_bytes()));
        (there.all(|held| held) && holds(&told, &trace)).then_some(())
    })
    .await;
    assert_eq!(running.terminate(), Some(0), "{}", running.said());
    for secret in [
        SECRET,
        token.as_str(),
        client.key().client_secret.as_str(),
        "oSecretReader",
        "access_token=",
        "Bearer",
    ] {
        assert!(!holds(&told, secret.as_bytes()), "{secret}");
    }
}
