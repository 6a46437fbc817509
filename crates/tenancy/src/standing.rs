//! Whether a key may still come in: looked up at most every 3 seconds for each key, however many requests it makes.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use coord::Clock;
use domain::{id::KeyId, tenant::TenantStatus};
use moka::future::Cache;
use store::{Credential, Store, StoreError};
use uuid::Uuid;

use crate::AuthError;

/// How long a look at the database is believed: a revoked key is refused within 5 seconds everywhere.
const FRESH: Duration = Duration::from_secs(3);
/// How long the last look counts while the database is away.
const OUTAGE: Duration = Duration::from_mins(1);
/// How long a request waits for the database when the last look would still do.
const PATIENCE: Duration = Duration::from_secs(1);
const REMEMBERED: u64 = 100_000;

/// The standing of keys, as this replica knows it.
pub(crate) struct Standings {
    store: Store,
    clock: Clock,
    known: Cache<Uuid, Standing>,
}

/// What one look at the database said.
#[derive(Clone)]
struct Standing {
    /// The key; none: there is no such key.
    credential: Option<Arc<Credential>>,
    /// When the database last said so; none: it did not answer yet.
    confirmed_at: Option<DateTime<Utc>>,
    /// When it was last asked, whether it answered or not.
    asked_at: DateTime<Utc>,
}

impl Standings {
    pub(crate) fn new(store: Store, clock: Clock) -> Self {
        Self {
            store,
            clock,
            known: Cache::new(REMEMBERED),
        }
    }

    /// The key as it is, give or take 3 seconds; none: there is no such key.
    pub(crate) async fn get(&self, key: KeyId) -> Result<Option<Arc<Credential>>, AuthError> {
        let now = self.clock.now();
        let last = self.known.get(&key.uuid()).await;
        let standing = match last {
            Some(last) if within(last.asked_at, now, FRESH) => last,
            last => {
                let stale = |known: &Standing| !within(known.asked_at, now, FRESH);
                // All requests that find it stale wait for one look.
                let entry = self
                    .known
                    .entry(key.uuid())
                    .or_insert_with_if(self.look(key, last, now), stale)
                    .await;
                let looked = entry.is_fresh();
                let standing = entry.into_value();
                if looked {
                    self.note_use(&standing, now).await;
                }
                standing
            }
        };
        match standing.confirmed_at {
            Some(at) if within(at, now, OUTAGE) => Ok(standing.credential),
            _ => Err(AuthError::Unavailable),
        }
    }

    /// Forgets one key, which was just changed here.
    pub(crate) async fn forget(&self, key: KeyId) {
        self.known.invalidate(&key.uuid()).await;
    }

    /// Forgets all keys: those of a tenant that was just changed are among them.
    pub(crate) fn forget_all(&self) {
        self.known.invalidate_all();
    }

    async fn look(&self, key: KeyId, last: Option<Standing>, now: DateTime<Utc>) -> Standing {
        let platform = self.store.platform();
        let look = platform.credential(key);
        let usable = last
            .as_ref()
            .and_then(|last| last.confirmed_at)
            .is_some_and(|at| within(at, now, OUTAGE));
        let found = if usable {
            let late = |_| StoreError::Unavailable("no answer within a second".into());
            tokio::time::timeout(PATIENCE, look)
                .await
                .unwrap_or_else(|elapsed| Err(late(elapsed)))
        } else {
            look.await
        };
        let credential = match found {
            Ok(credential) => Some(Arc::new(credential)),
            Err(StoreError::NotFound(_)) => None,
            Err(error) => {
                tracing::warn!(%key, %error, "cannot look up a key: its last known standing counts");
                let (credential, confirmed_at) = last
                    .map(|last| (last.credential, last.confirmed_at))
                    .unwrap_or_default();
                return Standing {
                    credential,
                    confirmed_at,
                    asked_at: now,
                };
            }
        };
        Standing {
            credential,
            confirmed_at: Some(now),
            asked_at: now,
        }
    }

    /// Keeps `last_used_at` of a key true to the minute. No request fails over it.
    async fn note_use(&self, standing: &Standing, now: DateTime<Utc>) {
        let Some(credential) = standing
            .credential
            .as_ref()
            .filter(|_| standing.confirmed_at == Some(now))
        else {
            return;
        };
        if !credential.key.wants_touch(now) || check(credential, now).is_err() {
            return;
        }
        let platform = self.store.platform();
        match tokio::time::timeout(PATIENCE, platform.touch_key(credential.key.id, now)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(key = %credential.key.id, %error, "cannot note the use of a key");
            }
            Err(_) => {
                tracing::warn!(key = %credential.key.id, "cannot note the use of a key: the database is slow");
            }
        }
    }
}

/// Lets a key pass that is in force, of a tenant that is active.
pub(crate) fn check(credential: &Credential, now: DateTime<Utc>) -> Result<(), AuthError> {
    let key = &credential.key;
    if key.revoked_at.is_some() || key.expires_at.is_some_and(|end| end <= now) {
        return Err(AuthError::Revoked);
    }
    match credential.tenant.as_ref().map(|tenant| tenant.status) {
        Some(TenantStatus::Suspended) => Err(AuthError::Suspended),
        Some(TenantStatus::Active) | None => Ok(()),
    }
}

/// Whether `then` is less than `span` away from `now`. A request that waits for another's look finds a time that is a
/// little later than its own; one that is far ahead does not count: the clock was set back.
fn within(then: DateTime<Utc>, now: DateTime<Utc>, span: Duration) -> bool {
    (now - then).abs().to_std().is_ok_and(|age| age < span)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_of_a_moment_later_counts() {
        let now = DateTime::UNIX_EPOCH;
        let at = |millis| now + chrono::TimeDelta::milliseconds(millis);
        assert!(within(at(5), now, FRESH) && within(at(-2_999), now, FRESH));
        assert!(!within(at(-3_000), now, FRESH) && !within(at(3_000), now, FRESH));
    }
}
