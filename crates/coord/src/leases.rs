//! Leases: turns at doing something that need not be done twice.
//!
//! A lease saves work and is not needed for correctness: it ends by itself, Redis may forget it, and then two
//! replicas do the same thing. Whoever uses one looks again after taking it, because the work may have been
//! done while it waited.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use dashmap::{DashMap, Entry};

use crate::{Clock, CoordError};

/// Turns, by name. An owner is whoever the caller says: make it different for every turn of every replica.
#[async_trait]
pub trait Leases: Send + Sync {
    /// Takes the lease for `ttl`, unless another owner has it. Taking one's own again prolongs it.
    async fn take(&self, name: &str, owner: &str, ttl: Duration) -> Result<bool, CoordError>;

    /// Prolongs the lease to `ttl` from now; `false` means that it was lost.
    async fn renew(&self, name: &str, owner: &str, ttl: Duration) -> Result<bool, CoordError>;

    /// Gives the lease back; `false` means that it was lost before.
    async fn release(&self, name: &str, owner: &str) -> Result<bool, CoordError>;
}

/// Leases among the tasks of this process.
pub(crate) struct LocalLeases {
    clock: Clock,
    held: DashMap<String, Held>,
}

struct Held {
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
                entry.insert(Held {
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
