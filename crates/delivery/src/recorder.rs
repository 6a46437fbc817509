//! The recorder: writes what came of sends, all that waits at one moment in one transaction.

use std::{
    collections::{BTreeMap, HashSet, btree_map::Entry},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, Utc};
use domain::{id::MessageId, lifecycle::Status};
use store::{LaneNews, Recorded, Settlement, StoreError, Word};
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc};

use crate::{engine::Parts, topic, waiters::ended_payload};

/// How many settlements one transaction takes.
const BATCH: usize = 512;
/// How long to rest after the database failed.
const AFTER_FAILURE: Duration = Duration::from_millis(500);

/// A send that has come to its end, on the way to the database.
pub(crate) struct Settled {
    pub(crate) settlement: Settlement,
    /// What it means for its app.
    pub(crate) news: Option<LaneNews>,
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
            let mut news: BTreeMap<String, LaneNews> = BTreeMap::new();
            for settled in batch.drain(..) {
                slots.push(settled.slot);
                settlements.push(settled.settlement);
                if let Some(fresh) = settled.news {
                    match news.entry(fresh.appid().to_string()) {
                        Entry::Vacant(place) => drop(place.insert(fresh)),
                        Entry::Occupied(mut known) => merge(known.get_mut(), fresh),
                    }
                }
            }
            let news: Vec<LaneNews> = news.into_values().collect();
            self.record_all(&mut settlements, &news).await;
            drop(slots);
        }
    }
}

impl Recorder {
    /// Does not return before the database has the batch: what is lost here would be sent again or called uncertain.
    async fn record_all(&self, settlements: &mut Vec<Settlement>, news: &[LaneNews]) {
        loop {
            match record(&self.parts, &self.due, settlements, news).await {
                Ok(()) => return,
                // Trying the same again cannot heal it; one that the database refuses must not hold up the others.
                Err(StoreError::Broken(error)) if settlements.len() <= 1 => {
                    let message_id = settlements
                        .first()
                        .map(|settlement| settlement.id.to_string());
                    tracing::error!(
                        message_id,
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
                    for settlement in settlements.drain(..) {
                        Box::pin(self.record_all(&mut vec![settlement], news)).await;
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

/// Records a batch and tells whom it concerns. After a failure those are left in it that are not recorded yet.
pub(crate) async fn record(
    parts: &Parts,
    due: &Notify,
    settlements: &mut Vec<Settlement>,
    news: &[LaneNews],
) -> Result<(), StoreError> {
    let now = parts.coord.clock().now();
    let platform = parts.store.platform();
    // An answer that stops its app is not seen before the stop is.
    if news.is_empty() {
        let plain = platform.record_plain(settlements, now).await?;
        let is_plain = |settlement: &mut Settlement| plain.changed.contains(&settlement.id);
        let written: Vec<Settlement> = settlements.extract_if(.., is_plain).collect();
        announce(parts, due, &written, &plain, now);
        if settlements.is_empty() {
            return Ok(());
        }
    }
    let others = platform.record(settlements, news, now).await?;
    announce_news(parts, news);
    announce(parts, due, settlements, &others, now);
    Ok(())
}

fn announce_news(parts: &Parts, news: &[LaneNews]) {
    for news in news {
        match news {
            LaneNews::Pause(pause) => {
                parts.coord.wakeups().wake(topic::WEBHOOKS, "");
                tracing::warn!(appid = %pause.appid, reason = %pause.reason, until = %pause.until, "app paused: {}", pause.detail);
            }
            LaneNews::Open(appid) => tracing::info!(%appid, "app sends again"),
            LaneNews::StillPaused(..) => {}
        }
    }
    if news.iter().any(|news| matches!(news, LaneNews::Open(_))) {
        parts.coord.wakeups().wake(topic::QUEUE, "");
    }
}

fn announce(
    parts: &Parts,
    due: &Notify,
    settlements: &[Settlement],
    recorded: &Recorded,
    now: DateTime<Utc>,
) {
    let due_ats = || {
        settlements
            .iter()
            .filter_map(|settlement| settlement.transition.due_at)
    };
    if due_ats().any(|due_at| due_at > now) {
        due.notify_one();
    }
    if recorded.released || due_ats().any(|due_at| due_at <= now) {
        parts.coord.wakeups().wake(topic::QUEUE, "");
    }
    tell_ends(parts, settlements, &recorded.changed);
}

/// Two sends of one app ended at the same time: the worse news counts, of two pauses the longer one.
fn merge(known: &mut LaneNews, fresh: LaneNews) {
    match (known, fresh) {
        (LaneNews::Pause(known), LaneNews::Pause(fresh)) => {
            let refused = known.refused + fresh.refused;
            let by_probe = known.by_probe || fresh.by_probe;
            if fresh.until > known.until {
                *known = fresh;
            }
            known.refused = refused;
            known.by_probe = by_probe;
        }
        (known, fresh @ LaneNews::Pause(_)) => *known = fresh,
        _ => {}
    }
}

fn tell_ends(parts: &Parts, settlements: &[Settlement], changed: &HashSet<MessageId>) {
    let ended = settlements.iter().filter(|settlement| {
        let late = !changed.contains(&settlement.id);
        // Of several sweepers that settle one lost lease, one is first. The others have no answer that is lost here.
        if late && settlement.word != Word::Nobody {
            tracing::warn!(message_id = %settlement.id, "an answer came after its lease had ended; it changes nothing");
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
