//! The standing of a key, that is, whether the key is in force: looked up at most every 3 seconds for each key,
//! regardless of the number of requests.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use coord::Clock;
use domain::{id::KeyId, tenant::TenantStatus};
use moka::future::Cache;
use store::{Credential, Store, StoreError};
use uuid::Uuid;

use crate::AuthError;

/// How long a look-up counts as current: a revoked key is refused within 5 seconds everywhere.
const FRESH: Duration = Duration::from_secs(3);
/// How long the last successful look-up counts while the database is down.
const OUTAGE: Duration = Duration::from_mins(1);
/// How long a request waits for the database while the last successful look-up still counts.
const PATIENCE: Duration = Duration::from_secs(1);
const REMEMBERED: u64 = 100_000;

/// The standings of keys, as this replica knows them.
pub(crate) struct KeyStatusCache {
    store: Store,
    clock: Clock,
    known: Cache<Uuid, KeyStatus>,
}

/// The result of a look-up.
#[derive(Clone)]
struct KeyStatus {
    /// The key; `None` for a key that does not exist.
    credential: Option<Arc<Credential>>,
    /// When the database last confirmed this; `None`: the database has not answered yet.
    confirmed_at: Option<DateTime<Utc>>,
    /// When the last query began, whether answered or not.
    asked_at: DateTime<Utc>,
}

impl KeyStatusCache {
    pub(crate) fn new(store: Store, clock: Clock) -> Self {
        Self {
            store,
            clock,
            known: Cache::new(REMEMBERED),
        }
    }

    /// The key as of at most 3 seconds ago, or a minute during an outage; `None` for a key that does not exist.
    pub(crate) async fn get(&self, key: KeyId) -> Result<Option<Arc<Credential>>, AuthError> {
        let now = self.clock.now();
        let last = self.known.get(&key.uuid()).await;
        let standing = match last {
            Some(last) if within(last.asked_at, now, FRESH) => last,
            last => {
                let stale = |known: &KeyStatus| !within(known.asked_at, now, FRESH);
                // All requests that find the standing stale wait for one look-up.
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

    /// Removes one key from the cache, after a change in this replica.
    pub(crate) async fn forget(&self, key: KeyId) {
        self.known.invalidate(&key.uuid()).await;
    }

    /// Removes all keys from the cache, after a change of a tenant: the cache is not indexed by tenant.
    pub(crate) fn forget_all(&self) {
        self.known.invalidate_all();
    }

    async fn look(&self, key: KeyId, last: Option<KeyStatus>, now: DateTime<Utc>) -> KeyStatus {
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
                tracing::warn!(%key, %error, "cannot look up a key: using the last known state of the key");
                let (credential, confirmed_at) = last
                    .map(|last| (last.credential, last.confirmed_at))
                    .unwrap_or_default();
                return KeyStatus {
                    credential,
                    confirmed_at,
                    asked_at: now,
                };
            }
        };
        KeyStatus {
            credential,
            confirmed_at: Some(now),
            asked_at: now,
        }
    }

    /// Keeps `last_used_at` of a key accurate to the minute. An error here fails no request.
    async fn note_use(&self, standing: &KeyStatus, now: DateTime<Utc>) {
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
                tracing::warn!(key = %credential.key.id, %error, "cannot record the use of a key");
            }
            Err(_) => {
                tracing::warn!(key = %credential.key.id, "cannot record the use of a key: the database is slow");
            }
        }
    }
}

/// Fails unless the key is in force and the key's tenant is active.
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

/// Whether `then` is less than `span` away from `now`. A request that waited for another request's look-up finds a time
/// a little later than `now`, which counts; a time far ahead does not count, because the clock was set back.
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
