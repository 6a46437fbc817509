//! The addresses of requests, and what this replica remembers of failures and successes from each.

use std::{fmt, net::IpAddr, time::Duration};

use chrono::{DateTime, Utc};
use coord::RateLimit;
use moka::sync::Cache;
use uuid::Uuid;

const REMEMBERED: u64 = 100_000;
/// How long after a success a client passes while the client's address is refused.
pub(crate) const TRUST: Duration = Duration::from_hours(24);

/// The source address of a request: the client, or the last hop before a proxy that is not trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

impl ClientAddress {
    /// The address that requests are counted under: the address itself, or the first 64 bits of an IPv6 address.
    pub fn network(self) -> IpAddr {
        Network::of(self.0).0
    }
}

/// The unit of counting: an IPv4 address, or the 64 bits of an IPv6 address that one customer gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network(IpAddr);

/// Shows the address, or the first address of the 64-bit network.
impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What is counted for each network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum AuthCounter {
    /// A client secret, good or bad.
    Try,
    /// A bad client secret.
    Secret,
    /// A bad token.
    Token,
    /// A callback without WeChat's signature.
    Signature,
}

/// What this replica remembers of addresses.
pub(crate) struct Addresses {
    /// The end of each network's refusal.
    pub(crate) refused: Cache<(AuthCounter, Network), DateTime<Utc>>,
    /// The keys that succeeded from each network, and when this replica last shared the success with the other
    /// replicas.
    pub(crate) proven: Cache<(Network, Uuid), DateTime<Utc>>,
}

impl Network {
    /// The network of an address.
    pub fn of(address: IpAddr) -> Self {
        const HALF: u32 = 64;
        match address.to_canonical() {
            IpAddr::V6(six) => Self(IpAddr::from((six.to_bits() >> HALF << HALF).to_be_bytes())),
            four @ IpAddr::V4(_) => Self(four),
        }
    }
}

impl AuthCounter {
    /// The name of the count, and the limit.
    pub(crate) fn limit(self) -> (&'static str, RateLimit) {
        let a_minute = |rate, burst| RateLimit::new(rate, Duration::from_mins(1), burst);
        match self {
            // A hundred clients that all start at once are no attack.
            Self::Try => ("tries", a_minute(600, 600)),
            Self::Secret => ("failed-secrets", a_minute(10, 20)),
            Self::Token => ("failed-tokens", a_minute(60, 120)),
            Self::Signature => ("failed-signatures", a_minute(60, 120)),
        }
    }
}

impl Addresses {
    pub(crate) fn new() -> Self {
        Self {
            refused: Cache::new(REMEMBERED),
            proven: Cache::builder()
                .max_capacity(REMEMBERED)
                .time_to_live(TRUST)
                .build(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_counts_by_half_and_four_as_a_whole() {
        let network = |text: &str| Network::of(text.parse().unwrap());
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:1:2:3"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
    }
}
