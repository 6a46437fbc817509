//! Deferred updates: what Redis could not take, kept in memory and written when Redis answers again.
//!
//! Replicas that do not see a token fetch another one, and in legacy mode that fetch ends the present token. Replicas
//! that do not see a ledger overrun a budget, or count the death of a token as a foreign refresh. So a failed write
//! leaves the app here, and one task writes the updates of all apps in rounds until Redis has them. The same task
//! judges deaths of tokens for which the other replicas could not be asked at the time.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use coord::{Clock, CoordError};
use dashmap::DashMap;
use domain::app::AppId;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::{select, sync::Notify};

use crate::{broker::Inner, memory::Memory};

/// The time between two rounds. A failed round costs one call, which fails at once while the circuit breaker is open.
const RETRY: Duration = Duration::from_secs(1);
/// How many apps are written at the same time.
const AT_ONCE: usize = 16;

/// The apps with deferred updates.
#[derive(Default)]
pub(crate) struct DeferredUpdates {
    apps: DashMap<AppId, DeferredUpdate>,
    /// Numbers the deferred updates.
    count: AtomicU64,
    /// Notified when a round can start now.
    more: Notify,
}

#[derive(Clone)]
struct DeferredUpdate {
    memory: Arc<Memory>,
    /// Distinguishes this update from later ones of the same app.
    number: u64,
}

impl DeferredUpdates {
    /// Adds an app. Call [`DeferredUpdates::ring`] when the memory of the app contains the update.
    pub(crate) fn defer(&self, appid: &AppId, memory: &Arc<Memory>) {
        let owed = DeferredUpdate {
            memory: Arc::clone(memory),
            number: self.count.fetch_add(1, Ordering::Relaxed),
        };
        self.apps.insert(appid.clone(), owed);
    }

    /// Starts a round, if there are deferred updates.
    pub(crate) fn ring(&self) {
        if !self.apps.is_empty() {
            self.more.notify_one();
        }
    }
}

/// Runs rounds until the broker is dropped.
pub(crate) async fn settle(inner: Weak<Inner>, deferred: Arc<DeferredUpdates>, clock: Clock) {
    loop {
        if deferred.apps.is_empty() {
            deferred.more.notified().await;
        } else {
            select! {
                () = deferred.more.notified() => {}
                () = clock.sleep(RETRY) => {}
            }
        }
        let Some(inner) = inner.upgrade() else { return };
        if let Err(error) = inner.settle_round(&deferred).await {
            tracing::debug!(%error, "some updates are not shared with the other replicas yet");
        }
    }
}

impl Inner {
    /// Writes the deferred updates to Redis. Ends at the first failure, because further writes would fail too.
    async fn settle_round(&self, deferred: &DeferredUpdates) -> Result<(), CoordError> {
        let owed: Vec<_> = deferred
            .apps
            .iter()
            .map(|entry| (entry.key().clone(), entry.value().clone()))
            .collect();
        stream::iter(owed)
            .map(Ok)
            .try_for_each_concurrent(
                AT_ONCE,
                async |(appid, DeferredUpdate { memory, number })| {
                    let is_settled = memory.is_idle(self.coord.clock().now())
                        || self.settle(&appid, &memory).await?;
                    if is_settled {
                        deferred
                            .apps
                            .remove_if(&appid, |_, there| there.number == number);
                    }
                    Ok(())
                },
            )
            .await
    }

    /// Writes the updates of one app. Returns whether nothing is left to write or judge.
    async fn settle(&self, appid: &AppId, memory: &Memory) -> Result<bool, CoordError> {
        // The result of a fetch in progress enters the memory at the end of the fetch, which starts another round.
        let is_all = !memory.is_fetching();
        let theirs = self.shared.ledger(appid).await?;
        let now = self.coord.clock().now();
        memory.learn(self.shared.token(appid).await, theirs, now);
        if let Some(held) = memory.held(now).filter(|_| self.remembers(appid, memory)) {
            self.shared.put_token(appid, &held).await?;
        }
        for seen in memory.judge(now) {
            self.blame(appid, seen);
        }
        self.shared.add_to_ledger(appid, memory.ledger()).await?;
        Ok(is_all && !memory.suspects())
    }
}
