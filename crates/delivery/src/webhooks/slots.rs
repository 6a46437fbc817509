//! The slots of this replica: how many posts are in progress at the same time, and for which tenants.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use domain::id::TenantId;
use store::{HeldSlots, Slots};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The slots. Clones share the same slots.
#[derive(Clone)]
pub(super) struct PostSlots {
    free: Arc<Semaphore>,
    held: Arc<Mutex<BTreeMap<TenantId, HeldSlots>>>,
}

/// A slot that a post holds. Free again on drop.
pub(super) struct HeldSlot {
    slots: PostSlots,
    tenant: TenantId,
    failing: bool,
    _permit: OwnedSemaphorePermit,
}

impl PostSlots {
    pub(super) fn new(count: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(count)),
            held: Arc::default(),
        }
    }

    /// All free slots, as soon as there is one.
    pub(super) async fn free(&self) -> Option<OwnedSemaphorePermit> {
        let mut permits = self.free.clone().acquire_owned().await.ok()?;
        let rest = u32::try_from(self.free.available_permits()).unwrap_or(0);
        if let Ok(rest) = self.free.clone().try_acquire_many_owned(rest) {
            permits.merge(rest);
        }
        Some(permits)
    }

    /// The slots for a claim: the number of free slots, and the tenants that hold the others.
    pub(super) fn with_free(&self, free: usize) -> Slots {
        let held = self.held().clone();
        Slots { free, held }
    }

    /// Gives a free slot to a post of the tenant.
    pub(super) fn give(
        &self,
        permit: OwnedSemaphorePermit,
        tenant: TenantId,
        failing: bool,
    ) -> HeldSlot {
        let mut held = self.held();
        let own = held.entry(tenant).or_default();
        own.all += 1;
        own.failing += usize::from(failing);
        HeldSlot {
            slots: self.clone(),
            tenant,
            failing,
            _permit: permit,
        }
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<TenantId, HeldSlots>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for HeldSlot {
    fn drop(&mut self) {
        let mut held = self.slots.held();
        if let Some(own) = held.get_mut(&self.tenant) {
            own.all -= 1;
            own.failing -= usize::from(self.failing);
            if own.all == 0 {
                held.remove(&self.tenant);
            }
        }
    }
}
