//! Counts: the number of users that each app can reach, answered at once whatever the number of grants.
//!
//! Few grants are counted at every request. A count of many grants is stored in the database: a request gets the stored
//! count, and if that count is due, a new count is made in the background. Newly collected grants also start a count,
//! so that a count exists before the first request. The janitor renews old counts.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use coord::Clock;
use dashmap::DashMap;
use domain::{app::AppId, id::TenantId};
use store::{GrantCount, Store, StoreError};
use tokio::sync::Mutex;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The most ids or ledger entries of an app that are counted at every request: some 15 ms.
const FEW: u32 = 10_000;
/// How long a count is valid, as a multiple of the time that counting took. So counting uses at most a twentieth of one
/// connection, however many grants and requests there are.
const KEEP: u32 = 20;
/// The shortest validity of a count.
const AT_LEAST: Duration = Duration::from_secs(1);
/// How long a count is reserved for the replica that makes it: longer than a statement may take.
const LEASE: Duration = Duration::from_mins(2);
/// The age from which the janitor renews a count without requests.
const OLD: Duration = Duration::from_hours(1);
/// How many old counts one round of the janitor renews.
const A_ROUND: u32 = 100;

/// The counts of all apps. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Counts(Arc<Inner>);

struct Inner {
    store: Store,
    clock: Clock,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// One lock for each app that is being counted in this process: other requests wait for that count.
    turns: DashMap<AppId, Arc<Mutex<()>>>,
    /// How many grants this process has collected since the last count that collecting started.
    grown: DashMap<AppId, usize>,
}

impl Counts {
    pub(crate) fn new(
        store: Store,
        clock: Clock,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        Self(Arc::new(Inner {
            store,
            clock,
            tasks,
            stop,
            turns: DashMap::new(),
            grown: DashMap::new(),
        }))
    }

    /// The app's count. Slow only if there are many grants and no stored count yet.
    pub(super) async fn of(
        &self,
        tenant: TenantId,
        appid: &AppId,
    ) -> Result<GrantCount, StoreError> {
        let (door, now) = (self.0.store.tenant(tenant), self.0.clock.now());
        if let Some(kept) = door.kept_count(appid).await? {
            if now >= kept.due_at {
                self.count_behind(tenant, appid);
            }
            return Ok(kept.count);
        }
        if !door.has_more_grants(appid, FEW).await? {
            return door.count_grants(appid, now).await;
        }
        let turn = self.0.turn(appid);
        let _counting = turn.lock().await;
        match door.kept_count(appid).await? {
            Some(kept) => Ok(kept.count),
            None => self.0.count(tenant, appid).await,
        }
    }

    /// Notes that `by` more grants were collected.
    pub(super) fn have_grown(&self, tenant: TenantId, appid: &AppId, by: usize) {
        let few = usize::try_from(FEW).unwrap_or(usize::MAX);
        let is_time = {
            let mut grown = self.0.grown.entry(appid.clone()).or_default();
            *grown += by;
            let is_time = *grown > few;
            if is_time {
                *grown = 0;
            }
            is_time
        };
        if is_time {
            self.count_behind(tenant, appid);
        }
    }

    /// Renews the counts older than [`OLD`], which no request has renewed. Returns when all are made.
    pub(crate) async fn renew_old(&self) -> Result<(), StoreError> {
        let old = self.0.clock.now() - OLD;
        for (tenant, appid) in self.0.store.platform().old_counts(old, A_ROUND).await? {
            self.0.count_where_due(tenant, &appid).await?;
        }
        Ok(())
    }

    fn count_behind(&self, tenant: TenantId, appid: &AppId) {
        let (inner, appid) = (self.0.clone(), appid.clone());
        self.0.tasks.spawn(async move {
            let stop = inner.stop.clone();
            let counted = stop.run_until_cancelled(inner.count_where_due(tenant, &appid));
            if let Some(Err(error)) = counted.await {
                tracing::warn!(%appid, %error, "cannot count an app's grants; trying again at the next request");
            }
        });
    }
}

impl Inner {
    fn turn(&self, appid: &AppId) -> Arc<Mutex<()>> {
        self.turns.entry(appid.clone()).or_default().clone()
    }

    /// Counts, if a count is due and no other task is counting.
    async fn count_where_due(&self, tenant: TenantId, appid: &AppId) -> Result<(), StoreError> {
        let turn = self.turn(appid);
        let Ok(_counting) = turn.try_lock() else {
            return Ok(());
        };
        let (door, now) = (self.store.tenant(tenant), self.clock.now());
        let is_time = match door.kept_count(appid).await? {
            Some(kept) if now < kept.due_at => false,
            Some(_) => door.claim_count(appid, now, now + LEASE).await?,
            None => door.has_more_grants(appid, FEW).await?,
        };
        if is_time {
            match self.count(tenant, appid).await {
                Ok(_) | Err(StoreError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Counts, and stores the count if there are many grants.
    async fn count(&self, tenant: TenantId, appid: &AppId) -> Result<GrantCount, StoreError> {
        let door = self.store.tenant(tenant);
        let started = Instant::now();
        let count = door.count_grants(appid, self.clock.now()).await?;
        let good_for = good_for(started.elapsed());
        if door.has_more_grants(appid, FEW).await? {
            let due_at = count.as_of + good_for;
            door.keep_count(appid, &count, due_at).await?;
        } else {
            door.forget_count(appid).await?;
        }
        Ok(count)
    }
}

/// How long a count is valid that took `took`.
fn good_for(took: Duration) -> Duration {
    (took * KEEP).max(AT_LEAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_good_the_longer_the_more_it_costs() {
        let millis = Duration::from_millis;
        assert_eq!(good_for(millis(5)), AT_LEAST);
        assert_eq!(good_for(millis(300)), Duration::from_secs(6));
    }
}
