//! The idempotency key of a request.

use std::time::Duration;

/// The means by which a repeated request is recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// The caller's key, unique within the tenant for [`kept_for`](Self::kept_for).
    pub key: String,
    /// A hash of the request. The same key with a different hash is refused.
    pub fingerprint: [u8; 32],
    /// How long the key is kept.
    pub kept_for: Duration,
}

impl IdempotencyKey {
    /// How long the API keeps a key.
    pub const DAY: Duration = Duration::from_hours(24);
}
