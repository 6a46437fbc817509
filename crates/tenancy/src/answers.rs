//! Requests under an idempotency key: recognised, kept apart while they run, answered the same again.
//!
//! A [`Turn`] is taken before anything is done. What is done then writes the answer down in its own transaction
//! ([`store::Keep`]), sealed, because an answer may hold a secret that nothing else keeps. Twins on one replica are
//! told apart here; of twins on two replicas the database lets one through.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use domain::{id::TenantId, seal::SealOwner};
use store::{IdempotencyKey, KeptAnswer, Recalled};

use crate::{Tenancy, TenancyError};

type Name = (Option<TenantId>, String);

/// The keys of requests that run at this moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Running(Arc<Mutex<HashSet<Name>>>);

/// What is to be done with a request under a key.
#[derive(Debug)]
pub enum Turn {
    /// Do it. Others with the key wait until this is dropped.
    Do(Held),
    /// It has been done: this was the answer.
    Done(String),
    /// It is being done.
    Busy,
    /// The key stands for another request.
    OtherRequest,
}

/// The turn of the one request that runs under a key.
#[derive(Debug)]
pub struct Held {
    running: Running,
    name: Name,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.running.names().remove(&self.name);
    }
}

impl Running {
    fn hold(&self, name: Name) -> Option<Held> {
        let fresh = self.names().insert(name.clone());
        fresh.then(|| Held {
            running: self.clone(),
            name,
        })
    }

    fn names(&self) -> std::sync::MutexGuard<'_, HashSet<Name>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tenancy {
    /// Whose turn it is under a key of the tenant, or of the operators.
    pub async fn turn(
        &self,
        tenant: Option<TenantId>,
        key: &IdempotencyKey,
    ) -> Result<Turn, TenancyError> {
        let Some(held) = self.0.running.hold((tenant, key.key.clone())) else {
            return Ok(Turn::Busy);
        };
        // Looked at with the turn taken: who had it before has put its answer down.
        let now = self.0.coord.clock().now();
        Ok(match self.0.store.recall(tenant, key, now).await? {
            Recalled::Nothing => Turn::Do(held),
            Recalled::OtherRequest => Turn::OtherRequest,
            Recalled::Answer(sealed) => {
                let owner = SealOwner::kept_answer(tenant, &key.key);
                Turn::Done(self.0.master_key.open(&owner, &sealed)?.to_string())
            }
        })
    }

    /// `answer` as it is put down under the key.
    pub fn kept(&self, tenant: Option<TenantId>, key: IdempotencyKey, answer: &str) -> KeptAnswer {
        let owner = SealOwner::kept_answer(tenant, &key.key);
        KeptAnswer {
            sealed: self.0.master_key.seal(&owner, rand::random(), answer),
            tenant,
            key,
        }
    }
}
