//! The requests with an idempotency key that run on this replica.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use domain::id::TenantId;

type Name = (Option<TenantId>, String);

/// The idempotency keys of the requests that run at this moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Running(Arc<Mutex<HashSet<Name>>>);

/// The right of one request to run under an idempotency key; dropping the value releases the key.
#[derive(Debug)]
pub struct IdempotencyGuard {
    running: Running,
    name: Name,
}

impl Drop for IdempotencyGuard {
    fn drop(&mut self) {
        self.running.names().remove(&self.name);
    }
}

impl Running {
    pub(crate) fn hold(&self, name: Name) -> Option<IdempotencyGuard> {
        let fresh = self.names().insert(name.clone());
        fresh.then(|| IdempotencyGuard {
            running: self.clone(),
            name,
        })
    }

    fn names(&self) -> std::sync::MutexGuard<'_, HashSet<Name>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
