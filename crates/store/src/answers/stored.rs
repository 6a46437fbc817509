//! The answer that commits with a change.

use domain::id::TenantId;

use crate::queue::IdempotencyKey;

/// A sealed answer that the transaction of the requested change will write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredAnswer {
    /// The tenant that owns the key, or `None` for the operators.
    pub tenant: Option<TenantId>,
    /// The idempotency key of the request.
    pub key: IdempotencyKey,
    /// The answer, sealed.
    pub sealed: Vec<u8>,
}
