//! How a simulator is started.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// What can be chosen at the start; everything else is changed while it runs, through [`Control`](crate::Control).
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Whether any well-shaped appid with any secret is an account from its first token fetch on. Otherwise only those
    /// that control registered are.
    pub open: bool,
    /// How long every answer takes unless an account says otherwise.
    pub latency: Duration,
    /// Decides which calls a fault with a probability hits.
    pub seed: u64,
    /// Accepted messages kept per account; 0 keeps none.
    pub journal: usize,
    /// Whether a kept message includes its request body.
    pub journal_bodies: bool,
    /// Whether accepted messages are counted per user. Costs memory per user that ever got one.
    pub count_recipients: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            open: true,
            latency: Duration::ZERO,
            seed: 1,
            journal: 100_000,
            journal_bodies: true,
            count_recipients: true,
        }
    }
}

impl Options {
    /// The defaults at this address.
    pub fn at(listen: SocketAddr) -> Self {
        Self {
            listen,
            ..Self::default()
        }
    }

    /// For benchmarks: keeps no messages and counts no users.
    #[must_use]
    pub fn lean(self) -> Self {
        Self {
            journal: 0,
            count_recipients: false,
            ..self
        }
    }
}
