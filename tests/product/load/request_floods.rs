//! Floods of requests without a credential: large bodies, many streams, slow bodies from one address, long heads. The
//! floods fill no memory, and the gateway still serves callers at other addresses.

use std::net::SocketAddr;

use axum::http::{self, Response};
use bytes::Bytes;
use futures::future::join_all;
use gateway::ClientTimeouts;
use h2::{
    RecvStream, SendStream,
    client::{ResponseFuture, SendRequest},
};
use reqwest::Method;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::{Duration, timeout},
};

use crate::world::{Mode, Tenant, World, finish};

both_modes!(
    bodies_before_a_credential_are_small,
    a_flood_of_streams_fills_no_memory,
    an_unauthenticated_connection_has_few_concurrent_requests,
    unauthenticated_bytes_of_one_address_are_limited,
    http2_accepts_as_many_fields_as_http1,
);

const FORM: &str = "application/x-www-form-urlencoded";
/// The largest body that is accepted before a credential, in bytes.
const SMALL: usize = 16 * 1024;

/// An HTTP/2 connection, which closes on drop.
struct Http2 {
    requests: SendRequest<Bytes>,
    url: String,
    _connection: JoinSet<()>,
}

impl Http2 {
    async fn connect(world: &World) -> Self {
        let stream = TcpStream::connect(address(world))
            .await
            .expect("a connection");
        let (requests, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
        let mut driving = JoinSet::new();
        driving.spawn(async move {
            // The server may cut the connection; the requests then fail.
            let _ = connection.await;
        });
        Self {
            requests,
            url: world.url(0).to_owned(),
            _connection: driving,
        }
    }

    fn request(&self, method: Method, path: &str) -> http::request::Builder {
        http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .version(http::Version::HTTP_2)
    }

    /// Sends a head; unless `ends`, a body may follow.
    async fn open(
        &mut self,
        head: http::request::Builder,
        ends: bool,
    ) -> (ResponseFuture, SendStream<Bytes>) {
        let mut ready = self.requests.clone().ready().await.expect("room");
        ready
            .send_request(head.body(()).expect("a request"), ends)
            .expect("a stream")
    }

    /// Sends a part of a form to the token endpoint; the rest is still to come.
    async fn half_a_form(&mut self) -> (ResponseFuture, SendStream<Bytes>) {
        let head = self
            .request(Method::POST, "/oauth/token")
            .header("content-type", FORM);
        let (answer, mut body) = self.open(head, false).await;
        body.send_data(Bytes::from_static(b"grant_type="), false)
            .expect("a part of a body");
        (answer, body)
    }

    async fn ask(&mut self, head: http::request::Builder) -> Response<RecvStream> {
        self.open(head, true).await.0.await.expect("an answer")
    }
}

fn address(world: &World) -> SocketAddr {
    world
        .url(0)
        .trim_start_matches("http://")
        .parse()
        .expect("an address")
}

/// Connects from another address of this machine.
async fn connect_from(world: &World, from: [u8; 4]) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((from, 0).into()).expect("an address");
    socket.connect(address(world)).await.expect("a connection")
}

/// Sends a request on a new connection and reads the answer to its end.
async fn talk(world: &World, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address(world))
        .await
        .expect("a connection");
    stream.write_all(request).await.expect("a request");
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said).await;
    String::from_utf8_lossy(&said).into_owned()
}

async fn bodies_before_a_credential_are_small(mode: Mode) {
    let world = World::start(mode).await;
    let json = "application/json";
    for (path, kind, status, words) in [
        ("/oauth/token", FORM, 413, "\"error\":\"invalid_request\""),
        ("/cgi-bin/stable_token", json, 200, "\"errcode\":45002"),
        ("/console/sign-in", FORM, 413, "The request failed"),
    ] {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nOrigin: http://x\r\nContent-Type: {kind}\r\nConnection: close\r\n"
        );
        let length = SMALL + 1;
        let whole = format!(
            "{head}Content-Length: {length}\r\n\r\n{}",
            "x".repeat(length)
        );
        let chunked = format!(
            "{head}Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{}\r\n0\r\n\r\n",
            "x".repeat(length)
        );
        for request in [whole, chunked] {
            let said = talk(&world, request.as_bytes()).await;
            assert!(
                said.starts_with(&format!("HTTP/1.1 {status} ")),
                "{path}: {said}"
            );
            assert!(said.contains(words), "{path}: {said}");
        }
    }
    // With a valid credential a body may have the size that the route allows.
    let tenant = world.tenant("tea").await;
    let request = tenant.client.request(Method::POST, "/v1/keys").await;
    let name = json!({"name": "x".repeat(SMALL + 1), "scopes": ["apps:read"]});
    finish(request.json(&name))
        .await
        .problem(422, "validation_failed");
}

