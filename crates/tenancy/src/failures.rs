//! Limits on failed authentication per client address.
//!
//! Successful clients are hardly limited. An address with many failures is limited strictly, and then refused without a
//! query to the database: this replica remembers the end of the refusal. A client that recently succeeded from an
//! address, at any replica, passes regardless of other clients' failures from that address: all of these clients may
//! use one proxy.

use std::time::Duration;

use chrono::{DateTime, Utc};
use coord::{Cell, RateLimit};
use domain::id::KeyId;

use crate::{
    Network, Tenancy,
    addresses::{AuthCounter, TRUST},
};

/// The interval at which a replica shares the repeated success of one client with the other replicas.
const SHOW_AGAIN: Duration = Duration::from_hours(1);

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
        let look = format!("looks/{network}");
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
        let key = format!("{what}/{network}");
        let decision = self.count(&key, quota).await;
        if decision.allowed {
            return Ok(());
        }
        let until = self.0.coord.clock().now() + decision.retry_after;
        self.0.addresses.refused.insert((door, network), until);
        tracing::warn!(network = %network, what, "too many requests from one address, which the gateway refuses for a moment; if the address is your proxy's, set WXGATE_TRUSTED_PROXIES");
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
}

/// The name of the shared cell that says that `key` succeeded from `network`.
fn shown_at(network: Network, key: KeyId) -> String {
    format!("proven/{network}/{key}")
}
