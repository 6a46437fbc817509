//! The worker: claims messages whenever there are free sending slots.

use std::{sync::Arc, time::Duration};

use coord::Coord;
use domain::lifecycle::Status;
use store::{ClaimBatch, ClaimRequest, Store, StoreError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::{
    dispatch::Dispatcher,
    engine::{Options, Parts},
    metrics::Metrics,
    topic,
    waiters::ended_payload,
};

/// How often an idle worker looks without being woken: a wake-up can get lost with Redis.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long a worker rests after the database failed it.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// How long a busy worker waits for slots to come together.
const GATHER: Duration = Duration::from_millis(5);
/// The most that one claim takes: larger ones only make the first message wait for the last.
const LARGEST_CLAIM: usize = 256;

pub(crate) struct Worker {
    store: Store,
    coord: Coord,
    options: Options,
    dispatcher: Dispatcher,
    slots: Arc<Semaphore>,
    metrics: Metrics,
    stop: CancellationToken,
}

impl Worker {
    pub(crate) fn new(
        parts: &Parts,
        options: Options,
        dispatcher: Dispatcher,
        stop: CancellationToken,
    ) -> Self {
        Self {
            store: parts.store.clone(),
            coord: parts.coord.clone(),
            options,
            dispatcher,
            slots: Arc::new(Semaphore::new(options.slots)),
            metrics: parts.metrics.clone(),
            stop,
        }
    }

    /// Runs until it is stopped. A claim that is under way is finished: what has been claimed is also sent.
    pub(crate) async fn run(self) {
        let mut wakeups = self.coord.wakeups().subscribe(topic::QUEUE);
        let mut cursor = String::new();
        let mut round_has_more = false;
        let mut broken = Vec::new();
        loop {
            let permits = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                permits = self.free_slots() => permits,
            };
            let Some(permits) = permits else { return };
            match self.step(&mut cursor, &mut broken, permits).await {
                Ok(more) => {
                    round_has_more |= more;
                    // In the middle of a round the next apps are served at once; at its end the next round begins
                    // at once only if this one moved anything.
                    if !cursor.is_empty() || std::mem::take(&mut round_has_more) {
                        continue;
                    }
                    // The subscription remembers what was said while the claim ran.
                    tokio::select! {
                        () = wakeups.notified() => {}
                        () = self.coord.clock().sleep(LOOK_AGAIN) => {}
                        () = self.stop.cancelled() => return,
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "cannot claim messages");
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
            }
        }
    }

    /// One claim, dispatched. Says whether its apps may have more at once.
    ///
    /// `broken` are the leases of claims that failed: nobody knows whether they were committed, so they are taken
    /// back before the next one.
    async fn step(
        &self,
        cursor: &mut String,
        broken: &mut Vec<i64>,
        permits: OwnedSemaphorePermit,
    ) -> Result<bool, StoreError> {
        let now = self.coord.clock().now();
        let platform = self.store.platform();
        while let Some(&lease) = broken.last() {
            platform.disown(lease, now).await?;
            broken.pop();
        }
        let request = ClaimRequest {
            slots: permits.num_permits(),
            cursor: std::mem::take(cursor),
            lease: rand::random(),
            lease_until: now + self.options.lease,
            shares: self.options.shares,
        };
        let ClaimBatch {
            claimed,
            expired,
            unpermitted,
            cursor: next,
            more,
        } = platform
            .claim(&request, now)
            .await
            .inspect_err(|_| broken.push(request.lease))?;
        *cursor = next;
        self.dispatcher.dispatch(claimed, permits);
        self.metrics.ended(Status::Failed, unpermitted.len());
        if !(expired.is_empty() && unpermitted.is_empty()) {
            let ended = expired.into_iter().chain(unpermitted);
            self.coord
                .wakeups()
                .wake(topic::ENDED, &ended_payload(ended));
        }
        Ok(more)
    }

    /// All slots that are free. A busy worker waits a moment for a few to come together, so that it claims in
    /// batches rather than one by one; one whose sends are all stuck still serves with what it has.
    async fn free_slots(&self) -> Option<OwnedSemaphorePermit> {
        let few = (self.options.slots / 4).clamp(1, LARGEST_CLAIM);
        let mut permits = self.slots.clone().acquire_owned().await.ok()?;
        if let Ok(more) = u32::try_from(few - 1)
            && let Ok(gathered) =
                tokio::time::timeout(GATHER, self.slots.clone().acquire_many_owned(more)).await
        {
            permits.merge(gathered.ok()?);
        }
        let rest = self
            .slots
            .available_permits()
            .min(LARGEST_CLAIM.saturating_sub(permits.num_permits()));
        if let Ok(rest) = self
            .slots
            .clone()
            .try_acquire_many_owned(u32::try_from(rest).unwrap_or(0))
        {
            permits.merge(rest);
        }
        Some(permits)
    }
}
