//! The keys of an app's callbacks, opened from the database and cached for a short time.
//!
//! A callback that proves nothing must cost nothing. So the result of one look at the database is used for a second, or
//! until a wake-up says that the app has changed. The result that an app does not exist is used a little longer. An
//! address that names one unknown app after the other is refused before more of these apps are looked up. Known apps
//! are looked up for every address: WeChat's few addresses send callbacks for all apps, whatever else comes from these
//! addresses.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use coord::{Coord, RateLimit, Wake, WakeupSubscription};
use domain::{
    app::AppId,
    id::TenantId,
    seal::{MasterKey, SealOwner},
    secret::{CallbackAesKey, CallbackToken},
};
use moka::{future::Cache, sync::Cache as SyncCache};
use store::{Store, StoreError};
use wechat::callback::Keys;

use super::error::{CallbackError, CallbackRefusal};
use crate::{metrics::DeliveryMetrics, parts::Parts, topic};

/// How long the settings before a change are valid: the tenant changes the gateway first and WeChat's console second,
/// and callbacks that WeChat signed before may still come.
pub(crate) const GRACE: TimeDelta = TimeDelta::hours(24);

/// How long the result of a look at the database is used without a wake-up.
const FRESH: TimeDelta = TimeDelta::seconds(1);
/// The same for an app that does not exist.
const FRESH_UNKNOWN: TimeDelta = TimeDelta::seconds(10);
/// How many apps are cached.
const REMEMBERED: u64 = 10_000;
/// How many addresses that name unknown apps are remembered.
const REMEMBERED_ADDRESSES: u64 = 100_000;
/// How many unknown apps are looked up for one address at once, and then in a minute. WeChat's addresses send callbacks
/// for removed apps too, and a removed app is looked up every ten seconds.
const UNKNOWN_AT_ONCE: u32 = 20;
const UNKNOWN_A_MINUTE: u32 = 60;

/// The cache of keys.
pub(super) struct KeyCache {
    store: Store,
    master_key: MasterKey,
    known: Cache<AppId, Look>,
    /// The apps that have changed since the last read of this subscription.
    changes: Mutex<WakeupSubscription>,
    /// The number of changes so far.
    changed: AtomicU64,
    /// Counts unknown apps by the address that named them.
    alone: Coord,
    /// Until when no unknown app is looked up for an address.
    refused: SyncCache<IpAddr, DateTime<Utc>>,
    metrics: DeliveryMetrics,
}

/// The keys that may sign an app's callbacks.
#[derive(Debug)]
pub(super) struct Chain {
    /// The tenant that owns the app.
    pub(super) tenant: TenantId,
    pub(super) newest: Keys,
    previous: Option<(Keys, DateTime<Utc>)>,
}

impl Chain {
    /// The keys before the last change, while they are valid.
    pub(super) fn previous(&self, now: DateTime<Utc>) -> Option<&Keys> {
        let (keys, changed_at) = self.previous.as_ref()?;
        (now < *changed_at + GRACE).then_some(keys)
    }
}

/// The result of one look at the database.
#[derive(Clone)]
struct Look {
    found: Result<Arc<Chain>, CallbackError>,
    asked_at: DateTime<Utc>,
}

impl Look {
    fn is_unknown_app(&self) -> bool {
        self.found.as_ref().err() == Some(&CallbackRefusal::UnknownApp.into())
    }

    /// Whether the app exists.
    fn is_app(&self) -> bool {
        let no_token = CallbackError::from(CallbackRefusal::NoToken);
        self.found
            .as_ref()
            .err()
            .is_none_or(|error| *error == no_token)
    }

    fn is_fresh(&self, now: DateTime<Utc>) -> bool {
        let life = match &self.found {
            Ok(_) | Err(CallbackError::Refused(CallbackRefusal::NoToken)) => FRESH,
            Err(CallbackError::Refused(_)) => FRESH_UNKNOWN,
            // The database gave no answer.
            Err(_) => return false,
        };
        // Absolute value: a request that waits for another request's look finds a time slightly later than its own.
        (now - self.asked_at).abs() < life
    }
}

impl KeyCache {
    pub(super) fn new(parts: &Parts) -> Self {
        Self {
            store: parts.store.clone(),
            master_key: parts.master_key.clone(),
            known: Cache::new(REMEMBERED),
            changes: Mutex::new(parts.coord.wakeups().subscribe(topic::APPS)),
            changed: AtomicU64::new(0),
            alone: Coord::in_process(parts.coord.clock().clone()),
            refused: SyncCache::new(REMEMBERED_ADDRESSES),
            metrics: parts.metrics.clone(),
        }
    }

