//! Connections: accepted, bounded in number, time and size, ended gracefully.

mod activity;
mod bodies;
mod connection;
#[cfg(test)]
mod floods;
mod shares;
mod visit;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use tenancy::{Network, NoRoom};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_io_timeout::TimeoutStream;
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use self::{
    connection::{Connection, builder},
    shares::{Share, Shares},
    visit::Visits,
};
use crate::{config::Patience, proxies::TrustedProxies};

/// How many fields a head may have: what HTTP/1 has room for.
const FIELDS: usize = 100;
/// How many bytes of requests that have proven nothing are held at once, and how many of them from one network.
const UNPROVEN_BYTES: usize = 32 << 20;
const UNPROVEN_BYTES_OF_ONE: usize = 4 << 20;
/// One network may hold this part of all connections, but never fewer than the number beside it.
const PART_OF_ONE: usize = 10;
const FEW: usize = 64;
/// How often it is said that one holds as many as it may.
const WARNING: Duration = Duration::from_mins(1);
/// The wait after the system refused a connection, most likely for want of file descriptors.
const BREATH: Duration = Duration::from_millis(50);
/// What an HTTP/2 connection begins with.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Who comes in.
#[derive(Clone, Debug)]
pub(crate) struct Doorway {
    /// The proxies that are believed when they say whom they speak for.
    pub(crate) proxies: TrustedProxies,
    /// Connections at the same time; more wait in the system's queue.
    pub(crate) max_connections: usize,
    /// How long clients may take.
    pub(crate) patience: Patience,
}

/// A listening server. Dropping it closes the listener and tells its connections to end.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    /// Told to all connections: answer what is under way, then close.
    goodbye: DropGuard,
    /// Told to all connections: close.
    abort: CancellationToken,
    tasks: TaskTracker,
}

