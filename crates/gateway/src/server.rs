//! Connections: accepted, bounded in number, time and size, ended gracefully.

mod activity;
mod bodies;
mod connection;
#[cfg(test)]
mod floods;
mod shares;
mod staged;
mod visit;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, http::Version};
use futures::FutureExt;
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
    staged::Staged,
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
    /// Told to all connections: ask clients to go elsewhere. Requests are answered as before.
    farewell: CancellationToken,
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
        let (farewell, goodbye, abort, tasks) = (
            CancellationToken::new(),
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

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Goes on as before, but each answer over HTTP/1.1 ends its connection, so that the client's next one may lead elsewhere.
    pub(crate) fn drain(&self) {
        self.farewell.cancel();
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
    farewell: CancellationToken,
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
                    self.begin(stream, peer, (place, share));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection; if this goes on, raise the limit of open files");
                    tokio::time::sleep(BREATH).await;
                }
            }
        }
        // Those that the system has accepted for us: they would be reset with the listener.
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
        place: (Option<OwnedSemaphorePermit>, Share),
    ) {
        let talk = self.talk(stream, peer, place);
        self.tasks
            .spawn(self.abort.clone().run_until_cancelled_owned(talk));
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
        let staged = connection.clone();
        let visits = Visits {
            router: self.router.clone(),
            doorway: self.doorway.clone(),
            unproven: self.unproven.clone(),
            connection,
            farewell: self.farewell.clone(),
        };
        let service = TowerToHyperService::new(visits);
        let Patience {
            silence,
            answer,
            idle,
            body,
            ..
        } = self.doorway.patience;
        async move {
            let _place = place;
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "a connection keeps Nagle's delay");
            }
            let spoken = tokio::time::timeout(silence, protocol(&stream));
            // At a stop those are not silent whose request is on its way.
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
            // Counts from the moment at which the system takes no more bytes until it takes one.
            let mut stream = TimeoutStream::new(stream);
            stream.set_write_timeout(Some(answer));
            // HTTP/2 refuses a request without its connection.
            let rest = if version == Version::HTTP_2 {
                Duration::ZERO
            } else {
                body
            };
            let stream = Staged::new(Box::pin(stream), staged, rest);
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            let mut connection = std::pin::pin!(connection);
            let ended = tokio::select! {
                // Reads a request that is there before it is told to close.
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
                // One slow client of a proxy must not end the requests of its others.
                () = activity.stuck(answer), if !is_proxy => Err("no part of an answer is taken".into()),
            };
            if let Err(error) = ended {
                tracing::debug!(error, "a connection broke");
            }
        }
    }
}

/// Waits until the protocol is known, which the server below would do without a limit. None: the peer hung up.
async fn protocol(stream: &TcpStream) -> Option<Version> {
    let mut start = [0; HTTP2.len()];
    loop {
        match stream.peek(&mut start).await {
            Ok(0) | Err(_) => return None,
            Ok(read) if !HTTP2.starts_with(&start[..read]) => return Some(Version::HTTP_11),
            Ok(read) if read == HTTP2.len() => return Some(Version::HTTP_2),
            // What is there stays readable: look again a little later.
            Ok(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

#[cfg(test)]
mod tests;
