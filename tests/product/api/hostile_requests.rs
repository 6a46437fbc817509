//! Hostile use of connections, bodies and headers by one client does not affect other clients.

use std::time::Duration;

use gateway::ClientTimeouts;
use reqwest::Method;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, interval, timeout},
};

use crate::world::{Answer, Mode, World, finish};

both_modes!(
    a_connection_outlives_an_early_answer,
    half_open_requests_do_not_affect_other_clients,
    a_slow_head_ends_its_connection,
    a_slow_body_is_refused,
    a_body_that_is_too_large_is_refused_before_it_is_sent,
    a_form_that_is_too_large_is_refused_as_oauth_has_it,
    json_that_is_too_deep_is_refused,
    other_content_types_are_refused,
    pages_forbid_content_of_other_origins,
    a_client_cannot_choose_its_address,
);

/// A new connection to the first gateway.
pub(crate) async fn connect(world: &World) -> TcpStream {
    let address = world.url(0).trim_start_matches("http://").to_owned();
    TcpStream::connect(address).await.expect("a connection")
}

/// Hundreds of requests of which only a part of the head or the body ever arrives.
async fn half_open_requests_do_not_affect_other_clients(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("tea").await;
    let mut held = Vec::new();
    let starts: [&[u8]; 3] = [
        b"POST /v1/apps HTTP/1.1\r\nHost: x\r\nX-Slow: ",
        b"POST /oauth/token HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 900\r\n\r\ngrant",
        b"PRI * HTTP/2.0\r\n\r\nSM",
    ];
    for number in 0..300 {
        let mut stream = connect(&world).await;
        stream
            .write_all(starts[number % starts.len()])
            .await
            .expect("a part of a request");
        held.push(stream);
    }
    let began = Instant::now();
    for _ in 0..20 {
        tenant.client.get("/v1/apps").await.expect(200);
    }
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    drop(held);
}

/// Reads until the server closes the connection, while the client sends a byte every 50 ms.
async fn drip(stream: TcpStream) -> String {
    let (mut read, mut write) = stream.into_split();
    let mut said = Vec::new();
    let drops = async {
        let mut ticks = interval(Duration::from_millis(50));
        while write.write_all(b"x").await.is_ok() {
            ticks.tick().await;
        }
        // The server has closed the connection; the other branch still reads what the server sent.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        // A connection that is cut while bytes are in transit ends with an error.
        _ = read.read_to_end(&mut said) => {}
        () = drops => unreachable!(),
    }
    String::from_utf8_lossy(&said).into_owned()
}

async fn a_slow_head_ends_its_connection(mode: Mode) {
    let patience = ClientTimeouts {
        silence: Duration::from_millis(300),
        head: Duration::from_millis(600),
        ..ClientTimeouts::default()
    };
    let world = World::plan(mode).patience(patience).start().await;
    let tenant = world.tenant("tea").await;
    let starts: [(&[u8], Duration); 3] = [
        (
            b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ",
            patience.head,
        ),
        (b"PRI * HTTP/2.0\r\n\r\nS", patience.silence),
        (b"", patience.silence),
    ];
    for (start, least) in starts {
        let began = Instant::now();
        let mut stream = connect(&world).await;
        stream.write_all(start).await.expect("a part of a head");
        let said = if start.starts_with(b"GET") {
            drip(stream).await
        } else {
            let mut said = String::new();
            let _ = stream.read_to_string(&mut said).await;
            said
        };
        assert!(!said.starts_with("HTTP/1.1 2"), "{said}");
        let took = began.elapsed();
        assert!(took >= least, "{start:?} was cut off after {took:?}");
        assert!(took < Duration::from_secs(20), "{start:?}: {took:?}");
    }
    // A head that arrives in pieces within the time limit is answered.
    let mut stream = connect(&world).await;
    for piece in ["GET /healthz HT", "TP/1.1\r\nHost: x\r\n", "\r\n"] {
        stream.write_all(piece.as_bytes()).await.expect("a piece");
    }
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200");
    tenant.client.get("/v1/apps").await.expect(200);
}

