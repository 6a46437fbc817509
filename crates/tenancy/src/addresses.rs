//! Limits on failed authentication per client address.
//!
//! Successful clients are hardly limited. An address with many failures is limited strictly, and then refused without a
//! query to the database: this replica remembers the end of the refusal. A client that recently succeeded from an
//! address, at any replica, passes regardless of other clients' failures from that address: all of these clients may
//! use one proxy.

use std::{fmt, net::IpAddr, time::Duration};

use chrono::{DateTime, Utc};
use coord::{Cell, Decision, RateLimit};
use domain::id::KeyId;
use moka::sync::Cache;
use uuid::Uuid;

use crate::{Tenancy, bearer::OPEN};

const REMEMBERED: u64 = 100_000;
/// How long after a success a client passes while the client's address is refused.
const TRUST: Duration = Duration::from_hours(24);
/// The interval at which a replica shares the repeated success of one client with the other replicas.
const SHOW_AGAIN: Duration = Duration::from_hours(1);

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
    refused: Cache<(AuthCounter, Network), DateTime<Utc>>,
    /// The keys that succeeded from each network, and when this replica last shared the success with the other
    /// replicas.
    proven: Cache<(Network, Uuid), DateTime<Utc>>,
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
    fn limit(self) -> (&'static str, RateLimit) {
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

impl Tenancy {
    fn network(&self) -> Option<Network> {
        self.1.address.map(Network::of)
    }

    /// Whether the token endpoint checks a secret that names `key`; if not, the error is the time to wait.
    pub(crate) async fn admit_attempt(&self, key: Option<KeyId>) -> Result<(), Duration> {
        let Some(network) = self.network() else {
            return Ok(());
        };
        if let Err(wait) = self.refused_until(AuthCounter::Secret, network) {
            let is_proven = match key {
                Some(key) => self.is_proven(network, key).await,
                None => false,
            };
            if !is_proven {
                return Err(wait);
            }
        }
        self.take(AuthCounter::Try, network).await
    }

    /// Whether `key` recently succeeded from `network`, at this replica or at another. For each network, at most 50
    /// look-ups a second read what other replicas shared: a refused client may name any key.
    async fn is_proven(&self, network: Network, key: KeyId) -> bool {
        let inner = &*self.0;
        let proven = &inner.addresses.proven;
        if proven.contains_key(&(network, key.uuid())) {
            return true;
        }
        let looks = RateLimit::new(50, Duration::from_secs(1), 200);
        let look = format!("looks/{}", network.0);
        let may_look = inner.alone.limits().check(&look, looks, 1).await;
        if !may_look.is_ok_and(|decision| decision.allowed) {
            return false;
        }
        let shown = inner.coord.cells().get(&shown_at(network, key)).await;
        let is_shown = shown.is_ok_and(|cell| cell.is_some());
        if is_shown {
            let now = inner.coord.clock().now();
            proven.insert((network, key.uuid()), now);
        }
        is_shown
    }

    /// Remembers the success of `key` in this replica and shares the success with the other replicas once an hour.
    pub(crate) async fn record_success(&self, key: KeyId) {
        let Some(network) = self.network() else {
            return;
        };
        let (inner, now) = (&*self.0, self.0.coord.clock().now());
        let pair = (network, key.uuid());
        let last = inner.addresses.proven.get(&pair);
        let shown = match last.filter(|last| now < *last + SHOW_AGAIN) {
            Some(last) => last,
            None if self.show(network, key, now).await => now,
            None => DateTime::UNIX_EPOCH,
        };
        inner.addresses.proven.insert(pair, shown);
    }

    /// Shares the success of `key` with the other replicas. One key fills at most a few hundred shared cells a day,
    /// from however many addresses.
    async fn show(&self, network: Network, key: KeyId, now: DateTime<Utc>) -> bool {
        let inner = &*self.0;
        let shows = RateLimit::new(10, Duration::from_hours(1), 100);
        let may_show = inner.alone.limits();
        let may_show = may_show.check(&format!("shows/{key}"), shows, 1).await;
        if !may_show.is_ok_and(|decision| decision.allowed) {
            return false;
        }
        let cell = Cell {
            value: Vec::new(),
            generation: 0,
        };
        let place = shown_at(network, key);
        inner
            .coord
            .cells()
            .put(&place, cell, now + TRUST)
            .await
            .is_ok()
    }

    /// Counts a failure; for too many, the error is the time until the address may try again.
    pub(crate) async fn count_failure(&self, door: AuthCounter) -> Result<(), Duration> {
        match self.network() {
            Some(network) => self.take(door, network).await,
            None => Ok(()),
        }
    }

    /// Counts one at `door`; for too many, the error is the time to wait. Until then this replica refuses without counting.
    async fn take(&self, door: AuthCounter, network: Network) -> Result<(), Duration> {
        self.refused_until(door, network)?;
        let (what, quota) = door.limit();
        let key = format!("{what}/{}", network.0);
        let decision = self.count(&key, quota).await;
        if decision.allowed {
            return Ok(());
        }
        let until = self.0.coord.clock().now() + decision.retry_after;
        self.0.addresses.refused.insert((door, network), until);
        tracing::warn!(network = %network.0, what, "too many requests from one address, which the gateway refuses for a moment; if the address is your proxy's, set WXGATE_TRUSTED_PROXIES");
        Err(decision.retry_after)
    }

    /// Counts a callback without WeChat's valid signature; for too many from one address, the error is the time to
    /// wait. Callbacks with a valid signature are accepted whatever the number of failures: the callbacks of all apps
    /// come from WeChat's few addresses, and one app with a wrong Token must not block the others.
    pub async fn count_failed_callback(&self) -> Result<(), Duration> {
        self.count_failure(AuthCounter::Signature).await
    }

    fn refused_until(&self, door: AuthCounter, network: Network) -> Result<(), Duration> {
        let until = self.0.addresses.refused.get(&(door, network));
        let left = until.and_then(|until| (until - self.0.coord.clock().now()).to_std().ok());
        match left {
            Some(left) if !left.is_zero() => Err(left),
            _ => Ok(()),
        }
    }

    /// Takes one from a bucket that all replicas share; from a bucket of this replica while the shared one is
    /// unavailable.
    pub(crate) async fn count(&self, key: &str, quota: RateLimit) -> Decision {
        let inner = &*self.0;
        match inner.coord.limits().check(key, quota, 1).await {
            Ok(decision) => decision,
            Err(error) => {
                tracing::debug!(%error, "counting requests for this replica only, because the shared count is unavailable");
                let alone = inner.alone.limits().check(key, quota, 1).await;
                alone.unwrap_or(OPEN)
            }
        }
    }
}

/// The name of the shared cell that says that `key` succeeded from `network`.
fn shown_at(network: Network, key: KeyId) -> String {
    format!("proven/{}/{key}", network.0)
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
