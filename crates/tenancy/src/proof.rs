//! The proof that a request has shown a valid credential.

use std::{fmt, sync::Arc};

/// The extension of a request that marks the request as proven. Until [`ProvenMarker::give`], the gateway limits the request
/// and the connection strictly: few requests at once, few bytes in memory.
///
/// The code that checks a credential calls [`ProvenMarker::give`]: for a valid access token or session, a right client secret,
/// a callback with WeChat's signature. A check that forgets the call slows the caller down and harms no security.
#[derive(Clone)]
pub struct ProvenMarker(Arc<dyn Fn() + Send + Sync>);

impl ProvenMarker {
    /// A proof that calls `given` when the request is proven.
    pub fn new(given: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(given))
    }

    /// Marks the request as proven.
    pub fn give(&self) {
        (self.0)();
    }
}

/// The proof of a request without a connection: has no effect.
impl Default for ProvenMarker {
    fn default() -> Self {
        Self::new(|| ())
    }
}

impl fmt::Debug for ProvenMarker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proof")
    }
}

/// The error that ends a body because unproven requests, all together or those of one address, hold as much memory as
/// they may. Servers end bodies with this error; the answer is 503.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unproven requests have used up their memory")]
pub struct UnprovenLimitReached;
