//! The limit on pass-through calls that are with WeChat at the same time.

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

/// How many calls are with WeChat at the same time: each answer may have 10 MiB and take half a minute.
const AT_ONCE: usize = 32;
/// How many of these calls may be one tenant's.
const OF_ONE_TENANT: usize = 8;
/// How long a call waits for its permit.
const PATIENCE: Duration = Duration::from_secs(3);

/// The permit of one call. Held for the exchange with WeChat only, never while a client sends or reads.
pub(super) struct CallSlot(
    #[expect(dead_code, reason = "returned when dropped")] [OwnedSemaphorePermit; 2],
);

/// The permits of all calls.
pub(super) struct CallSlots {
    all: Arc<Semaphore>,
    /// The tenants that have calls in progress.
    tenants: Mutex<HashMap<TenantId, Arc<Semaphore>>>,
}

impl CallSlots {
    pub(super) fn new() -> Self {
        Self {
            all: Arc::new(Semaphore::new(AT_ONCE)),
            tenants: Mutex::default(),
        }
    }

    /// The tenant's next permit. `None`: no permit was free in time. A call that waits for a permit of its tenant takes
    /// none of the common permits.
    pub(super) async fn take(&self, tenant: TenantId) -> Option<CallSlot> {
        let own = self.of(tenant);
        let both = async {
            let own = own.acquire_owned().await.ok()?;
            let all = self.all.clone().acquire_owned().await.ok()?;
            Some(CallSlot([own, all]))
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
