//! One connection: what it may do until it has proven something, and how long it may do nothing.

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
use tenancy::NoRoom;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::activity::Activity;
use crate::config::Patience;

/// The largest head of a request, in bytes.
const HEAD_SIZE: usize = 32 * 1024;
/// How many requests may be under way on one HTTP/2 connection.
const STREAMS: u32 = 128;
/// How many of them are looked at until one has proven something.
const UNPROVEN: usize = 8;
/// How much of bodies an HTTP/2 connection takes before somebody reads it: what the protocol begins with. It cannot be less.
const WINDOW: u32 = 65_535;
/// The same from a proxy, which speaks for many.
const PROXY_WINDOW: u32 = 1024 * 1024;
/// How HTTP/2 peers that went away are noticed.
const PING: Duration = Duration::from_secs(30);

/// What speaks HTTP on connections.
pub(super) fn builder(patience: Patience, is_proxy: bool) -> Arc<Builder<TokioExecutor>> {
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

/// What the requests of one connection share.
#[derive(Debug)]
pub(super) struct Connection {
    /// Where it comes from: a client, or a proxy that speaks for one.
    pub(super) peer: SocketAddr,
    pub(super) activity: Arc<Activity>,
    /// Whether something has come since the last request that was read to its end.
    unread: AtomicBool,
    /// Places of requests while nothing is proven; closed from then on.
    places: Arc<Semaphore>,
}

impl Connection {
    /// A connection from `peer`. One of a trusted proxy has nothing to prove: one client of it would hold up the others.
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

    /// A request on it has proven who sends it: all are looked at from now on, those that wait among them.
    pub(super) fn prove(&self) {
        self.places.close();
    }

    /// Bytes have come.
    pub(super) fn hear(&self) {
        self.unread.store(true, Ordering::Relaxed);
    }

    /// A request is answered and was read to its end.
    pub(super) fn finish(&self) {
        self.unread.store(false, Ordering::Relaxed);
    }

    /// Whether the client may still be sending the rest of a request that is answered.
    pub(super) fn is_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }

    /// A place for one more request, as soon as there is one; none: it needs none.
    pub(super) async fn place(
        &self,
        patience: Duration,
    ) -> Result<Option<OwnedSemaphorePermit>, NoRoom> {
        let place = timeout(patience, self.places.clone().acquire_owned()).await;
        place.map(Result::ok).map_err(|_| NoRoom)
    }
}
