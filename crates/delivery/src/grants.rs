//! Grants: form ids and accepted templates, as tenants collect and read them.

use coord::Clock;
use domain::{app::AppId, id::TenantId, message::Channel};
use store::{
    Collected, Collection, Grant, GrantCount, GrantCursor, GrantEntry, IdempotencyKey, Listing,
    Page, Reach, Store, StoreError,
};

mod counts;

pub(crate) use counts::Counts;

use crate::error::DeliveryError;

/// Grants that have been collected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectedGrants {
    /// The result of each item, in order.
    pub results: Vec<Collected>,
    /// Whether this answer repeats the first answer to the same idempotency key.
    pub replayed: bool,
}

/// Why grants are not collected.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// The idempotency key stands for another request.
    #[error("this Idempotency-Key was used for another request within the last 24 hours")]
    KeyReused,
    /// The tenant has no such app, or the database failed.
    #[error(transparent)]
    Delivery(#[from] DeliveryError),
}

impl From<StoreError> for GrantError {
    fn from(error: StoreError) -> Self {
        Self::Delivery(error.into())
    }
}

/// Collects grants and counts reach.
pub struct Grants {
    store: Store,
    clock: Clock,
    counts: Counts,
}

impl Grants {
    pub(crate) fn new(store: Store, clock: Clock, counts: Counts) -> Self {
        Self {
            store,
            clock,
            counts,
        }
    }

    /// Collects grants, each on its own, all in one transaction.
    pub async fn collect(
        &self,
        tenant: TenantId,
        appid: &AppId,
        items: &[GrantEntry],
        key: Option<&IdempotencyKey>,
    ) -> Result<CollectedGrants, GrantError> {
        let door = self.store.tenant(tenant);
        let (results, replayed) = match door.collect(appid, items, key, self.clock.now()).await? {
            Collection::Fresh(results) => {
                self.counts.have_grown(tenant, appid, results.len());
                (results, false)
            }
            Collection::Replayed(results) => (results, true),
            Collection::KeyReused => return Err(GrantError::KeyReused),
        };
        Ok(CollectedGrants { results, replayed })
    }

    /// The grants of one user.
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

    /// How many users the app's grants reach. With many grants, the count may be older, as its time says.
    pub async fn summary(
        &self,
        tenant: TenantId,
        appid: &AppId,
    ) -> Result<GrantCount, DeliveryError> {
        Ok(self.counts.of(tenant, appid).await?)
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

impl std::fmt::Debug for Grants {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grants").finish_non_exhaustive()
    }
}
