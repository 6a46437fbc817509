//! HTTP connections: limits on number, time and size, and a graceful end.

mod activity;
mod bodies;
mod client_limits;
mod connection;
#[cfg(test)]
mod floods;
mod lingering_close;
mod service;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, http::Version};
use futures::FutureExt;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use tenancy::{Network, UnprovenLimitReached};
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
    client_limits::{ClientLimits, TakenUnits},
    connection::{Connection, builder},
    lingering_close::Staged,
    service::ConnectionService,
};
use crate::{config::ClientTimeouts, proxies::TrustedProxies};

/// The largest number of header fields in a request: the number that HTTP/1 has room for.
const FIELDS: usize = 100;
/// The bytes of unproven requests that the process holds at once, for all networks and for one network.
const UNPROVEN_BYTES: usize = 32 << 20;
const UNPROVEN_BYTES_OF_ONE: usize = 4 << 20;
/// One network may hold this fraction (a tenth) of all connections, and at least `FEW` connections.
const PART_OF_ONE: usize = 10;
const FEW: usize = 64;
/// The shortest interval between two warnings about an address that holds its full share of connections.
const WARNING: Duration = Duration::from_mins(1);
/// The wait after a failed `accept`, whose most likely cause is a lack of file descriptors.
const BREATH: Duration = Duration::from_millis(50);
/// The connection preface: the first bytes of every HTTP/2 connection (RFC 9113, section 3.4).
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The settings of the listener.
#[derive(Clone, Debug)]
pub(crate) struct ServerOptions {
    /// The proxies whose statement about the client's address the gateway trusts.
    pub(crate) proxies: TrustedProxies,
    /// The largest number of simultaneous connections. Further connections wait in the accept queue of the system.
    pub(crate) max_connections: usize,
    /// The time limits for clients.
    pub(crate) patience: ClientTimeouts,
}

/// A listening server. Dropping the server closes the listener and starts the graceful end of its connections.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    /// Cancelled to drain: each HTTP/1.1 answer asks the client to open its next connection elsewhere. Requests are
    /// answered as before.
    farewell: CancellationToken,
    /// Dropped to stop: each connection answers its requests in progress and then closes.
    goodbye: DropGuard,
    /// Cancelled to abort: each connection closes at once.
    abort: CancellationToken,
    tasks: TaskTracker,
}

impl Server {
    /// Starts a background task that serves `router` on `listener`.
    pub(crate) fn start(
        listener: TcpListener,
        address: SocketAddr,
        router: Router,
        doorway: ServerOptions,
    ) -> Self {
        let (farewell, goodbye, abort, tasks) = (
            CancellationToken::new(),
            CancellationToken::new(),
            CancellationToken::new(),
            TaskTracker::new(),
        );
        let doors = Acceptor {
            builder: builder(doorway.patience, false),
            proxy_builder: builder(doorway.patience, true),
            connections: ClientLimits::new(
                usize::MAX,
                (doorway.max_connections / PART_OF_ONE).max(FEW),
            ),
            unproven: ClientLimits::new(UNPROVEN_BYTES, UNPROVEN_BYTES_OF_ONE),
            router,
            room: Arc::new(Semaphore::new(doorway.max_connections)),
            doorway: Arc::new(doorway),
            farewell: farewell.clone(),
            goodbye: goodbye.clone(),
            abort: abort.clone(),
            tasks: tasks.clone(),
        };
        tasks.spawn(doors.accept(listener));
        tasks.close();
        Self {
            address,
            farewell,
            goodbye: goodbye.drop_guard(),
            abort,
            tasks,
        }
    }

    /// The address on which the server listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Drains the server: requests are answered as before, but each HTTP/1.1 answer ends its connection, so that a load
    /// balancer can send the client's next connection to another replica.
    pub(crate) fn drain(&self) {
        self.farewell.cancel();
    }