impl Server {
    /// Serves `router` on `listener` from now on, in the background.
    pub(crate) fn start(
        listener: TcpListener,
        address: SocketAddr,
        router: Router,
        doorway: Doorway,
    ) -> Self {
        let (goodbye, abort, tasks) = (
            CancellationToken::new(),
            CancellationToken::new(),
            TaskTracker::new(),
        );
        let doors = Doors {
            builder: builder(doorway.patience, false),
            proxy_builder: builder(doorway.patience, true),
            connections: Shares::new(usize::MAX, (doorway.max_connections / PART_OF_ONE).max(FEW)),
            unproven: Shares::new(UNPROVEN_BYTES, UNPROVEN_BYTES_OF_ONE),
            router,
            room: Arc::new(Semaphore::new(doorway.max_connections)),
            doorway: Arc::new(doorway),
            goodbye: goodbye.clone(),
            abort: abort.clone(),
            tasks: tasks.clone(),
        };
        tasks.spawn(doors.accept(listener));
        tasks.close();
        Self {
            address,
            goodbye: goodbye.drop_guard(),
            abort,
            tasks,
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts nothing more and waits for the requests under way, but not longer than `patience`. Returns whether
    /// all were answered.
    pub(crate) async fn stop(self, patience: Duration) -> bool {
        drop(self.goodbye);
        let answered = tokio::time::timeout(patience, self.tasks.wait())
            .await
            .is_ok();
        self.abort.cancel();
        self.tasks.wait().await;
        answered
    }
}

struct Doors {
    builder: Arc<Builder<TokioExecutor>>,
    proxy_builder: Arc<Builder<TokioExecutor>>,
    /// The connections of each network.
    connections: Arc<Shares>,
    /// The bytes of requests that have proven nothing.
    unproven: Arc<Shares>,
    router: Router,
    doorway: Arc<Doorway>,
    room: Arc<Semaphore>,
    goodbye: CancellationToken,
    abort: CancellationToken,
    tasks: TaskTracker,
}

impl Doors {
    async fn accept(self, listener: TcpListener) {
        let next = async || {
            let place = self.place().await;
            (place, listener.accept().await)
        };
        let mut warned = None;
        while let Some((place, accepted)) = self.goodbye.run_until_cancelled(next()).await {
            match accepted {
                Ok((stream, peer)) => {
                    let Ok(share) = self.share(peer) else {
                        if warned.is_none_or(|at: Instant| at.elapsed() > WARNING) {
                            warned = Some(Instant::now());
                            tracing::warn!(address = %peer.ip(), "an address holds a tenth of WXGATE_MAX_CONNECTIONS, and its next connections are closed; if it is your proxy's, set WXGATE_TRUSTED_PROXIES");
                        }
                        continue;
                    };
                    let talk = self.talk(stream, peer, (place, share));
                    self.tasks
                        .spawn(self.abort.clone().run_until_cancelled_owned(talk));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection; if this goes on, raise the limit of open files");
                    tokio::time::sleep(BREATH).await;
                }
            }
        }
    }

    /// A place for one more connection, as soon as there is one. None: there are no places any more.
    async fn place(&self) -> Option<OwnedSemaphorePermit> {
        if self.room.available_permits() == 0 {
            tracing::warn!(
                "as many connections as WXGATE_MAX_CONNECTIONS allows: the next one waits until one ends"
            );
        }
        self.room.clone().acquire_owned().await.ok()
    }

    /// The peer's share of the connections. A trusted proxy has as many as it likes.
    fn share(&self, peer: SocketAddr) -> Result<Share, NoRoom> {
        let share = self.connections.share(Network::of(peer.ip()));
        if self.doorway.proxies.trusts(peer.ip()) {
            share.free();
        }
        share.take(1).map(|()| share)
    }

    /// One connection, from its first byte to its end; it has its place until then.
    fn talk(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        place: (Option<OwnedSemaphorePermit>, Share),
    ) -> impl Future<Output = ()> + use<> {
        let is_proxy = self.doorway.proxies.trusts(peer.ip());
        let builder = if is_proxy {
            self.proxy_builder.clone()
        } else {
            self.builder.clone()
        };
        let goodbye = self.goodbye.clone();
        let connection = Arc::new(Connection::new(peer, is_proxy));
        let activity = connection.activity.clone();
        let visits = Visits {
            router: self.router.clone(),
            doorway: self.doorway.clone(),
            unproven: self.unproven.clone(),
            connection,
        };
        let service = TowerToHyperService::new(visits);
        let Patience {
            silence,
            answer,
            idle,
            ..
        } = self.doorway.patience;
        async move {
            let _place = place;
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "a connection keeps Nagle's delay");
            }
            let spoken = tokio::time::timeout(silence, first_bytes(&stream));
            if !matches!(goodbye.run_until_cancelled(spoken).await, Some(Ok(true))) {
                return;
            }
            // Counts from the moment at which the system takes no more bytes until it takes one.
            let mut stream = TimeoutStream::new(stream);
            stream.set_write_timeout(Some(answer));
            let connection = builder.serve_connection(TokioIo::new(Box::pin(stream)), service);
            let mut connection = std::pin::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = goodbye.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
                () = activity.quiet(idle) => {
                    connection.as_mut().graceful_shutdown();
                    tokio::time::timeout(answer, connection).await.unwrap_or(Ok(()))
                }
                // One slow client of a proxy must not end the requests of its others.
                () = activity.stuck(answer), if !is_proxy => Err("no part of an answer is taken".into()),
            };
            if let Err(error) = ended {
                tracing::debug!(error, "a connection broke");
            }
        }
    }
}

/// Waits until the protocol is known, which the server below would do without a limit. False: the peer hung up.
async fn first_bytes(stream: &TcpStream) -> bool {
    let mut start = [0; HTTP2.len()];
    loop {
        match stream.peek(&mut start).await {
            Ok(0) | Err(_) => return false,
            Ok(read) if read == HTTP2.len() || !HTTP2.starts_with(&start[..read]) => return true,
            // What is there stays readable: look again a little later.
            Ok(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn start(router: Router) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let doorway = Doorway {
            proxies: "127.0.0.0/8".parse().unwrap(),
            max_connections: 4,
            patience: Patience {
                body: Duration::from_millis(200),
                answer: Duration::from_millis(300),
                ..Patience::default()
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
        // A connection that is cut while there is something left to say ends with an error.
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

    /// More than the system keeps for a peer that takes nothing.
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
}
