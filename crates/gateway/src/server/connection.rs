//! One connection: its limits while unproven, and its time limits without activity.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hyper_util::{
    rt::{TokioExecutor, TokioTimer},
    server::conn::auto::Builder,
};
use tenancy::UnprovenLimitReached;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::activity::Activity;
use crate::config::ClientTimeouts;

/// The largest head of a request, in bytes.
const HEAD_SIZE: usize = 32 * 1024;
/// The largest number of simultaneous requests on one HTTP/2 connection.
const STREAMS: u32 = 128;
/// The largest number of simultaneous requests on a connection while no request has proven a credential.
const UNPROVEN: usize = 8;
/// The HTTP/2 flow-control window, in bytes: body bytes that arrive before a route reads. This is the initial value of
/// the protocol, and the window of a connection cannot be smaller.
const WINDOW: u32 = 65_535;
/// The same window for a proxy, which carries the requests of many clients.
const PROXY_WINDOW: u32 = 1024 * 1024;
/// The interval and the time-out of the HTTP/2 pings that detect peers that are gone.
const PING: Duration = Duration::from_secs(30);

/// Configures the HTTP protocols of a connection.
pub(super) fn builder(patience: ClientTimeouts, is_proxy: bool) -> Arc<Builder<TokioExecutor>> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .max_buf_size(HEAD_SIZE)
        .header_read_timeout(patience.head);
    let window = if is_proxy { PROXY_WINDOW } else { WINDOW };
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(window)
        .initial_connection_window_size(window)
        .max_header_list_size(u32::try_from(HEAD_SIZE).unwrap_or(u32::MAX))
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    Arc::new(builder)
}

/// The state that the requests of one connection share.
#[derive(Debug)]
pub(super) struct Connection {
    /// The address of the peer: a client, or a proxy that forwards requests of clients.
    pub(super) peer: SocketAddr,
    pub(super) activity: Arc<Activity>,
    /// Whether bytes have arrived since the last request that was read to its end.
    unread: AtomicBool,
    /// The permits of simultaneous requests while the connection is unproven. Closed once the connection is proven.
    places: Arc<Semaphore>,
}

impl Connection {
    /// A connection from `peer`. A connection of a trusted proxy counts as proven: otherwise one client would delay the
    /// proxy's other clients.
    pub(super) fn new(peer: SocketAddr, is_proxy: bool) -> Self {
        let connection = Self {
            peer,
            activity: Activity::new(),
            unread: AtomicBool::new(false),
            places: Arc::new(Semaphore::new(UNPROVEN)),
        };
        if is_proxy {
            connection.prove();
        }
        connection
    }

    /// Marks the connection as proven: from now on all its requests are processed, also those that wait for a permit.
    pub(super) fn prove(&self) {
        self.places.close();
    }

    /// Notes that bytes have arrived.
    pub(super) fn hear(&self) {
        self.unread.store(true, Ordering::Relaxed);
    }

    /// Notes that a request is answered and was read to its end.
    pub(super) fn finish(&self) {
        self.unread.store(false, Ordering::Relaxed);
    }

    /// Whether the client may still be sending the rest of an answered request.
    pub(super) fn is_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }

    /// Waits at most `patience` for a request permit. `None`: the connection is proven, and its requests need no
    /// permit.
    pub(super) async fn place(
        &self,
        patience: Duration,
    ) -> Result<Option<OwnedSemaphorePermit>, UnprovenLimitReached> {
        let place = timeout(patience, self.places.clone().acquire_owned()).await;
        place.map(Result::ok).map_err(|_| UnprovenLimitReached)
    }
}