    /// Accepts no more connections and waits at most `patience` for the requests in progress. Returns whether all
    /// requests were answered.
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

struct Acceptor {
    builder: Arc<Builder<TokioExecutor>>,
    proxy_builder: Arc<Builder<TokioExecutor>>,
    /// The number of connections of each network.
    connections: Arc<ClientLimits>,
    /// The bytes of unproven requests.
    unproven: Arc<ClientLimits>,
    router: Router,
    doorway: Arc<ServerOptions>,
    room: Arc<Semaphore>,
    farewell: CancellationToken,
    goodbye: CancellationToken,
    abort: CancellationToken,
    tasks: TaskTracker,
}

impl Acceptor {
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
                            tracing::warn!(address = %peer.ip(), "an address holds a tenth of WXGATE_MAX_CONNECTIONS: the gateway closes its further connections; if the address is your proxy's, set WXGATE_TRUSTED_PROXIES");
                        }
                        continue;
                    };
                    self.begin(stream, peer, (place, share));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection; if this error repeats, raise the limit of open files");
                    tokio::time::sleep(BREATH).await;
                }
            }
        }
        // Connections that wait in the accept queue of the system: closing the listener would reset these connections.
        while let Some(Ok((stream, peer))) = listener.accept().now_or_never() {
            if let Ok(share) = self.share(peer) {
                let place = self.room.clone().try_acquire_owned().ok();
                self.begin(stream, peer, (place, share));
            }
        }
    }

    fn begin(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        place: (Option<OwnedSemaphorePermit>, TakenUnits),
    ) {
        let talk = self.talk(stream, peer, place);
        self.tasks
            .spawn(self.abort.clone().run_until_cancelled_owned(talk));
    }

    /// Waits for a free connection permit. `None`: the semaphore is closed.
    async fn place(&self) -> Option<OwnedSemaphorePermit> {
        if self.room.available_permits() == 0 {
            tracing::warn!(
                "the number of connections has reached WXGATE_MAX_CONNECTIONS: the next connection waits until another one ends"
            );
        }
        self.room.clone().acquire_owned().await.ok()
    }

    /// Counts the connection in the share of the peer's network. A trusted proxy has no limit.
    fn share(&self, peer: SocketAddr) -> Result<TakenUnits, UnprovenLimitReached> {
        let share = self.connections.share(Network::of(peer.ip()));
        if self.doorway.proxies.trusts(peer.ip()) {
            share.free();
        }
        share.take(1).map(|()| share)
    }

    /// Serves one connection from its first byte to its end. The connection holds `place` until the end.
    fn talk(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        place: (Option<OwnedSemaphorePermit>, TakenUnits),
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
        let staged = connection.clone();
        let visits = ConnectionService {
            router: self.router.clone(),
            doorway: self.doorway.clone(),
            unproven: self.unproven.clone(),
            connection,
            farewell: self.farewell.clone(),
        };
        let service = TowerToHyperService::new(visits);
        let ClientTimeouts {
            silence,
            answer,
            idle,
            body,
            ..
        } = self.doorway.patience;
        async move {
            let _place = place;
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "cannot switch off Nagle's algorithm for a connection");
            }
            let spoken = tokio::time::timeout(silence, protocol(&stream));
            // At a stop, a short wait lets a request arrive that is already on the network.
            let silent = async {
                goodbye.cancelled().await;
                tokio::time::sleep(BREATH).await;
            };
            let version = tokio::select! {
                biased;
                spoken = spoken => match spoken {
                    Ok(Some(version)) => version,
                    _ => return,
                },
                () = silent => return,
            };
            // The time-out starts when the system takes no more bytes, and ends when the system takes a byte.
            let mut stream = TimeoutStream::new(stream);
            stream.set_write_timeout(Some(answer));
            // HTTP/2 refuses a request by resetting one stream, so the connection needs no staged close.
            let rest = if version == Version::HTTP_2 {
                Duration::ZERO
            } else {
                body
            };
            let stream = Staged::new(Box::pin(stream), staged, rest);
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            let mut connection = std::pin::pin!(connection);
            let ended = tokio::select! {
                // `biased`: the server reads a request that has already arrived before the shutdown starts.
                biased;
                ended = connection.as_mut() => ended,
                () = goodbye.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
                () = activity.quiet(idle) => {
                    connection.as_mut().graceful_shutdown();
                    tokio::time::timeout(answer, connection).await.unwrap_or(Ok(()))
                }
                // Excludes proxies: one slow client of a proxy must not end the requests of the proxy's other clients.
                () = activity.stuck(answer), if !is_proxy => Err("the client reads no part of the answer".into()),
            };
            if let Err(error) = ended {
                tracing::debug!(error, "a connection broke");
            }
        }
    }
}

/// Waits until the protocol is known: hyper's own detection has no time limit. `None`: the peer closed the connection.
async fn protocol(stream: &TcpStream) -> Option<Version> {
    let mut start = [0; HTTP2.len()];
    loop {
        match stream.peek(&mut start).await {
            Ok(0) | Err(_) => return None,
            Ok(read) if !HTTP2.starts_with(&start[..read]) => return Some(Version::HTTP_11),
            Ok(read) if read == HTTP2.len() => return Some(Version::HTTP_2),
            // `peek` leaves the bytes in the buffer, so readiness cannot signal more bytes: the loop polls.
            Ok(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

#[cfg(test)]
mod tests;