    /// The keys of an app, for a callback from the address `from`.
    pub(super) async fn of(
        &self,
        appid: &AppId,
        from: Option<IpAddr>,
        now: DateTime<Utc>,
    ) -> Result<Arc<Chain>, CallbackError> {
        let before = self.apply_changes().await;
        let last = self.known.get(appid).await;
        match last {
            Some(look) if look.is_fresh(now) => return look.found,
            Some(look) if look.is_app() => {}
            _ => self.may_look(from, now)?,
        }
        // All callbacks that find the entry outdated wait for one look.
        let entry = self
            .known
            .entry_by_ref(appid)
            .or_insert_with_if(self.look(appid, now), |look| !look.is_fresh(now))
            .await;
        let is_ours = entry.is_fresh();
        let look = entry.into_value();
        if self.apply_changes().await != before {
            // The look may have read the state before the change.
            self.known.invalidate(appid).await;
        }
        if is_ours && look.is_unknown_app() {
            self.count_unknown(from, now).await;
        }
        look.found
    }

    /// Removes changed apps from the cache. Returns the number of changes so far.
    async fn apply_changes(&self) -> u64 {
        loop {
            let next = {
                let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
                changes.try_next()
            };
            match next {
                Some(Wake::Said(appid)) => match AppId::parse(&*appid) {
                    Ok(appid) => self.known.invalidate(&appid).await,
                    Err(_) => self.known.invalidate_all(),
                },
                Some(Wake::Missed) => self.known.invalidate_all(),
                None => return self.changed.load(Ordering::Acquire),
            }
            self.changed.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Refuses an address that has named too many unknown apps.
    fn may_look(&self, from: Option<IpAddr>, now: DateTime<Utc>) -> Result<(), CallbackError> {
        let until = from.and_then(|from| self.refused.get(&from));
        match until.and_then(|until| (until - now).to_std().ok()) {
            Some(left) if !left.is_zero() => Err(CallbackError::TooMany { retry_after: left }),
            _ => Ok(()),
        }
    }

    async fn count_unknown(&self, from: Option<IpAddr>, now: DateTime<Utc>) {
        let Some(from) = from else { return };
        let quota = RateLimit::new(UNKNOWN_A_MINUTE, Duration::from_mins(1), UNKNOWN_AT_ONCE);
        let counted = self.alone.limits().check(&from.to_string(), quota, 1).await;
        if let Ok(decision) = counted
            && decision.remaining == 0
        {
            // The bucket is empty: the next unknown app waits for the next refill.
            let wait = decision.retry_after.max(quota.interval());
            self.refused.insert(from, now + wait);
        }
    }

    async fn look(&self, appid: &AppId, now: DateTime<Utc>) -> Look {
        self.metrics.looked_up();
        Look {
            found: self.read(appid).await.map(Arc::new),
            asked_at: now,
        }
    }

    async fn read(&self, appid: &AppId) -> Result<Chain, CallbackError> {
        let sealed = match self.store.platform().sealed_app(appid).await {
            Ok(sealed) => sealed,
            Err(StoreError::NotFound(_)) => return Err(CallbackRefusal::UnknownApp.into()),
            Err(error) => return Err(error.into()),
        };
        let Some(token) = &sealed.callback_token_sealed else {
            return Err(CallbackRefusal::NoToken.into());
        };
        let open = |token: &[u8], aes_key: Option<&Vec<u8>>| {
            self.open(sealed.tenant, appid, token, aes_key)
        };
        let newest = open(token, sealed.callback_aes_key_sealed.as_ref())?;
        let previous = sealed
            .previous_callback
            .as_ref()
            .map(|previous| {
                let keys = open(&previous.token_sealed, previous.aes_key_sealed.as_ref())?;
                Ok::<_, CallbackError>((keys, previous.changed_at))
            })
            .transpose()?;
        Ok(Chain {
            tenant: sealed.tenant,
            newest,
            previous,
        })
    }

    fn open(
        &self,
        tenant: TenantId,
        appid: &AppId,
        token: &[u8],
        aes_key: Option<&Vec<u8>>,
    ) -> Result<Keys, CallbackError> {
        let open = |owner: &SealOwner, sealed: &[u8]| {
            let opened = self.master_key.open(owner, sealed);
            opened.map_err(|error| {
                CallbackError::Broken(format!(
                    "the callback settings of {appid} cannot be decrypted: {error}"
                ))
            })
        };
        let token = open(&SealOwner::callback_token(tenant, appid), token)?;
        let aes_key = aes_key
            .map(|sealed| open(&SealOwner::callback_aes_key(tenant, appid), sealed))
            .transpose()?
            .map(|key| CallbackAesKey::new(key.as_str()));
        Keys::new(CallbackToken::new(token.as_str()), aes_key.as_ref())
            .map_err(|error| CallbackError::Broken(format!("{appid}: {error}")))
    }
}
