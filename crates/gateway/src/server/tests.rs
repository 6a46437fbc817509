use super::*;
use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn start(router: Router) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let doorway = ServerOptions {
        proxies: "127.0.0.0/8".parse().unwrap(),
        max_connections: 4,
        patience: ClientTimeouts {
            body: Duration::from_millis(200),
            answer: Duration::from_millis(300),
            ..ClientTimeouts::default()
        },
    };
    Server::start(listener, address, router, doorway)
}

async fn ask(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_stop_lets_requests_finish_and_does_not_wait_for_idle_or_silent_connections() {
    let (entered, mut seen) = tokio::sync::mpsc::channel::<()>(1);
    let (leave, left) = tokio::sync::watch::channel(false);
    let slow = async move || {
        entered.send(()).await.unwrap();
        left.clone().wait_for(|left| *left).await.unwrap();
        "done"
    };
    let server = start(Router::new().route("/", get(slow))).await;
    let address = server.address();
    let _silent = TcpStream::connect(address).await.unwrap();
    let asking = tokio::task::JoinSet::from_iter([ask(address)]);
    seen.recv().await.unwrap();
    let stop = server.stop(Duration::from_secs(30));
    let finish = async {
        tokio::task::yield_now().await;
        leave.send(true).unwrap();
    };
    let (answered, ()) = tokio::join!(stop, finish);
    assert!(answered);
    assert!(asking.join_all().await[0].ends_with("done"));
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_stop_does_not_wait_for_ever() {
    let server = start(Router::new().route("/", get(std::future::pending::<()>))).await;
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!server.stop(Duration::from_millis(20)).await);
}

async fn send(address: SocketAddr, head: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

async fn answer(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    // Reading ends with an error where the server cuts the connection before the end of the answer.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

const CLOSE: &str = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";

#[tokio::test]
async fn a_body_comes_in_time_or_not_at_all() {
    let take = async |body: bytes::Bytes| format!("{} bytes", body.len());
    let server = start(Router::new().route("/", axum::routing::post(take))).await;
    let head = "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 4\r\n\r\n";
    let whole = send(server.address(), &format!("{head}tea!")).await;
    assert!(answer(whole).await.ends_with("4 bytes"));
    let half = send(server.address(), &format!("{head}te")).await;
    let refused = answer(half).await;
    assert!(refused.starts_with("HTTP/1.1 400"), "{refused}");
    assert!(server.stop(Duration::from_secs(30)).await);
}

#[tokio::test]
async fn the_client_is_who_the_proxy_says() {
    use axum::Extension;
    use tenancy::ClientAddress;
    let tell = async |Extension(client): Extension<ClientAddress>| client.0.to_string();
    let server = start(Router::new().route("/", get(tell))).await;
    let head = format!("{CLOSE}X-Forwarded-For: 1.1.1.1, 203.0.113.9\r\n\r\n");
    let told = answer(send(server.address(), &head).await).await;
    assert!(told.ends_with("203.0.113.9"), "{told}");
}

#[tokio::test]
async fn a_head_has_a_largest_size() {
    let server = start(Router::new().route("/", get(async || "fine"))).await;
    for (length, status) in [(1_000, "200"), (100_000, "431")] {
        let head = format!("{CLOSE}X-Long: {}\r\n\r\n", "x".repeat(length));
        let answer = answer(send(server.address(), &head).await).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_a_place() {
    let server = start(Router::new().route("/", get(async || "fine"))).await;
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut stream = send(server.address(), "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        stream.read_exact(&mut [0; 12]).await.unwrap();
        held.push(stream);
    }
    let fifth = send(server.address(), &format!("{CLOSE}\r\n")).await;
    let mut fifth = Box::pin(answer(fifth));
    let early = tokio::time::timeout(Duration::from_millis(200), fifth.as_mut()).await;
    assert!(early.is_err(), "{early:?}");
    held.pop();
    assert!(fifth.await.ends_with("fine"));
}

/// More bytes than the system buffers for a peer that takes none.
const LARGE: usize = 64 * 1024 * 1024;

#[tokio::test]
async fn who_takes_no_answers_loses_the_place() {
    let large = async || vec![b'x'; LARGE];
    let router = Router::new().route("/", get(large));
    let server = start(router.route("/fine", get(async || "fine"))).await;
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(send(server.address(), "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await);
    }
    let fifth = CLOSE.replace("GET /", "GET /fine") + "\r\n";
    let fifth = answer(send(server.address(), &fifth).await);
    let fifth = tokio::time::timeout(Duration::from_secs(50), fifth).await;
    assert!(fifth.expect("a place").ends_with("fine"));
    let mut cut = Vec::new();
    let _ = held.remove(0).read_to_end(&mut cut).await;
    assert!(cut.len() < LARGE, "{}", cut.len());
}

#[tokio::test]
async fn who_waits_for_an_answer_and_then_takes_it_is_not_hurried() {
    let slow = async || {
        tokio::time::sleep(Duration::from_millis(900)).await;
        vec![b'x'; LARGE]
    };
    let server = start(Router::new().route("/", get(slow))).await;
    let whole = answer(send(server.address(), &format!("{CLOSE}\r\n")).await).await;
    assert!(whole.len() > LARGE, "{}", whole.len());
}

/// Sends `pieces` of 128 KiB with a pause before each, as a slow client does. Returns the answer, or the number of
/// pieces sent and the error.
async fn send_slowly(
    address: SocketAddr,
    head: &str,
    pieces: usize,
) -> Result<String, (usize, std::io::Error)> {
    let mut stream = send(address, head).await;
    let piece = vec![b'x'; 128 * 1024];
    for sent in 0..pieces {
        tokio::time::sleep(Duration::from_millis(4)).await;
        let written = stream.write_all(&piece).await;
        written.map_err(|error| (sent, error))?;
    }
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer).await;
    read.map_err(|error| (pieces, error))?;
    Ok(String::from_utf8(answer).unwrap())
}

#[tokio::test]
async fn who_still_sends_reads_the_answer_that_came_early() {
    let refuse = axum::routing::post(async || (axum::http::StatusCode::UNAUTHORIZED, "no"));
    let take = axum::routing::post(async |body: bytes::Bytes| format!("{} bytes", body.len()));
    let routes = Router::new().route("/", refuse).route("/take", take);
    let server = start(routes).await;
    let length = "Content-Length: 4194304\r\n";
    let chunked = "Transfer-Encoding: chunked\r\n";
    let many = "X-Field: x\r\n".repeat(101);
    for (status, path, fields) in [
        ("401", "/", length.to_owned()),
        ("401", "/", format!("Expect: 100-continue\r\n{length}")),
        ("401", "/", format!("Connection: close\r\n{length}")),
        ("413", "/take", length.to_owned()),
        ("404", "/nowhere", length.to_owned()),
        ("405", "/take", length.to_owned()),
        ("400", "/", format!("Host: y\r\n{length}")),
        ("431", "/", format!("{many}{length}")),
        (
            "431",
            "/",
            format!("X-Long: {}\r\n{length}", "x".repeat(40_000)),
        ),
        // The body bytes are not a valid chunk.
        ("401", "/", chunked.to_owned()),
    ] {
        let method = if status == "405" { "PUT" } else { "POST" };
        let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
        let told = send_slowly(server.address(), &head, 32).await;
        let told = told.unwrap_or_else(|error| panic!("{status} {path} {fields:.60}: {error:?}"));
        assert!(told.starts_with(&format!("HTTP/1.1 {status}")), "{told}");
        assert!(
            told.to_lowercase().contains("\r\nconnection: close\r\n"),
            "{told}"
        );
    }
}

#[tokio::test]
async fn who_goes_on_sending_after_the_answer_is_cut_off() {
    let server = start(Router::new()).await;
    let head = format!(
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        u64::MAX >> 2
    );
    let sending = send_slowly(server.address(), &head, usize::MAX);
    let ended = tokio::time::timeout(Duration::from_secs(20), sending).await;
    assert!(ended.expect("an end").is_err());
    // A client that sends nothing more frees its connection permit.
    let mut quiet = Vec::new();
    for _ in 0..4 {
        quiet.push(send(server.address(), &head).await);
    }
    let fifth = send(server.address(), &format!("{CLOSE}\r\n")).await;
    let fifth = tokio::time::timeout(Duration::from_secs(20), answer(fifth)).await;
    assert!(fifth.expect("a place").starts_with("HTTP/1.1 404"));
}
