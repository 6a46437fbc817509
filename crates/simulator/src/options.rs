//! The options at the start of a simulator.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// The settings fixed at the start; [`Control`](crate::Control) changes all other settings of a running simulator.
#[derive(Clone, Debug)]
pub struct Options {
    /// The address to listen on. Port 0 takes a free port.
    pub listen: SocketAddr,
    /// Whether any well-shaped appid with any secret is an account from the first token fetch on. Otherwise only
    /// accounts registered through [`Control`](crate::Control) exist.
    pub open: bool,
    /// The delay of every answer of accounts without a latency setting.
    pub latency: Duration,
    /// The seed that decides which calls a fault with a probability affects.
    pub seed: u64,
    /// Accepted messages kept per account; 0 keeps none.
    pub journal: usize,
    /// Whether a kept message includes the request body.
    pub journal_bodies: bool,
    /// Whether accepted messages are counted per user. Costs memory for every user with a message.
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

    /// The options for benchmarks: keep no messages and count no users.
    #[must_use]
    pub fn lean(self) -> Self {
        Self {
            journal: 0,
            count_recipients: false,
            ..self
        }
    }
}
