//! Leases for work that need not be done twice.
//!
//! A lease saves work and is not needed for correctness: a lease ends after its ttl, Redis may lose the lease, and two
//! replicas then do the same work. The owner of a new lease must check again whether the work is still needed, because
//! the previous owner may have done the work meanwhile.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use dashmap::{DashMap, Entry};

use crate::{Clock, CoordError};

/// Leases by name. The caller chooses the owner, which must be different for every use by every replica.
#[async_trait]
pub trait Leases: Send + Sync {
    /// Takes the lease for `ttl`, unless another owner has the lease. The same owner prolongs the lease.
    async fn take(&self, name: &str, owner: &str, ttl: Duration) -> Result<bool, CoordError>;

    /// Prolongs the lease to `ttl` from now; `false` means that the lease was lost.
    async fn renew(&self, name: &str, owner: &str, ttl: Duration) -> Result<bool, CoordError>;

    /// Releases the lease; `false` means that the lease was lost before.
    async fn release(&self, name: &str, owner: &str) -> Result<bool, CoordError>;
}

/// Leases among the tasks of this process.
pub(crate) struct LocalLeases {
    clock: Clock,
    held: DashMap<String, HeldLease>,
}

struct HeldLease {
    owner: String,
    until: DateTime<Utc>,
}

impl LocalLeases {
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            clock,
            held: DashMap::new(),
        }
    }
}

#[async_trait]
impl Leases for LocalLeases {
    async fn take(&self, name: &str, owner: &str, ttl: Duration) -> Result<bool, CoordError> {
        let now = self.clock.now();
        match self.held.entry(name.to_owned()) {
            Entry::Occupied(held) if held.get().until > now && held.get().owner != owner => {
                Ok(false)
            }
            entry => {
                entry.insert(HeldLease {
                    owner: owner.to_owned(),
                    until: now + ttl,
                });
                Ok(true)
            }
        }
    }

    async fn renew(&self, name: &str, owner: &str, ttl: Duration) -> Result<bool, CoordError> {
        let now = self.clock.now();
        let held = self
            .held
            .get_mut(name)
            .filter(|held| held.until > now && held.owner == owner);
        Ok(held.map(|mut held| held.until = now + ttl).is_some())
    }

    async fn release(&self, name: &str, owner: &str) -> Result<bool, CoordError> {
        let now = self.clock.now();
        let released = self.held.remove_if(name, |_, held| held.owner == owner);
        Ok(released.is_some_and(|(_, held)| held.until > now))
    }
}
