//! The recorder: writes what came of sends, all that waits at one moment in one transaction.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use domain::{id::MessageId, lifecycle::Status};
use store::{LanePause, Recorded, Settlement, StoreError};
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc};

use crate::{engine::Parts, topic, waiters::ended_payload};

/// How many settlements one transaction takes.
const BATCH: usize = 512;
/// How long to rest after the database failed.
const AFTER_FAILURE: Duration = Duration::from_millis(500);

/// A send that has come to its end, on the way to the database.
pub(crate) struct Settled {
    pub(crate) settlement: Settlement,
    pub(crate) pause: Option<LanePause>,
    /// The sending slot, free when this is dropped: so at most `slots` sends are ever unrecorded.
    pub(crate) slot: Option<OwnedSemaphorePermit>,
}

pub(crate) struct Recorder {
    parts: Parts,
    due: Arc<Notify>,
    settled: mpsc::Receiver<Settled>,
}

impl Recorder {
    pub(crate) fn new(parts: Parts, due: Arc<Notify>, settled: mpsc::Receiver<Settled>) -> Self {
        Self {
            parts,
            due,
            settled,
        }
    }

    /// Runs until all senders are gone.
    pub(crate) async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        while self.settled.recv_many(&mut batch, BATCH).await > 0 {
            let mut slots = Vec::with_capacity(batch.len());
            let mut settlements = Vec::with_capacity(batch.len());
            // By appid, so that two recorders lock the lanes in the same order.
            let mut pauses: BTreeMap<String, LanePause> = BTreeMap::new();
            for settled in batch.drain(..) {
                slots.push(settled.slot);
                settlements.push(settled.settlement);
                if let Some(pause) = settled.pause {
                    let longest = pauses
                        .entry(pause.appid.to_string())
                        .or_insert_with(|| pause.clone());
                    if pause.until > longest.until {
                        *longest = pause;
                    }
                }
            }
            let pauses: Vec<LanePause> = pauses.into_values().collect();
            self.record_all(&settlements, &pauses).await;
            drop(slots);
        }
    }
}

impl Recorder {
    /// Does not return before the database has the batch: what is lost here would be sent again or called uncertain.
    async fn record_all(&self, settlements: &[Settlement], pauses: &[LanePause]) {
        loop {
            match record(&self.parts, &self.due, settlements, pauses).await {
                Ok(()) => return,
                // Trying the same again cannot heal it; one that the database refuses must not hold up the others.
                Err(StoreError::Broken(error)) if settlements.len() <= 1 => {
                    let message = settlements
                        .first()
                        .map(|settlement| settlement.id.to_string());
                    tracing::error!(
                        message,
                        error,
                        "what became of a message cannot be recorded; its lease decides"
                    );
                    return;
                }
                Err(StoreError::Broken(error)) => {
                    tracing::error!(
                        error,
                        "cannot record a batch; recording its messages one by one"
                    );
                    for settlement in settlements {
                        Box::pin(self.record_all(std::slice::from_ref(settlement), pauses)).await;
                    }
                    return;
                }
                Err(error) => {
                    tracing::error!(%error, messages = settlements.len(), "cannot record what became of messages; trying again");
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
            }
        }
    }
}

/// Records a batch and tells whom it concerns.
pub(crate) async fn record(
    parts: &Parts,
    due: &Notify,
    settlements: &[Settlement],
    pauses: &[LanePause],
) -> Result<(), StoreError> {
    let now = parts.coord.clock().now();
    let Recorded { changed, released } = parts
        .store
        .platform()
        .record(settlements, pauses, now)
        .await?;
    for pause in pauses {
        tracing::warn!(appid = %pause.appid, reason = %pause.reason, until = %pause.until, "app paused: {}", pause.detail);
    }
    let due_ats = || {
        settlements
            .iter()
            .filter_map(|settlement| settlement.transition.due_at)
    };
    if due_ats().any(|due_at| due_at > now) {
        due.notify_one();
    }
    if released || due_ats().any(|due_at| due_at <= now) {
        parts.coord.wakeups().wake(topic::QUEUE, "");
    }
    tell_ends(parts, settlements, &changed);
    Ok(())
}

fn tell_ends(parts: &Parts, settlements: &[Settlement], changed: &HashSet<MessageId>) {
    let ended = settlements.iter().filter(|settlement| {
        let late = !changed.contains(&settlement.id);
        if late {
            tracing::warn!(message = %settlement.id, "an answer came after its lease had ended; it changes nothing");
        }
        !late && settlement.transition.status.is_end()
    });
    let ended: Vec<&Settlement> = ended.collect();
    for status in Status::ALL {
        let count = ended
            .iter()
            .filter(|settlement| settlement.transition.status == status)
            .count();
        parts.metrics.ended(status, count);
    }
    if !ended.is_empty() {
        parts.coord.wakeups().wake(
            topic::ENDED,
            &ended_payload(ended.iter().map(|settlement| settlement.id)),
        );
    }
}
