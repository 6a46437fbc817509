//! What a collector of traces gets, and what stays secret.

use std::sync::{Arc, Mutex};

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, routing::post};
use reqwest::Method;
use tokio::{net::TcpListener, task::JoinSet};

use crate::world::{Mode, SECRET, World, eventually, finish, message};

const APP: &str = "wx00000000000000a1";

both_modes!(a_request_continues_the_trace_of_its_caller_without_secrets);

/// A collector of traces, which runs until dropped.
pub(crate) struct Collector {
    pub(crate) url: String,
    told: Arc<Mutex<Vec<u8>>>,
    _server: JoinSet<()>,
}

impl Collector {
    pub(crate) async fn start() -> Self {
        let told = Arc::<Mutex<Vec<u8>>>::default();
        let take =
            async |State(told): State<Arc<Mutex<Vec<u8>>>>, headers: HeaderMap, body: Bytes| {
                assert_eq!(headers["content-type"], "application/x-protobuf");
                told.lock().expect("a lock").extend_from_slice(&body);
            };
        let routes = Router::new().route("/v1/traces", post(take));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let serving = axum::serve(listener, routes.with_state(told.clone()));
        let mut server = JoinSet::new();
        server.spawn(async move { serving.await.expect("a collector") });
        Self {
            url,
            told,
            _server: server,
        }
    }

    /// All bytes that the collector has received so far.
    pub(crate) fn told(&self) -> Vec<u8> {
        self.told.lock().expect("a lock").clone()
    }

    fn holds(&self, bytes: &[u8]) -> bool {
        self.told()
            .windows(bytes.len())
            .any(|window| window == bytes)
    }
}

async fn a_request_continues_the_trace_of_its_caller_without_secrets(mode: Mode) {
    let collector = Collector::start().await;
    let plan = World::plan(mode).own_process();
    let mut world = plan.traces_to(&collector.url).start().await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let client = &tenant.client;

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
        let mut there = there.map(|name| collector.holds(name.as_bytes()));
        (there.all(|held| held) && collector.holds(&trace)).then_some(())
    })
    .await;
    assert_eq!(world.terminate_replica(), Some(0));
    for secret in [
        SECRET,
        token.as_str(),
        client.key().client_secret.as_str(),
        "oSecretReader",
        "access_token=",
        "Bearer",
    ] {
        assert!(!collector.holds(secret.as_bytes()), "{secret}");
    }
}
