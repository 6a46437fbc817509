//! Recent callbacks by signature, so that an overheard signature has no effect.
//!
//! WeChat repeats a callback that was not answered with `success`, under the same signature or a new one. So a
//! signature is tied to its body before the callback is carried out, and repeats are processed until one has been
//! carried out. Later repeats are answered and have no effect. Another body under a known signature is refused, because
//! the signature of a plain callback does not cover the body. The signature of an encrypted callback covers the body,
//! and the database deduplicates the content of a repeat, so replicas share no signatures of encrypted callbacks.

use std::{fmt::Write as _, time::Duration};

use coord::Coord;
use domain::app::AppId;
use moka::{policy::EvictionPolicy, sync::Cache};
use sha2::{Digest, Sha256};
use wechat::callback::Query;

use super::{error::CallbackRefusal, times::SKEW};

/// How many callbacks a replica remembers. The oldest are removed first, so a flood shortens the memory.
const REMEMBERED: u64 = 100_000;

/// The recent callbacks of this replica.
pub(super) struct Seen {
    pushes: Cache<String, Push>,
    coord: Coord,
}

/// A callback with a known signature.
#[derive(Clone, Copy)]
struct Push {
    body: [u8; 32],
    is_done: bool,
}

/// A callback that may be carried out.
pub(super) struct VerifiedCallback {
    key: String,
    push: Push,
}

impl VerifiedCallback {
    /// Whether the callback was carried out before.
    pub(super) fn is_repeat(&self) -> bool {
        self.push.is_done
    }
}

impl Seen {
    pub(super) fn new(coord: Coord) -> Self {
        Self {
            pushes: Cache::builder()
                .max_capacity(REMEMBERED)
                .eviction_policy(EvictionPolicy::lru())
                .time_to_live(window())
                .build(),
            coord,
        }
    }

    /// Ties the signature of a verified callback to its body.
    pub(super) async fn take(
        &self,
        appid: &AppId,
        query: &Query,
        body: &[u8],
    ) -> Result<VerifiedCallback, CallbackRefusal> {
        let (signature, body) = if query.is_encrypted() {
            (query.msg_signature.as_deref(), [0; 32])
        } else {
            (query.signature.as_deref(), Sha256::digest(body).into())
        };
        let key = format!("push:{appid}:{}", signature.unwrap_or_default());
        let fresh = Push {
            body,
            is_done: false,
        };
        // While Redis is away, each replica uses its own memory only.
        if self.coord.is_shared()
            && !query.is_encrypted()
            && !self.pushes.contains_key(&key)
            && let Ok(false) = self.coord.leases().take(&key, &hex(&body), window()).await
        {
            return Err(CallbackRefusal::Reused);
        }
        let push = self.pushes.entry_by_ref(&key).or_insert(fresh).into_value();
        if push.body == body {
            Ok(VerifiedCallback { key, push })
        } else {
            Err(CallbackRefusal::Reused)
        }
    }

    /// Notes that a callback was carried out.
    pub(super) fn carried_out(&self, taken: VerifiedCallback) {
        let done = Push {
            is_done: true,
            ..taken.push
        };
        self.pushes.insert(taken.key, done);
    }
}

/// How long a signature is valid: from the latest time stamp that a slow clock accepts to the earliest that a fast
/// clock accepts.
fn window() -> Duration {
    let skew = SKEW.to_std().unwrap_or_default();
    2 * skew + Duration::from_mins(1)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
