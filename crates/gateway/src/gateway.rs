//! The gateway as a library: start, use, stop. Several gateways in one process are independent of each other.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use api::{ApiState, HttpMetrics, NotReady, Readiness};
use axum::{Router, middleware::from_fn};
use console::ConsoleState;
use coord::{Clock, CoordError};
use delivery::Delivery;
use prometheus_client::registry::Registry;
use store::{Store, StoreError};
use tenancy::{Tenancy, TenancyError};
use tokio::{
    net::{TcpListener, TcpSocket},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use wechat::ClientError;

use crate::{
    config::{Config, Mode},
    health_monitor::{Health, HealthMonitor},
    replica::{self, Sending},
    server::{Server, ServerOptions},
    timekeeper::Timekeeper,
    traces,
};

/// The length of the accept queue. The system may allow fewer connections (`net.core.somaxconn`).
const CROWD: u32 = 4096;

/// The reason why a gateway did not start. The text names the remedy.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The schema is older than the program.
    #[error(
        "the database's schema is older than this program (pending migrations: {pending}): run `wxgate migrate up`, or `wxgate serve` without --no-migrate"
    )]
    Pending {
        /// The number of pending migrations.
        pending: usize,
    },
    /// Redis cannot be used.
    #[error(transparent)]
    Coord(#[from] CoordError),
    /// The client of WeChat cannot start, such as for a wrong base URL.
    #[error(transparent)]
    Wechat(#[from] ClientError),
    /// The keys in the database, or the master key that opens the keys, cannot be used.
    #[error(transparent)]
    Tenancy(#[from] TenancyError),
    /// Another program listens on the address.
    #[error(
        "another program listens on {address}: choose another address with WXGATE_LISTEN, or stop that program"
    )]
    AddressTaken {
        /// The address on which the gateway should listen.
        address: SocketAddr,
    },
    /// The system does not let the gateway listen on the address.
    #[error(
        "cannot listen on {address} ({source}): choose an address of this machine and a port above 1023 with WXGATE_LISTEN"
    )]
    Listen {
        /// The address on which the gateway should listen.
        address: SocketAddr,
        /// The error of the system.
        source: io::Error,
    },
}

/// A running gateway. [`Gateway::stop`] ends the gateway. Dropping the gateway closes its port, but its engine
/// continues until the runtime ends.
#[derive(Debug)]
pub struct Gateway {
    store: Store,
    tenancy: Tenancy,
    sending: Sending,
    timekeeper: Timekeeper,
    watch: HealthMonitor,
    server: Server,
    base_url: String,
    /// Cancelled when the gateway begins to stop.
    stopping: CancellationToken,
    grace: Duration,
    patience: Duration,
}

impl Gateway {
    /// Starts all parts. When this function returns, the gateway answers requests and sends due messages.
    pub async fn start(config: Config, clock: Clock) -> Result<Self, StartError> {
        let store = replica::open_store(&config).await?;
        // The timekeeper starts before any part reads the time.
        let timekeeper = Timekeeper::start(&store, &clock).await?;
        let coord = replica::open_coord(&config, clock.clone())?;
        let (listener, address) = bind(config.listen)?;
        let base_url = base_url(&config, address);
        let tenancy =
            replica::open_tenancy(&config, store.clone(), coord.clone(), &base_url).await?;
        if matches!(config.mode, Mode::Production { .. }) && config.public_url.is_some() {
            replica::compare_urls(&coord, &base_url).await;
        }
        let mut registry = Registry::default();
        let http = HttpMetrics::register(&mut registry);
        let sending = Sending::start(&config, store.clone(), coord.clone(), &mut registry)?;
        let health = Health::new(store.clone(), sending.delivery.clone());
        let watch = HealthMonitor::start(health.clone(), coord, &mut registry);
        let stopping = CancellationToken::new();
        let router = RouterParts {
            config: &config,
            store: &store,
            tenancy: &tenancy,
            delivery: &sending.delivery,
            health,
            base_url: &base_url,
            stopping: &stopping,
            clock,
        }
        .router(registry, http);
        let doorway = ServerOptions {
            proxies: config.trusted_proxies.clone(),
            max_connections: config.max_connections,
            patience: config.patience,
        };
        let server = Server::start(listener, address, router, doorway);
        tracing::info!(%address, base_url, mode = config.mode.as_str(), version = env!("CARGO_PKG_VERSION"), "the gateway listens");
        if matches!(config.mode, Mode::Production { .. }) && config.public_url.is_none() {
            tracing::warn!(
                base_url,
                "WXGATE_PUBLIC_URL is not set: set the same URL on all replicas, so that they accept each other's tokens"
            );
        }
        Ok(Self {
            store,
            tenancy,
            sending,
            timekeeper,
            watch,
            server,
            base_url,
            stopping,
            grace: config.shutdown_grace,
            patience: config.shutdown_timeout,
        })
    }

    /// The address on which the gateway listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// The public base URL of the gateway, without a trailing slash; also the issuer and the audience of its access
    /// tokens.
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// The URL of the gateway on this machine.
    pub fn local_url(&self) -> String {
        local_url(self.address())
    }