/// Three connections with 128 streams, each with up to 1 MiB for a route that reads before the caller is known.
async fn a_flood_of_streams_fills_no_memory(mode: Mode) {
    const PIECE: usize = 16 * 1024;
    let world = World::plan(mode).own_process().start().await;
    let before = world.process().mib("VmRSS");
    let mut connections = Vec::new();
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut connection = Http2::connect(&world).await;
        for number in 0..128 {
            let (path, kind) = match number % 3 {
                0 => ("/oauth/token", FORM),
                1 => ("/cgi-bin/stable_token", "application/json"),
                _ => (
                    "/callbacks/wx00000000000000a1?signature=0&timestamp=1&nonce=1",
                    "text/xml",
                ),
            };
            let head = connection
                .request(Method::POST, path)
                .header("content-type", kind);
            streams.push(connection.open(head, false).await);
        }
        connections.push(connection);
    }
    // Send as much of each body as the server takes; the bodies stay open.
    let pushing = streams.iter_mut().map(|(_, body)| async {
        for _ in 0..64 {
            body.reserve_capacity(PIECE);
            while body.capacity() < PIECE {
                let more = std::future::poll_fn(|context| body.poll_capacity(context));
                // A server that grants no more window within 10 s holds no more of the body.
                if !matches!(
                    timeout(Duration::from_secs(10), more).await,
                    Ok(Some(Ok(_)))
                ) {
                    return;
                }
            }
            let piece = Bytes::from(vec![b'x'; PIECE]);
            if body.send_data(piece, false).is_err() {
                return;
            }
        }
    });
    join_all(pushing).await;
    let grown = world.process().mib("VmHWM").saturating_sub(before);
    eprintln!("a flood of 384 MiB took {grown} MiB of memory");
    assert!(grown < 100, "{grown} MiB more than {before}");
    world.anonymous().get("/healthz").await.expect(200);
}

async fn an_unauthenticated_connection_has_few_concurrent_requests(mode: Mode) {
    let patience = ClientTimeouts {
        silence: Duration::from_mins(1),
        body: Duration::from_mins(1),
        ..ClientTimeouts::default()
    };
    let world = World::plan(mode).patience(patience).start().await;
    let tenant = world.tenant("tea").await;
    let mut connection = Http2::connect(&world).await;
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(connection.half_a_form().await);
    }
    // The server handles the requests of a connection in any order, so find the first request that waits.
    let mut waiting = None;
    for _ in 0..50 {
        let head = connection.request(Method::GET, "/healthz");
        let mut asked = connection.open(head, true).await.0;
        if !is_answered_beside(&mut asked, &tenant).await {
            waiting = Some(asked);
            break;
        }
    }
    let waiting = waiting.expect("a request that waits: nothing is proven on this connection");
    // The end of one request makes room for the next request.
    let (refused, mut body) = held.pop().expect("a form");
    body.send_data(Bytes::new(), true)
        .expect("the end of a body");
    assert_eq!(refused.await.expect("an answer").status(), 400);
    assert_eq!(waiting.await.expect("an answer").status(), 200);

    // After a valid credential on the connection, the server handles all requests of the connection.
    held.push(connection.half_a_form().await);
    let (refused, mut body) = held.pop().expect("a form");
    body.send_data(Bytes::new(), true)
        .expect("the end of a body");
    assert_eq!(refused.await.expect("an answer").status(), 400);
    let token = tenant.client.token().await;
    let head = connection
        .request(Method::GET, "/v1/apps")
        .header("authorization", format!("Bearer {token}"));
    assert_eq!(connection.ask(head).await.status(), 200);
    for _ in 0..100 {
        held.push(connection.half_a_form().await);
    }
    let head = connection.request(Method::GET, "/healthz");
    assert_eq!(connection.ask(head).await.status(), 200);
}

