//! Starting and stopping the simulator.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::control::Control;
use crate::options::Options;
use crate::push;
use crate::server;
use crate::world::World;

/// How long [`Simulator::stop`] waits for clients to close their connections.
const PATIENCE: Duration = Duration::from_secs(2);

/// Connections that may wait to be accepted; the system may allow fewer (`net.core.somaxconn`).
const CROWD: u32 = 4096;

/// A running simulator. Dropping the value also stops the simulator, without waiting.
#[derive(Debug)]
pub struct Simulator {
    address: SocketAddr,
    control: Control,
    stop: DropGuard,
    tasks: JoinSet<io::Result<()>>,
}

/// Why a simulator did not start; the text says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SimulatorStartError {
    /// Another program listens on the address.
    #[error(
        "{address} is taken by another program; choose another port (0 finds a free one) or stop that program"
    )]
    AddressTaken {
        /// The address from [`Options::listen`].
        address: SocketAddr,
    },
    /// The system does not allow this user to listen on the address.
    #[error("no permission to listen on {address}; choose a port above 1023")]
    NoPermission {
        /// The address from [`Options::listen`].
        address: SocketAddr,
    },
    /// The system refuses for another reason.
    #[error("cannot listen on {address}: {source}; check that the address belongs to this machine")]
    Listen {
        /// The address from [`Options::listen`].
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
}

impl Simulator {
    /// Binds the address, and serves in the background of the current Tokio runtime from then on.
    #[expect(
        clippy::unused_async,
        reason = "it needs a runtime, as who awaits it has"
    )]
    pub async fn start(options: Options) -> Result<Self, SimulatorStartError> {
        let wanted = options.listen;
        let refused = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => SimulatorStartError::AddressTaken { address: wanted },
            io::ErrorKind::PermissionDenied => {
                SimulatorStartError::NoPermission { address: wanted }
            }
            _ => SimulatorStartError::Listen {
                address: wanted,
                source,
            },
        };
        let listener = listen(wanted).map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let world = Arc::new(World::new(options, u64::from(address.port())));
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        if let Some(posts) = world.posts() {
            tasks.spawn(push::run(Arc::clone(&world), posts, stop.clone()));
        }
        tasks.spawn(server::serve(listener, Arc::clone(&world), stop.clone()));
        tracing::info!(%address, "the WeChat simulator listens");
        Ok(Self {
            address,
            control: Control::new(world),
            stop: stop.drop_guard(),
            tasks,
        })
    }

    /// The address that the simulator listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL to use instead of `https://api.weixin.qq.com`: `http://127.0.0.1:PORT`.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The control interface of the simulator.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Closes the listener and every connection. Calls under a simulated latency are answered at once; hanging calls
    /// are reset.
    pub async fn stop(self) {
        let Self {
            stop, mut tasks, ..
        } = self;
        drop(stop);
        let ended = async {
            while let Some(ended) = tasks.join_next().await {
                if let Ok(Err(error)) = ended {
                    tracing::warn!(%error, "the simulator's listener ended with an error");
                }
            }
        };
        if tokio::time::timeout(PATIENCE, ended).await.is_err() {
            tracing::debug!(
                "clients still hold connections to the simulator; they are left to close"
            );
        }
    }
}

/// As `TcpListener::bind`, with a longer accept queue for many connections at once: a client that finds the default
/// queue of 1,024 full waits seconds, until the client's kernel tries again.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(CROWD)
}
