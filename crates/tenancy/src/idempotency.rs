//! Requests under an idempotency key: recognised, serialised, and answered the same when repeated.
//!
//! A request takes a [`IdempotencyState`] first. The request then stores the answer ([`store::Keep`]) in the transaction of the
//! change, sealed, because an answer may hold a secret that is stored nowhere else. This module separates twins on one
//! replica; for twins on two replicas the database lets one commit.

use domain::{id::TenantId, seal::SealOwner};
use store::{IdempotencyKey, IdempotencyLookup, StoredAnswer};

use crate::{IdempotencyGuard, Tenancy, TenancyError};

/// How to handle a request under an idempotency key.
#[derive(Debug)]
pub enum IdempotencyState {
    /// Execute the request. Other requests with the key get [`IdempotencyState::Busy`] until the value is dropped.
    Do(IdempotencyGuard),
    /// The request was executed before, with this answer.
    Done(String),
    /// The request is running.
    Busy,
    /// The key belongs to another request.
    OtherRequest,
}

impl Tenancy {
    /// Decides how to handle a request under `key` of `tenant`; `None` for the operators' keys.
    pub async fn turn(
        &self,
        tenant: Option<TenantId>,
        key: &IdempotencyKey,
    ) -> Result<IdempotencyState, TenancyError> {
        let Some(held) = self.0.running.hold((tenant, key.key.clone())) else {
            return Ok(IdempotencyState::Busy);
        };
        // The query runs after `hold`: a previous holder has stored the answer by then.
        let now = self.0.coord.clock().now();
        Ok(match self.0.store.recall(tenant, key, now).await? {
            IdempotencyLookup::Nothing => IdempotencyState::Do(held),
            IdempotencyLookup::OtherRequest => IdempotencyState::OtherRequest,
            IdempotencyLookup::Answer(sealed) => {
                let owner = SealOwner::kept_answer(tenant, &key.key);
                IdempotencyState::Done(self.0.master_key.open(&owner, &sealed)?.to_string())
            }
        })
    }

    /// The sealed form of `answer`, to store under `key`.
    pub fn kept(
        &self,
        tenant: Option<TenantId>,
        key: IdempotencyKey,
        answer: &str,
    ) -> StoredAnswer {
        let owner = SealOwner::kept_answer(tenant, &key.key);
        StoredAnswer {
            sealed: self.0.master_key.seal(&owner, rand::random(), answer),
            tenant,
            key,
        }
    }
}
