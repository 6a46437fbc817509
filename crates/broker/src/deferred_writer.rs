//! The task that writes deferred updates to Redis, and judges the deaths of tokens afterwards.

use std::sync::{Arc, Weak};

use coord::{Clock, CoordError};
use domain::app::AppId;
use futures::{StreamExt, TryStreamExt, stream};

use crate::{deferred::DeferredUpdates, fetcher::Fetcher, memory::Memory};

/// How many apps are written at the same time.
const AT_ONCE: usize = 16;

/// Runs rounds until the broker is dropped.
pub(crate) async fn run(fetcher: Weak<Fetcher>, deferred: Arc<DeferredUpdates>, clock: Clock) {
    loop {
        deferred.round(&clock).await;
        let Some(fetcher) = fetcher.upgrade() else {
            return;
        };
        if let Err(error) = fetcher.settle_round().await {
            tracing::debug!(%error, "some updates are not shared with the other replicas yet");
        }
    }
}

impl Fetcher {
    /// Writes the deferred updates to Redis. Ends at the first failure, because further writes would fail too.
    async fn settle_round(&self) -> Result<(), CoordError> {
        stream::iter(self.deferred.owed())
            .map(Ok)
            .try_for_each_concurrent(AT_ONCE, async |(appid, update)| {
                let is_settled = update.memory.is_idle(self.coord.clock().now())
                    || self.settle(&appid, &update.memory).await?;
                if is_settled {
                    self.deferred.settled(&appid, &update);
                }
                Ok(())
            })
            .await
    }

    /// Writes the updates of one app. Returns whether nothing is left to write or judge.
    async fn settle(&self, appid: &AppId, memory: &Memory) -> Result<bool, CoordError> {
        // The result of a fetch in progress enters the memory at the end of the fetch, which starts another round.
        let is_all = !memory.is_fetching();
        let theirs = self.shared.ledger(appid).await?;
        let now = self.coord.clock().now();
        memory.learn(self.shared.token(appid).await, theirs, now);
        if let Some(held) = memory
            .held(now)
            .filter(|_| self.memories.contains(appid, memory))
        {
            self.shared.put_token(appid, &held).await?;
        }
        for seen in memory.judge(now) {
            self.blame(appid, seen);
        }
        self.shared.add_to_ledger(appid, memory.ledger()).await?;
        Ok(is_all && !memory.suspects())
    }
}