/// Whether a request is answered while a tenant gets 20 answers.
async fn is_answered_beside(asked: &mut ResponseFuture, tenant: &Tenant) -> bool {
    for _ in 0..20 {
        let other = async { tenant.client.get("/v1/apps").await.expect(200) };
        tokio::select! {
            biased;
            answer = &mut *asked => return answer.is_ok(),
            _ = other => {}
        }
    }
    false
}

/// Slow bodies from one address are sent until the gateway refuses more; another address still gets tokens.
async fn unauthenticated_bytes_of_one_address_are_limited(mode: Mode) {
    let patience = ClientTimeouts {
        body: Duration::from_mins(2),
        ..ClientTimeouts::default()
    };
    let world = World::plan(mode).patience(patience).start().await;
    let tenant = world.tenant("tea").await;
    let part = SMALL - 100;
    let start = format!(
        "POST /oauth/token HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM}\r\nContent-Length: {SMALL}\r\n\r\n{}",
        "x".repeat(part)
    );
    // The gateway holds what was sent, up to a limit.
    let mut held = Vec::new();
    for _ in 0..400 {
        let mut stream = connect_from(&world, [127, 0, 0, 9]).await;
        stream
            .write_all(start.as_bytes())
            .await
            .expect("a part of a request");
        held.push(stream);
    }
    let mut said = String::new();
    let refused = join_all(held.iter_mut().map(async |stream| {
        let mut answer = [0; 2000];
        let read = timeout(Duration::from_secs(3), stream.read(&mut answer)).await;
        let read = read.ok()?.ok()?;
        Some(String::from_utf8_lossy(&answer[..read]).into_owned())
    }))
    .await;
    let refused: Vec<_> = refused.into_iter().flatten().collect();
    assert!(!refused.is_empty(), "400 slow bodies of 16 KiB are held");
    assert!(refused.len() < 390, "{} of 400 were refused", refused.len());
    for answer in refused {
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.to_lowercase().contains("retry-after: "), "{answer}");
        said = answer;
    }
    assert!(said.contains("temporarily_unavailable"), "{said}");
    tenant.client.fetch_token(None).await.expect(200);
    // The closed connections make room.
    drop(held);
    let there = world.anonymous().with_key(tenant.client.key().clone());
    let there = there.calling_from([127, 0, 0, 9]);
    crate::world::eventually("the address has its room back", || async {
        (there.fetch_token(None).await.status == 200).then_some(())
    })
    .await;
}

async fn http2_accepts_as_many_fields_as_http1(mode: Mode) {
    let world = World::start(mode).await;
    let mut connection = Http2::connect(&world).await;
    for (fields, status) in [(90, 200), (100, 200), (101, 431), (700, 431)] {
        let mut head = connection.request(Method::GET, "/healthz");
        for number in 0..fields {
            head = head.header(format!("x-{number}"), "1");
        }
        let answer = connection.ask(head).await;
        assert_eq!(answer.status(), status, "HTTP/2, {fields} fields");
        // Two of the fields are `Host` and `Connection`.
        let lines: Vec<_> = (2..fields)
            .map(|number| format!("x-{number}: 1\r\n"))
            .collect();
        let said = format!(
            "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{}\r\n",
            lines.concat()
        );
        let said = talk(&world, said.as_bytes()).await;
        assert!(
            said.starts_with(&format!("HTTP/1.1 {status} ")),
            "{fields} fields: {said}"
        );
    }
    // Fields with the same name count separately.
    let mut head = connection.request(Method::GET, "/healthz");
    for _ in 0..101 {
        head = head.header("x-same", "1");
    }
    assert_eq!(connection.ask(head).await.status(), 431);
    // The head has more bytes than HTTP/1 accepts.
    let long = connection
        .request(Method::GET, "/healthz")
        .header("x-long", "x".repeat(33 * 1024));
    assert_eq!(connection.ask(long).await.status(), 431);
    // The limit applies to trailers too.
    let head = connection
        .request(Method::POST, "/oauth/token")
        .header("content-type", FORM);
    let (answer, mut body) = connection.open(head, false).await;
    body.send_data(Bytes::from_static(b"grant_type=client_credentials"), false)
        .expect("a body");
    let mut trailers = http::HeaderMap::new();
    for number in 0..101 {
        let name = http::HeaderName::try_from(format!("x-{number}")).expect("a name");
        trailers.insert(name, http::HeaderValue::from_static("1"));
    }
    body.send_trailers(trailers).expect("trailers");
    assert_eq!(answer.await.expect("an answer").status(), 400);
}
