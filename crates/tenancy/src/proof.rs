//! That a request has proven who sends it.

use std::{fmt, sync::Arc};

/// Goes with a request, in its extensions. Until the proof is given, the gateway keeps the request and its connection on
/// short commons: few requests at once, few bytes in memory.
///
/// Whoever checks a credential gives it: an access token or a session that is good, a client secret that is right, a
/// callback with WeChat's signature. A check that forgets it costs the caller speed and no safety.
#[derive(Clone)]
pub struct Proof(Arc<dyn Fn() + Send + Sync>);

impl Proof {
    /// The proof whose giving calls `given`.
    pub fn new(given: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(given))
    }

    /// The request has proven who sends it.
    pub fn give(&self) {
        (self.0)();
    }
}

/// Of a request that came over no connection.
impl Default for Proof {
    fn default() -> Self {
        Self::new(|| ())
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proof")
    }
}

/// Ends a body that has no room: requests that have proven nothing hold as many bytes as they may, all together or those
/// of one address. Servers end bodies with it; the answer is 503.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("requests that have proven nothing hold as much memory as they may")]
pub struct NoRoom;