async fn a_slow_body_is_refused(mode: Mode) {
    let patience = ClientTimeouts {
        body: Duration::from_millis(500),
        ..ClientTimeouts::default()
    };
    let world = World::plan(mode).patience(patience).start().await;
    let token = world.tenant("tea").await.client.token().await;
    let json = "Content-Type: application/json\r\n";
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let bearer = format!("{json}Authorization: Bearer {token}\r\n");
    for (path, fields) in [
        ("/v1/apps", &*bearer),
        ("/v1/apps/wx00000000000000a1/messages", &bearer),
        (
            "/callbacks/wx00000000000000a1?signature=0&timestamp=1&nonce=1",
            json,
        ),
        ("/oauth/token", form),
    ] {
        let mut stream = connect(&world).await;
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\n{fields}Content-Length: 4000\r\n\r\n{{\"a\": \""
        );
        stream.write_all(head.as_bytes()).await.expect("a head");
        let said = timeout(Duration::from_secs(20), drip(stream)).await;
        let said = said.expect("an answer in time");
        assert!(said.starts_with("HTTP/1.1 408 "), "{path}: {said}");
        let member = if path == "/oauth/token" {
            "\"error\""
        } else {
            "\"code\""
        };
        assert!(
            said.contains(&format!("{member}:\"invalid_request\"")),
            "{path}: {said}"
        );
    }
}

async fn a_body_that_is_too_large_is_refused_before_it_is_sent(mode: Mode) {
    const HUGE: usize = 100 * 1024 * 1024;
    let world = World::start(mode).await;
    let token = world.tenant("tea").await.client.token().await;
    let head = |length: &str| {
        format!(
            "POST /v1/apps HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n{length}\r\n\r\n"
        )
    };
    // With an announced length, the answer comes before any byte of the body.
    let mut stream = connect(&world).await;
    let announced = head(&format!("Content-Length: {HUGE}"));
    stream
        .write_all(announced.as_bytes())
        .await
        .expect("a head");
    let mut answer = vec![0; 16];
    stream.read_exact(&mut answer).await.expect("an answer");
    assert!(
        answer.starts_with(b"HTTP/1.1 413"),
        "{}",
        String::from_utf8_lossy(&answer)
    );

    // A route that reads no body ignores the length.
    let mut stream = connect(&world).await;
    let unread = announced.replace("POST", "GET");
    stream.write_all(unread.as_bytes()).await.expect("a head");
    stream.read_exact(&mut answer).await.expect("an answer");
    assert!(answer.starts_with(b"HTTP/1.1 200"));

    // Without an announced length, the server cuts the connection long before the end of the body.
    let mut stream = connect(&world).await;
    stream
        .write_all(head("Transfer-Encoding: chunked").as_bytes())
        .await
        .expect("a head");
    let piece = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    let mut sent = 0;
    while sent < HUGE && stream.write_all(piece.as_bytes()).await.is_ok() {
        sent += piece.len();
    }
    assert!(sent < HUGE / 4, "{sent} bytes were taken");
}

async fn a_form_that_is_too_large_is_refused_as_oauth_has_it(mode: Mode) {
    let world = World::start(mode).await;
    let mut stream = connect(&world).await;
    let head = "POST /oauth/token HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 1048577\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("a head");
    let mut said = String::new();
    stream.read_to_string(&mut said).await.expect("an answer");
    assert!(said.starts_with("HTTP/1.1 413 "), "{said}");
    assert!(said.contains("\"error\":\"invalid_request\""), "{said}");
}

async fn json_that_is_too_deep_is_refused(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("tea").await;
    for open in ["[", "{\"a\":"] {
        let deep = open.repeat(100_000);
        let metadata = format!("{{\"metadata\":{deep}");
        for body in [deep, metadata] {
            for path in [
                "/v1/apps",
                "/v1/keys",
                "/v1/apps/wx00000000000000a1/messages",
            ] {
                let request = tenant.client.request(Method::POST, path).await;
                let request = request
                    .header("content-type", "application/json")
                    .body(body.clone());
                let answer: Answer = finish(request).await;
                assert!([400, 422].contains(&answer.status.as_u16()), "{answer:?}");
            }
        }
    }
    tenant.client.get("/v1/apps").await.expect(200);
}

async fn other_content_types_are_refused(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("tea").await;
    for content_type in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "text/json",
    ] {
        let request = tenant.client.request(Method::POST, "/v1/keys").await;
        let body = r#"{"name":"a","scopes":["apps:read"]}"#;
        let answer = finish(request.header("content-type", content_type).body(body)).await;
        answer.problem(415, "unsupported_media_type");
    }
    let json = world
        .anonymous()
        .bare(Method::POST, "/oauth/token")
        .header("content-type", "application/json");
    let answer = finish(json.body(r#"{"grant_type":"client_credentials"}"#)).await;
    assert_eq!(answer.expect(400)["error"], "invalid_request");
}

async fn pages_forbid_content_of_other_origins(mode: Mode) {
    let world = World::start(mode).await;
    for path in ["/docs/", "/console/sign-in"] {
        let url = format!("{}{path}", world.url(0));
        let page = reqwest::get(url).await.expect("a page");
        assert_eq!(page.status(), 200, "{path}");
        let header = |name: &str| {
            page.headers()
                .get(name)
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default()
        };
        let policy = header("content-security-policy");
        for part in [
            "default-src 'none'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
        ] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(
            !policy.contains("http:") && !policy.contains("https:"),
            "{path}: {policy}"
        );
        assert_eq!(
            (header("x-frame-options"), header("x-content-type-options")),
            ("DENY", "nosniff")
        );
        assert!(
            ["no-referrer", "same-origin"].contains(&header("referrer-policy")),
            "{path}"
        );
    }
}

/// No proxy is trusted here: the audit log has the address of the connection, not the one in the client's headers.
async fn a_client_cannot_choose_its_address(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("tea").await;
    let request = tenant.client.request(Method::POST, "/v1/keys").await;
    let new = serde_json::json!({"name": "a", "scopes": ["apps:read"]});
    let request = request
        .header("x-forwarded-for", "203.0.113.7")
        .header("forwarded", "for=203.0.113.7")
        .json(&new);
    finish(request).await.expect(201);
    let log = tenant.client.get("/v1/audit?limit=1").await.expect(200);
    assert_eq!(log["data"][0]["address"], "127.0.0.1");
}

/// A client that is refused before the body was read may continue on the connection: SDKs send head and body
/// separately, and reuse a connection unless the server asks to close the connection.
async fn a_connection_outlives_an_early_answer(mode: Mode) {
    let world = World::start(mode).await;
    for path in ["/cgi-bin/message/subscribe/send?access_token=x", "/v1/apps"] {
        let mut stream = connect(&world).await;
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.expect("a head");
        // The route has refused the request by the time that this second request is answered.
        world.anonymous().post(path, &json!({})).await;
        stream.write_all(b"{}").await.expect("a body");
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .await
            .expect("another request");
        let mut said = String::new();
        stream.read_to_string(&mut said).await.expect("two answers");
        assert_eq!(said.matches("HTTP/1.1 ").count(), 2, "{said}");
    }
}