    /// The tenants, their keys and tokens.
    pub fn tenancy(&self) -> &Tenancy {
        &self.tenancy
    }

    /// The engine that accepts and sends messages.
    pub fn delivery(&self) -> &Delivery {
        &self.sending.delivery
    }

    /// The database.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Stops the gateway: reports not ready, answers requests that wait for a message, accepts connections during the
    /// configured grace period and none after; then answers the requests in progress, waits for the sends in flight and
    /// their records, and closes the database. Returns whether all steps finished within the shutdown time-out. The
    /// leases of unrecorded sends decide about the rest.
    pub async fn stop(self) -> bool {
        let deadline = Instant::now() + self.patience;
        let left = || deadline.saturating_duration_since(Instant::now());
        self.stopping.cancel();
        self.server.drain();
        self.delivery().dismiss_waiters();
        sleep(self.grace.min(self.patience / 2)).await;
        // Requests that wait for the result of their own send are answered while the engine still works.
        self.delivery().dismiss_attending(left() / 4);
        let answered = self.server.stop(left() / 2).await;
        let recorded = self.sending.stop(left()).await;
        drop(self.tenancy);
        self.watch.stop().await;
        self.timekeeper.stop().await;
        if let Err(error) = self.store.close().await {
            tracing::warn!(%error, "the database did not close cleanly");
        }
        if !answered || !recorded {
            tracing::warn!(
                answered,
                recorded,
                "the stop ended before all tasks had ended"
            );
        }
        answered && recorded
    }
}

/// The parts from which the router is built.
struct RouterParts<'a> {
    config: &'a Config,
    store: &'a Store,
    tenancy: &'a Tenancy,
    delivery: &'a Delivery,
    health: Health,
    base_url: &'a str,
    stopping: &'a CancellationToken,
    clock: Clock,
}

impl RouterParts<'_> {
    fn router(self, registry: Registry, http: HttpMetrics) -> Router {
        let clock = self.clock.clone();
        let now = Arc::new(move || clock.now());
        let ready = self.readiness();
        let api = ApiState {
            tenancy: self.tenancy.clone(),
            delivery: self.delivery.clone(),
            metrics: Arc::new(registry),
            http,
            ready,
            now: now.clone(),
            base_url: self.base_url.into(),
            cors_origins: self.config.cors_origins.clone().into(),
        };
        let console = ConsoleState {
            tenancy: self.tenancy.clone(),
            delivery: self.delivery.clone(),
            store: self.store.clone(),
            now,
            public_url: self.config.public_url.clone(),
        };
        let router = api::router(api, console::router(console));
        if self.config.traced {
            router.layer(from_fn(traces::follow))
        } else {
            router
        }
    }
}

impl RouterParts<'_> {
    fn readiness(&self) -> Readiness {
        let (health, delivery) = (self.health.clone(), self.delivery.clone());
        let (stopping, clock) = (self.stopping.clone(), self.clock.clone());
        Arc::new(move || {
            let (health, dead) = (health.clone(), delivery.dead_task());
            let (stops, trouble) = (stopping.is_cancelled(), clock.trouble());
            Box::pin(async move {
                if stops {
                    let words = "this replica is stopping: send requests to another replica";
                    return Err(NotReady::Shown(words.to_owned()));
                }
                if let Some(task) = dead {
                    let words = format!(
                        "the engine's task `{task}` has ended unexpectedly: restart this replica"
                    );
                    return Err(NotReady::Logged(words));
                }
                if let Some(trouble) = trouble {
                    return Err(NotReady::Shown(trouble.to_string()));
                }
                health.look().await.map_err(NotReady::Logged)
            })
        })
    }
}

/// Checks whether a gateway could listen on the address, for commands that write nothing before the check. No client
/// can connect meanwhile.
pub(crate) fn check_address(address: SocketAddr) -> Result<(), StartError> {
    reserve(address)
        .map(drop)
        .map_err(|source| refused(address, source))
}

fn refused(address: SocketAddr, source: io::Error) -> StartError {
    match source.kind() {
        io::ErrorKind::AddrInUse => StartError::AddressTaken { address },
        _ => StartError::Listen { address, source },
    }
}

/// Like `TcpListener::bind`, with a longer accept queue for many simultaneous clients: a client that finds the default
/// queue of 1,024 full waits seconds until its kernel connects again.
fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let listen = || {
        let listener = reserve(address)?.listen(CROWD)?;
        let bound = listener.local_addr()?;
        Ok((listener, bound))
    };
    listen().map_err(|source| refused(address, source))
}

/// Binds the address. No client can connect yet.
fn reserve(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

fn base_url(config: &Config, address: SocketAddr) -> String {
    let url = config
        .public_url
        .clone()
        .unwrap_or_else(|| local_url(address));
    url.trim_end_matches('/').to_owned()
}

/// A URL that works on this machine, also where the gateway listens on all addresses.
fn local_url(mut address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    format!("http://{address}")
}
