//! A stop of the real program: waiting requests are answered, and so are requests that arrive meanwhile.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use simulator::{Effect, Fault};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    drop_in::wechat_token,
    world::{Mode, Tenant, World, eventually, finish, message, message_with, until},
};

const APP: &str = "wx00000000000000a1";
const OTHER: &str = "wx00000000000000b2";
const SUBSCRIBE: &str = "/cgi-bin/message/subscribe/send";

both_modes!(
    waiting_requests_are_answered_at_a_stop,
    waiting_drop_in_calls_are_answered_at_a_stop,
    requests_during_the_grace_period_are_answered,
);

async fn waiting(tenant: &Tenant, message: &Value) -> RequestBuilder {
    let path = format!("/v1/apps/{APP}/messages");
    let request = tenant.client.request(Method::POST, &path).await;
    request.header("prefer", "wait=30").json(message)
}

/// One request waits for a message that is not due, another for a message that WeChat has and does not answer.
async fn waiting_requests_are_answered_at_a_stop(mode: Mode) {
    let mut world = World::plan(mode).own_process().start().await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let hung = Fault::next(1, Effect::Hang { acted: true });
    world.wechat().add_fault(hung.for_path(SUBSCRIBE));
    let in_an_hour = (world.now() + Duration::from_hours(1)).to_rfc3339();
    let later = waiting(&tenant, &message_with("o1", json!({"send_at": in_an_hour}))).await;
    let sending = waiting(&tenant, &message("o2")).await;
    let wechat = world.wechat();
    let stop = async {
        tenant.wait_count(APP, "scheduled", 1).await;
        until("WeChat has the message", || wechat.sent(APP).len() == 1).await;
        world.terminate_oldest().await
    };
    let (later, sending, code) = tokio::join!(finish(later), finish(sending), stop);
    assert_eq!(later.expect(202)["status"], "scheduled");
    let sending = sending.expect(202);
    assert_eq!(sending["status"], "sending");
    assert_eq!(code, Some(0));

    world.add_replica(true).await;
    let ended = world.at(0, &tenant).read(&sending).await;
    assert_eq!(ended["status"], "uncertain", "it was recorded: {ended}");
}

/// One request's message waits for its next attempt; the other's message is at WeChat, which answers late.
async fn waiting_drop_in_calls_are_answered_at_a_stop(mode: Mode) {
    let mut world = World::plan(mode).own_process().start().await;
    let tenant = world.tenant("a").await;
    let wechat = world.wechat();
    let busy = Effect::Errcode {
        errcode: -1,
        errmsg: None,
    };
    wechat.add_fault(Fault::always(busy).for_path(SUBSCRIBE).for_app(APP));
    let mut paths = Vec::new();
    for appid in [APP, OTHER] {
        tenant.app(appid).await;
        let token = wechat_token(&tenant.client, appid).await;
        paths.push(format!("{SUBSCRIBE}?access_token={token}"));
    }
    wechat.change_app(OTHER, |app| app.latency_ms = Some(2000));
    let call = |path: &str, openid: &str| {
        let request = tenant.client.bare(Method::POST, path);
        finish(request.body(message(openid).to_string()))
    };
    let stop = async {
        let busy = || wechat.app_stats(APP).total(SUBSCRIBE) > 0;
        until("WeChat was asked", busy).await;
        let taken = || wechat.sent(OTHER).len() == 1;
        until("WeChat has the other", taken).await;
        world.terminate_oldest().await
    };
    let calls = (call(&paths[0], "o1"), call(&paths[1], "o2"));
    let (put_off, taken, code) = tokio::join!(calls.0, calls.1, stop);
    assert_eq!(taken.expect(200)["errcode"], 0);
    let put_off = put_off.expect(200);
    assert_eq!(put_off["errcode"], -1, "{put_off}");
    assert_eq!(code, Some(0));

    world.add_replica(true).await;
    let tenant = world.at(0, &tenant);
    let all = tenant.all(APP).await;
    assert_eq!(all[0]["status"], "canceled", "{all:?}");
    assert_eq!(tenant.all(OTHER).await[0]["status"], "sent");
}

/// A load balancer that has not read `/readyz` yet still sends requests: by the connections that it has, HTTP/1.1 and
/// HTTP/2, and by new ones.
async fn requests_during_the_grace_period_are_answered(mode: Mode) {
    let mut world = World::plan(mode).own_process().grace(4).start().await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let url = world.url(0).to_owned();
    let address = url.trim_start_matches("http://").to_owned();
    let mut kept = TcpStream::connect(&address).await.expect("a connection");
    assert!(!ask_again(&mut kept).await.contains("connection: close"));
    let idle = TcpStream::connect(&address).await.expect("a connection");
    let stream = TcpStream::connect(&address).await.expect("a connection");
    let (mut streams, http2) = h2::client::handshake(stream).await.expect("HTTP/2");
    let late = waiting(
        &tenant,
        &message_with(
            "o1",
            json!({"send_at": (world.now() + Duration::from_hours(1)).to_rfc3339()}),
        ),
    )
    .await;

    let wechat = world.wechat();
    let stop = world.terminate_oldest();
    let visitors = async {
        let http = new_connections();
        let ready = format!("{url}/readyz");
        eventually("it is not ready", || {
            let asked = http.get(&ready).send();
            // The gateway answers each of these requests.
            async { (asked.await.expect("an answer").status() == 503).then_some(()) }
        })
        .await;
        let answer = http.get(&ready).send().await.expect("an answer");
        let told = answer.text().await.expect("a body");
        assert!(told.contains("this replica is stopping"), "{told}");
        assert!(ask_again(&mut kept).await.contains("connection: close"));
        assert_eq!(get(&mut streams, &url).await, 200);
        assert_eq!(finish(late).await.expect(202)["status"], "scheduled");
        tenant.send(APP, &message("o2")).await;
        until("it is sent", || wechat.sent(APP).len() == 1).await;
    };
    let (code, (), http2) = tokio::join!(stop, visitors, http2);
    assert_eq!(code, Some(0));
    assert!(http2.is_ok(), "it ends by GOAWAY: {http2:?}");
    assert!(TcpStream::connect(&address).await.is_err());
    drop((idle, streams));
}

/// A client that makes a connection for each request.
fn new_connections() -> Client {
    let builder = Client::builder().no_proxy().pool_max_idle_per_host(0);
    builder
        .timeout(Duration::from_secs(20))
        .build()
        .expect("a client")
}

/// Makes one request on a connection that stays open. Returns the answer in lower case.
async fn ask_again(stream: &mut TcpStream) -> String {
    let request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.write_all(request).await.expect("a connection");
    let mut answer = Vec::new();
    while !answer.ends_with(b"}") {
        let read = stream.read_buf(&mut answer).await.expect("an answer");
        assert!(read > 0, "cut after {answer:?}");
    }
    String::from_utf8(answer).expect("text").to_lowercase()
}

async fn get(streams: &mut h2::client::SendRequest<Bytes>, url: &str) -> u16 {
    let request = axum::http::Request::get(format!("{url}/healthz"));
    let request = request.body(()).expect("a request");
    let mut ready = streams.clone().ready().await.expect("room");
    let (answer, _) = ready.send_request(request, true).expect("a stream");
    answer.await.expect("an answer").status().as_u16()
}
