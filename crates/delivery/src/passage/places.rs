//! How many calls are with WeChat at once.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use domain::id::TenantId;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// How many calls are with WeChat at once: each may bring an answer of 10 MiB, for half a minute.
const AT_ONCE: usize = 32;
/// How many of them may be one tenant's.
const OF_ONE_TENANT: usize = 8;
/// How long a call waits for its place.
const PATIENCE: Duration = Duration::from_secs(3);

/// A call's place among those that are with WeChat. Held for the exchange alone, never while a client sends or reads.
pub(super) struct Place(
    #[expect(dead_code, reason = "given back when dropped")] [OwnedSemaphorePermit; 2],
);

/// As many places as calls may be with WeChat.
pub(super) struct Places {
    all: Arc<Semaphore>,
    /// Of the tenants that have calls under way.
    tenants: Mutex<HashMap<TenantId, Arc<Semaphore>>>,
}

impl Places {
    pub(super) fn new() -> Self {
        Self {
            all: Arc::new(Semaphore::new(AT_ONCE)),
            tenants: Mutex::default(),
        }
    }

    /// The tenant's next place; none: it was not free in time. Who waits for one of its own takes none of the others'.
    pub(super) async fn take(&self, tenant: TenantId) -> Option<Place> {
        let own = self.of(tenant);
        let both = async {
            let own = own.acquire_owned().await.ok()?;
            let all = self.all.clone().acquire_owned().await.ok()?;
            Some(Place([own, all]))
        };
        timeout(PATIENCE, both).await.ok()?
    }

    fn of(&self, tenant: TenantId) -> Arc<Semaphore> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        tenants.retain(|_, places| Arc::strong_count(places) > 1);
        let places = tenants.entry(tenant);
        places
            .or_insert_with(|| Arc::new(Semaphore::new(OF_ONE_TENANT)))
            .clone()
    }
}
