//! The batch writer of callbacks: all consequences that wait at one moment are carried out in one transaction.
//!
//! Tenants are served in rotation, and a transaction takes a bounded number of receipts and entries: see [`TenantQueues`].

use std::{collections::HashSet, time::Duration};

use domain::{id::TenantId, lifecycle::Status};
use store::{CallbackEvent, EventKey, NewReceipt, Settled, StoreError};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{consequence::Consequence, error::CallbackError};
use crate::{
    metrics::CallbackOutcome,
    parts::Parts,
    tenant_queues::{
        BatchLimits, QueuedItem, TenantQueueReader, TenantQueues, WaitingLimits, lines,
    },
    topic,
    waiters::ended_payload,
};

/// How much may wait for a transaction before more is refused, in [`Consequence::weight`].
const ROOM: WaitingLimits = WaitingLimits {
    each: 4096,
    all: 32_768,
    always: 128,
};
/// How much one transaction takes, and the share of one tenant in a turn: little, because messages wait meanwhile.
const TAKE: BatchLimits = BatchLimits {
    most: 128,
    share: 32,
};
/// How long a callback waits for capacity. WeChat waits for five seconds altogether.
const PATIENCE: Duration = Duration::from_secs(1);

type WriterReply = oneshot::Sender<Result<CallbackOutcome, CallbackError>>;

/// A consequence and the channel for its answer.
type QueuedConsequence = (Consequence, WriterReply);

/// The entry for consequences.
pub(super) struct CallbackWriter(TenantQueues<QueuedConsequence>);

/// The task that carries consequences out.
pub(crate) struct CallbackWriterLoop {
    waiting: TenantQueueReader<QueuedConsequence>,
    parts: Parts,
    stop: CancellationToken,
}

impl CallbackWriter {
    pub(super) fn new(parts: Parts, stop: CancellationToken) -> (Self, CallbackWriterLoop) {
        let (lines, waiting) = lines(ROOM);
        let writer_loop = CallbackWriterLoop {
            waiting,
            parts,
            stop,
        };
        (Self(lines), writer_loop)
    }

    /// Returns when the consequence is in the database.
    pub(super) async fn take(
        &self,
        tenant: TenantId,
        consequence: Consequence,
    ) -> Result<CallbackOutcome, CallbackError> {
        if consequence == Consequence::Nothing {
            return Ok(CallbackOutcome::Ignored);
        }
        let overloaded = || {
            CallbackError::Unavailable(
                "more callbacks are waiting than the database can take".to_owned(),
            )
        };
        let (answer, answered) = oneshot::channel();
        let weight = consequence.weight();
        let request = (consequence, answer);
        let entered = self.0.enter(tenant, weight, PATIENCE, request).await;
        entered.map_err(|_| overloaded())?;
        answered.await.map_err(|_| overloaded())?
    }
}

impl CallbackWriterLoop {
    /// Runs until stopped, and then until all waiting callbacks are answered.
    pub(crate) async fn run(self) {
        let closing = async {
            self.stop.cancelled().await;
            self.waiting.close();
        };
        let serving = async {
            while let Some(batch) = self.waiting.next(TAKE).await {
                self.carry_out(batch).await;
            }
        };
        tokio::join!(closing, serving);
    }

    async fn carry_out(&self, batch: Vec<QueuedItem<QueuedConsequence>>) {
        let (mut consequences, mut answers) = (Vec::new(), Vec::new());
        for QueuedItem { item, place } in batch {
            consequences.push(item.0);
            answers.push((item.1, place));
        }
        let outcomes: Vec<Result<CallbackOutcome, CallbackError>> = match self
            .take_in(&consequences)
            .await
        {
            Ok(outcomes) => outcomes.into_iter().map(Ok).collect(),
            // A consequence that the database refuses must not fail the others.
            Err(StoreError::Broken(error)) if consequences.len() > 1 => {
                tracing::error!(
                    error,
                    "cannot record a batch of callbacks; recording the callbacks one by one"
                );
                let mut outcomes = Vec::with_capacity(consequences.len());
                for consequence in &consequences {
                    let alone = self.take_in(std::slice::from_ref(consequence)).await;
                    outcomes.push(alone.map(|alone| alone[0]).map_err(CallbackError::from));
                }
                outcomes
            }
            Err(error) => {
                tracing::error!(%error, callbacks = consequences.len(), "cannot record callbacks; WeChat will repeat \
                    the callbacks");
                let refusal = CallbackError::from(error);
                consequences.iter().map(|_| Err(refusal.clone())).collect()
            }
        };
        for ((answer, _place), outcome) in answers.into_iter().zip(outcomes) {
            // Fails when WeChat has closed the connection. The content is in the database nevertheless.
            let _ = answer.send(outcome);
        }
    }

    /// Carries out all consequences. Returns the outcome of each.
    async fn take_in(
        &self,
        consequences: &[Consequence],
    ) -> Result<Vec<CallbackOutcome>, StoreError> {
        let now = self.parts.coord.clock().now();
        let platform = self.parts.store.platform();
        let receipts: Vec<NewReceipt> = consequences.iter().flat_map(receipts).cloned().collect();
        let (settled, abandoned) = platform.receive(&receipts, now).await?;
        self.parts.metrics.receipts_abandoned(abandoned);
        announce(&self.parts, &settled);
        let news: Vec<CallbackEvent> = consequences
            .iter()
            .filter_map(subscriptions)
            .cloned()
            .collect();
        let mut fresh = platform.remember_events(&news, now).await?;
        Ok(consequences
            .iter()
            .map(|consequence| outcome(consequence, &mut fresh))
            .collect())
    }
}

fn receipts(consequence: &Consequence) -> &[NewReceipt] {
    match consequence {
        Consequence::Receipts(receipts) => receipts,
        Consequence::Subscriptions(_) | Consequence::Nothing => &[],
    }
}

fn subscriptions(consequence: &Consequence) -> Option<&CallbackEvent> {
    match consequence {
        Consequence::Subscriptions(news) => Some(news),
        Consequence::Receipts(_) | Consequence::Nothing => None,
    }
}

/// An event that comes twice in one batch counts at its first place.
fn outcome(consequence: &Consequence, fresh: &mut HashSet<EventKey>) -> CallbackOutcome {
    match consequence {
        Consequence::Receipts(_) => CallbackOutcome::Taken,
        Consequence::Subscriptions(news) if fresh.remove(&news.event) => CallbackOutcome::Taken,
        Consequence::Subscriptions(_) => CallbackOutcome::Repeated,
        Consequence::Nothing => CallbackOutcome::Ignored,
    }
}

/// Counts settled messages and wakes the requests that wait for them.
pub(crate) fn announce(parts: &Parts, settled: &[Settled]) {
    for status in [Status::Delivered, Status::Undelivered] {
        let count = settled.iter().filter(|one| one.status == status).count();
        parts.metrics.settled(status, count);
    }
    if !settled.is_empty() {
        parts.coord.wakeups().wake(
            topic::ENDED,
            &ended_payload(settled.iter().map(|one| one.id)),
        );
    }
}
