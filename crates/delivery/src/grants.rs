//! Who may be written to: form ids and accepted templates, as tenants collect and read them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use coord::Clock;
use dashmap::DashMap;
use domain::{app::AppId, id::TenantId, message::Channel};
use store::{
    Collected, Collection, Grant, GrantCursor, GrantEntry, IdempotencyKey, Listing, Page,
    PoolCount, Reach, Store, StoreError, TemplateCount,
};
use tokio::sync::Mutex;

use crate::engine::{DeliveryError, Parts};

/// For how many times the time that it took an app's count is kept: so counting takes no more than a twentieth of one
/// connection, however many grants there are and however often somebody asks.
const KEEP: u32 = 20;

/// Grants that have been collected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectedGrants {
    /// What became of each item, in order.
    pub results: Vec<Collected>,
    /// Whether its idempotency key had been used for this request before.
    pub replayed: bool,
}

/// Why grants are not collected.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// The idempotency key stands for another request.
    #[error("this Idempotency-Key was used for another request within the last 24 hours")]
    KeyReused,
    /// The tenant has no such app, or the database is at fault.
    #[error(transparent)]
    Delivery(#[from] DeliveryError),
}

impl From<StoreError> for GrantError {
    fn from(error: StoreError) -> Self {
        Self::Delivery(error.into())
    }
}

/// How many users an app's grants reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// By the pool.
    pub pool: PoolCount,
    /// By the ledger, template by template.
    pub templates: Vec<TemplateCount>,
    /// When it was counted.
    pub as_of: DateTime<Utc>,
}

/// An app's last count.
struct Counted {
    tenant: TenantId,
    summary: Arc<Summary>,
    /// Until when it is good, by the machine's clock.
    until: Instant,
}

/// The desk for grants.
pub struct Grants {
    store: Store,
    clock: Clock,
    counts: DashMap<AppId, Arc<Mutex<Option<Counted>>>>,
}

impl Grants {
    pub(crate) fn new(parts: &Parts) -> Self {
        Self {
            store: parts.store.clone(),
            clock: parts.coord.clock().clone(),
            counts: DashMap::new(),
        }
    }

    /// Takes grants in, each by itself, all in one transaction.
    pub async fn collect(
        &self,
        tenant: TenantId,
        appid: &AppId,
        items: &[GrantEntry],
        key: Option<&IdempotencyKey>,
    ) -> Result<CollectedGrants, GrantError> {
        let door = self.store.tenant(tenant);
        let (results, replayed) = match door.collect(appid, items, key, self.clock.now()).await? {
            Collection::Fresh(results) => (results, false),
            Collection::Replayed(results) => (results, true),
            Collection::KeyReused => return Err(GrantError::KeyReused),
        };
        Ok(CollectedGrants { results, replayed })
    }

    /// A user's grants.
    pub async fn list(
        &self,
        tenant: TenantId,
        appid: &AppId,
        openid: &str,
        page: &Page<GrantCursor>,
    ) -> Result<Listing<Grant, GrantCursor>, DeliveryError> {
        let door = self.store.tenant(tenant);
        Ok(door.grants(appid, openid, page, self.clock.now()).await?)
    }

    /// How many users the app's grants reach now. Whoever asks while it is counted waits for that count.
    pub async fn summary(
        &self,
        tenant: TenantId,
        appid: &AppId,
    ) -> Result<Arc<Summary>, DeliveryError> {
        let door = self.store.tenant(tenant);
        door.app(appid).await?;
        let counted = self.counts.entry(appid.clone()).or_default().clone();
        let mut counted = counted.lock().await;
        let started = Instant::now();
        if let Some(known) = counted.as_ref()
            && known.tenant == tenant
            && started < known.until
        {
            return Ok(known.summary.clone());
        }
        let now = self.clock.now();
        let summary = Arc::new(Summary {
            pool: door.count_pool(appid, now).await?,
            templates: door.count_subscriptions(appid).await?,
            as_of: now,
        });
        let took = started.elapsed();
        *counted = Some(Counted {
            tenant,
            summary: summary.clone(),
            until: Instant::now() + kept_for(took),
        });
        Ok(summary)
    }

    /// How many of these users, each named once, a message of the template reaches now.
    pub async fn reach(
        &self,
        tenant: TenantId,
        appid: &AppId,
        channel: Channel,
        template_id: &str,
        openids: &[&str],
    ) -> Result<Reach, DeliveryError> {
        let (door, now) = (self.store.tenant(tenant), self.clock.now());
        Ok(door
            .reach(appid, channel, template_id, openids, now)
            .await?)
    }
}

/// How long a count is kept that took so long. One that took next to nothing is made anew each time.
fn kept_for(took: Duration) -> Duration {
    if took < Duration::from_millis(50) {
        Duration::ZERO
    } else {
        took * KEEP
    }
}

impl std::fmt::Debug for Grants {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grants").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_kept_the_longer_the_more_it_costs() {
        let millis = Duration::from_millis;
        assert_eq!(kept_for(millis(5)), Duration::ZERO);
        assert_eq!(kept_for(millis(300)), Duration::from_secs(6));
    }
}
