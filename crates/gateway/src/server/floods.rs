//! Tests with connections that are idle, too many, or take no answers.

use std::{net::SocketAddr, time::Duration};

use axum::{Router, http, routing::get};
use bytes::Bytes;
use h2::client::SendRequest;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
    time::{Instant, timeout},
};

use super::{Server, ServerOptions};
use crate::config::ClientTimeouts;

/// The time limit of each wait in these tests: a longer wait counts as endless.
const LONG: Duration = Duration::from_secs(30);
/// More bytes than a connection buffers for a peer that takes none.
const LARGE: usize = 1 << 20;
/// The number of bytes after which the slow client pauses.
const STEP: usize = LARGE / 8;

async fn start(router: Router, max_connections: usize, patience: ClientTimeouts) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let doorway = ServerOptions {
        proxies: "127.0.0.7".parse().unwrap(),
        max_connections,
        patience,
    };
    Server::start(listener, address, router, doorway)
}

async fn connect_from(last: u8, server: &Server) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket
        .bind(SocketAddr::from(([127, 0, 0, last], 0)))
        .unwrap();
    socket.connect(server.address()).await.unwrap()
}

/// An HTTP/2 connection with windows of `window` bytes, and a task that returns the time of its end.
async fn http2(server: &Server, window: u32) -> (SendRequest<Bytes>, JoinSet<Instant>) {
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(window);
    let stream = connect_from(1, server).await;
    let (requests, connection) = builder.handshake(stream).await.unwrap();
    let driving = async move {
        let _ = connection.await;
        Instant::now()
    };
    (requests, JoinSet::from_iter([driving]))
}

async fn ask(requests: &SendRequest<Bytes>, path: &str) -> http::Response<h2::RecvStream> {
    let request = http::Request::get(format!("http://x{path}"));
    let mut ready = requests.clone().ready().await.unwrap();
    let (answer, _) = ready.send_request(request.body(()).unwrap(), true).unwrap();
    answer.await.unwrap()
}

/// Whether the server answers a request on this connection.
async fn is_served(stream: &mut TcpStream) -> bool {
    let asked = stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut answer = Vec::new();
    while asked.is_ok() && !answer.ends_with(b"fine") {
        if !matches!(stream.read_buf(&mut answer).await, Ok(1..)) {
            return false;
        }
    }
    answer.starts_with(b"HTTP/1.1 200")
}

fn routes() -> Router {
    let slow = async || {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        "slow"
    };
    let routes = Router::new().route("/", get(async || "fine"));
    routes
        .route("/slow", get(slow))
        .route("/large", get(async || vec![b'x'; LARGE]))
}

#[tokio::test]
async fn a_connection_on_which_nothing_happens_ends_in_both_protocols() {
    let idle = Duration::from_millis(500);
    let patience = ClientTimeouts {
        idle,
        ..ClientTimeouts::default()
    };
    let server = start(routes(), 1000, patience).await;
    let began = Instant::now();
    // Three connections: one without a request, one with an answered request, one that waits for an answer.
    let (_requests, mut unused) = http2(&server, 65_535).await;
    let (used, mut ended) = http2(&server, 65_535).await;
    let (working, mut going) = http2(&server, 65_535).await;
    assert_eq!(ask(&used, "/").await.status(), 200);
    let mut one = connect_from(1, &server).await;
    assert!(is_served(&mut one).await);
    let mut body = ask(&working, "/slow").await.into_body();
    assert_eq!(
        body.data().await.unwrap().unwrap(),
        "slow",
        "it was not hurried"
    );
    assert!(began.elapsed() >= Duration::from_millis(1500));
    for connection in [&mut unused, &mut ended, &mut going] {
        let end = timeout(LONG, connection.join_next()).await.expect("an end");
        assert!(end.unwrap().unwrap() - began >= idle);
    }
    let mut rest = Vec::new();
    let closed = timeout(LONG, one.read_to_end(&mut rest)).await;
    assert!(closed.is_ok(), "an HTTP/1 connection stays");
    // A connection whose next request comes in time stays open.
    let mut busy = connect_from(1, &server).await;
    for _ in 0..6 {
        tokio::time::sleep(idle / 4).await;
        assert!(is_served(&mut busy).await);
    }
}

#[tokio::test]
async fn one_address_has_a_share_of_the_connections_and_a_proxy_has_all() {
    let server = start(routes(), 1000, ClientTimeouts::default()).await;
    let mut held = Vec::new();
    for _ in 0..100 {
        let mut stream = connect_from(1, &server).await;
        assert!(is_served(&mut stream).await);
        held.push(stream);
    }
    assert!(
        !is_served(&mut connect_from(1, &server).await).await,
        "the 101st is served"
    );
    for _ in 0..120 {
        let mut stream = connect_from(7, &server).await;
        assert!(is_served(&mut stream).await, "of a trusted proxy");
        held.push(stream);
    }
    assert!(
        is_served(&mut connect_from(2, &server).await).await,
        "of another address"
    );
    // A connection that ends makes room for the next connection.
    drop(held.remove(0));
    timeout(LONG, async {
        while !is_served(&mut connect_from(1, &server).await).await {}
    })
    .await
    .expect("room");
}

#[tokio::test]
async fn who_takes_no_answer_on_http2_loses_the_connection() {
    let patience = ClientTimeouts {
        answer: Duration::from_millis(600),
        ..ClientTimeouts::default()
    };
    let server = start(routes(), 1000, patience).await;
    for window in [0, 1] {
        let (requests, mut connection) = http2(&server, window).await;
        let held = ask(&requests, "/large").await;
        // Keeps the connection in use all the time.
        let using = async {
            loop {
                let request = http::Request::get("http://x/").body(()).unwrap();
                let Ok(mut ready) = requests.clone().ready().await else {
                    return;
                };
                let Ok((answer, _)) = ready.send_request(request, true) else {
                    return;
                };
                if answer.await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let ended = async { tokio::join!(using, connection.join_next()) };
        timeout(LONG, ended).await.expect("an end");
        drop(held);
    }
    // A client that takes a little now and then keeps the connection.
    let (requests, _connection) = http2(&server, 65_535).await;
    let mut body = ask(&requests, "/large").await.into_body();
    let mut read = 0;
    while let Some(part) = body.data().await {
        let part = part.expect("the connection goes on").len();
        read += part;
        if read / STEP > (read - part) / STEP {
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        body.flow_control().release_capacity(part).unwrap();
    }
    assert_eq!(read, LARGE);
}
