//! Pushes that were taken lately, by their signatures: a signature that was overheard brings nothing new.
//!
//! WeChat repeats a push that was not answered with `success`, under the same signature or a new one. So a signature is
//! tied to its push before that is carried out, and a repeat is taken until it is; from then on it is answered and has
//! no effect. Another body under a signature that was seen is refused: the signature of a plain push does not cover its
//! body. That of an encrypted push does, and what a repeat of it says counts once in the database: replicas need not
//! tell each other.

use std::{fmt::Write as _, time::Duration};

use coord::Coord;
use domain::app::AppId;
use moka::{policy::EvictionPolicy, sync::Cache};
use sha2::{Digest, Sha256};
use wechat::callback::Query;

use super::{CallbackRefusal, SKEW};

/// How many pushes a replica remembers. The oldest make room, so a flood of them shortens the memory.
const REMEMBERED: u64 = 100_000;

/// The pushes that this replica has taken lately.
pub(super) struct Seen {
    pushes: Cache<String, Push>,
    coord: Coord,
}

/// A push whose signature was seen.
#[derive(Clone, Copy)]
struct Push {
    body: [u8; 32],
    is_done: bool,
}

/// A push that may be carried out.
pub(super) struct Taken {
    key: String,
    push: Push,
}

impl Taken {
    /// Whether it was carried out before.
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

    /// Ties the signature of a push that proved itself to its body.
    pub(super) async fn take(
        &self,
        appid: &AppId,
        query: &Query,
        body: &[u8],
    ) -> Result<Taken, CallbackRefusal> {
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
        // While Redis is away each replica remembers for itself.
        if self.coord.is_shared()
            && !query.is_encrypted()
            && !self.pushes.contains_key(&key)
            && let Ok(false) = self.coord.leases().take(&key, &hex(&body), window()).await
        {
            return Err(CallbackRefusal::Reused);
        }
        let push = self.pushes.entry_by_ref(&key).or_insert(fresh).into_value();
        if push.body == body {
            Ok(Taken { key, push })
        } else {
            Err(CallbackRefusal::Reused)
        }
    }

    /// Remembers that a push was carried out.
    pub(super) fn carried_out(&self, taken: Taken) {
        let done = Push {
            is_done: true,
            ..taken.push
        };
        self.pushes.insert(taken.key, done);
    }
}

/// How long a signature is good: from the time by which the gateway's clock may be behind to that by which it may be
/// ahead.
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
