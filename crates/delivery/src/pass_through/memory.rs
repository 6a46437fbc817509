//! Memory for the bodies of pass-through calls: one budget for the whole process, shared among the tenants.
//!
//! A tenant may hold half of the free memory. So a tenant that takes all it can leaves two thirds of the budget, and
//! each further tenant leaves two thirds of the rest: there is always memory for the next tenant.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use domain::id::TenantId;
use tokio::{sync::Notify, time::timeout};

use super::error::PassThroughError;

/// How many bytes are held at once: requests until WeChat has answered, answers until the client has read them.
const BUDGET: usize = 96 * 1024 * 1024;
/// How many calls of one tenant are held at once, from the first byte of the request to the last byte of the answer.
const CALLS_OF_ONE_TENANT: usize = 64;
/// How long a call waits for memory.
const PATIENCE: Duration = Duration::from_secs(3);

/// The memory for all bodies.
pub(super) struct MemoryBudget(Arc<SharedMemory>);

struct SharedMemory {
    budget: usize,
    held: Mutex<HeldMemory>,
    /// Notified whenever memory is released.
    freed: Notify,
}

#[derive(Default)]
struct HeldMemory {
    bytes: usize,
    tenants: HashMap<TenantId, TenantShare>,
}

#[derive(Default)]
struct TenantShare {
    calls: usize,
    bytes: usize,
}

/// The memory that one call holds. Released on drop.
pub struct BodyMemory {
    shared: Arc<SharedMemory>,
    tenant: TenantId,
    bytes: usize,
}

impl MemoryBudget {
    pub(super) fn new() -> Self {
        Self::of(BUDGET)
    }

    fn of(budget: usize) -> Self {
        Self(Arc::new(SharedMemory {
            budget,
            held: Mutex::default(),
            freed: Notify::new(),
        }))
    }

    /// Memory for one more call of the tenant, with a body of `bytes` bytes.
    pub(super) async fn take(
        &self,
        tenant: TenantId,
        bytes: usize,
    ) -> Result<BodyMemory, PassThroughError> {
        self.0.wait(tenant, 1, bytes).await?;
        Ok(BodyMemory {
            shared: Arc::clone(&self.0),
            tenant,
            bytes,
        })
    }
}

impl SharedMemory {
    /// Takes the memory as soon as it is free. Fails with [`PassThroughError::Full`] after [`PATIENCE`].
    async fn wait(
        &self,
        tenant: TenantId,
        calls: usize,
        bytes: usize,
    ) -> Result<(), PassThroughError> {
        let taken = async {
            loop {
                let freed = self.freed.notified();
                tokio::pin!(freed);
                // Enabled before the check, so that no release between the check and the wait is missed.
                freed.as_mut().enable();
                if self.try_take(tenant, calls, bytes) {
                    return;
                }
                freed.await;
            }
        };
        let taken = timeout(PATIENCE, taken).await;
        taken.map_err(|_| PassThroughError::Full)
    }

    fn try_take(&self, tenant: TenantId, calls: usize, bytes: usize) -> bool {
        let mut held = self.lock();
        let share = held.tenants.get(&tenant);
        let (own_calls, own_bytes) = share.map_or((0, 0), |share| (share.calls, share.bytes));
        // Answers that clients do not read may exceed the budget. At twice the budget, no more calls are taken.
        let free = self.budget.saturating_sub(held.bytes);
        let fits = own_calls + calls <= CALLS_OF_ONE_TENANT
            && own_bytes + bytes <= free / 2
            && held.bytes < 2 * self.budget;
        if fits {
            held.add(tenant, calls, bytes);
        }
        fits
    }

    fn lock(&self) -> MutexGuard<'_, HeldMemory> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HeldMemory {
    fn add(&mut self, tenant: TenantId, calls: usize, bytes: usize) {
        self.bytes += bytes;
        let share = self.tenants.entry(tenant).or_default();
        share.calls += calls;
        share.bytes += bytes;
    }

    fn give_back(&mut self, tenant: TenantId, bytes: usize) {
        self.bytes -= bytes;
        if let Some(share) = self.tenants.get_mut(&tenant) {
            share.calls -= 1;
            share.bytes -= bytes;
            if share.calls == 0 {
                self.tenants.remove(&tenant);
            }
        }
    }
}

impl BodyMemory {
    /// Grows the reservation to a body of `bytes` bytes in all.
    pub async fn grow_to(&mut self, bytes: usize) -> Result<(), PassThroughError> {
        let more = bytes.saturating_sub(self.bytes);
        if more > 0 {
            self.shared.wait(self.tenant, 0, more).await?;
            self.bytes += more;
        }
        Ok(())
    }

    /// The answer, which holds this memory until it is dropped. The answer is in memory already, so it is counted
    /// without a wait.
    pub(super) fn holding(mut self, answer: Bytes) -> Bytes {
        self.shared.lock().add(self.tenant, 0, answer.len());
        self.bytes += answer.len();
        Bytes::from_owner(HeldAnswer {
            answer,
            _room: self,
        })
    }
}

impl Drop for BodyMemory {
    fn drop(&mut self) {
        self.shared.lock().give_back(self.tenant, self.bytes);
        self.shared.freed.notify_waiters();
    }
}

impl std::fmt::Debug for BodyMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Room({} bytes of {})", self.bytes, self.tenant)
    }
}

/// An answer and its memory.
struct HeldAnswer {
    answer: Bytes,
    _room: BodyMemory,
}

impl AsRef<[u8]> for HeldAnswer {
    fn as_ref(&self) -> &[u8] {
        &self.answer
    }
}

#[cfg(test)]
mod tests;
