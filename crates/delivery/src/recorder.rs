//! The recorder: writes the outcomes of attempts, all that wait at one moment in one transaction.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, HashSet, btree_map::Entry},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, Utc};
use domain::{id::MessageId, lifecycle::Status};
use store::{LaneChange, Recorded, Settlement, SettlementSource, StoreError};
use tokio::sync::{Notify, OwnedSemaphorePermit};

use crate::{parts::Parts, retrying_writer::Writer, topic, waiters::ended_payload};

/// Replaces a text of WeChat's that could not be recorded.
const UNRECORDED: &str = "WeChat's text cannot be recorded";

/// The outcome of a send, on the way to the database.
pub(crate) struct UnrecordedOutcome {
    pub(crate) settlement: Settlement,
    /// The change to the app's lane.
    pub(crate) news: Option<LaneChange>,
    /// The sending slot, released when this is dropped: so at most `slots` sends are ever unrecorded.
    pub(crate) _slot: OwnedSemaphorePermit,
}

impl Borrow<Settlement> for UnrecordedOutcome {
    fn borrow(&self) -> &Settlement {
        &self.settlement
    }
}

/// Writes the outcomes of attempts. After the loss of an outcome, the message would be sent again or become `uncertain`.
pub(crate) struct Recorder {
    parts: Parts,
    due: Arc<Notify>,
    lease: Duration,
}

impl Recorder {
    /// `lease`: by how much each retry extends the lease of a message that cannot be recorded.
    pub(crate) fn new(parts: Parts, due: Arc<Notify>, lease: Duration) -> Self {
        Self { parts, due, lease }
    }
}

impl Writer for Recorder {
    type Item = UnrecordedOutcome;
    const ITEMS: &'static str = "answers to sends";

    async fn write(&self, items: &mut Vec<UnrecordedOutcome>) -> Result<(), StoreError> {
        // Sorted by appid, so that two recorders lock the lanes in the same order.
        let mut news: BTreeMap<String, LaneChange> = BTreeMap::new();
        for fresh in items.iter().filter_map(|settled| settled.news.as_ref()) {
            match news.entry(fresh.appid().to_string()) {
                Entry::Vacant(place) => drop(place.insert(fresh.clone())),
                Entry::Occupied(mut known) => merge(known.get_mut(), fresh.clone()),
            }
        }
        let news: Vec<LaneChange> = news.into_values().collect();
        record(&self.parts, &self.due, items, &news).await
    }

    fn strip(&self, item: &mut UnrecordedOutcome) -> bool {
        let settlement = &mut item.settlement;
        let mut texts = settlement.failure_detail.take().is_some();
        for attempt in &mut settlement.attempts {
            texts |= attempt.errmsg.take().is_some() | attempt.rid.take().is_some();
        }
        if let Some(LaneChange::Pause(pause)) = &mut item.news
            && pause.detail != UNRECORDED
        {
            UNRECORDED.clone_into(&mut pause.detail);
            texts = true;
        }
        texts
    }

    fn name(&self, item: &UnrecordedOutcome) -> String {
        item.settlement.id.to_string()
    }

    async fn hold(&self, item: &UnrecordedOutcome) -> Result<(), StoreError> {
        let until = self.parts.coord.clock().now() + self.lease;
        let Settlement { id, lease, .. } = &item.settlement;
        let platform = self.parts.store.platform();
        platform.extend_lease(*id, *lease, until).await
    }
}

/// Records a batch, announces the ends and wakes the tasks concerned. After a failure, `settlements` holds the items
/// that are not recorded yet.
pub(crate) async fn record<S: Borrow<Settlement> + Send + Sync>(
    parts: &Parts,
    due: &Notify,
    settlements: &mut Vec<S>,
    news: &[LaneChange],
) -> Result<(), StoreError> {
    let now = parts.coord.clock().now();
    let platform = parts.store.platform();
    // With a change to a lane, all outcomes go into the transaction of that change, so that no outcome is visible before
    // the pause.
    if news.is_empty() {
        let plain = platform.record_plain(settlements, now).await?;
        let is_plain = |one: &mut S| plain.changed.contains(&(*one).borrow().id);
        let written: Vec<S> = settlements.extract_if(.., is_plain).collect();
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

fn announce_news(parts: &Parts, news: &[LaneChange]) {
    for news in news {
        match news {
            LaneChange::Pause(pause) => {
                parts.coord.wakeups().wake(topic::WEBHOOKS, "");
                tracing::warn!(appid = %pause.appid, reason = %pause.reason, until = %pause.until, "app paused: {}", pause.detail);
            }
            LaneChange::Open(appid) => tracing::info!(%appid, "app sends again"),
            LaneChange::StillPaused(..) => {}
        }
    }
    if news.iter().any(|news| matches!(news, LaneChange::Open(_))) {
        parts.coord.wakeups().wake(topic::QUEUE, "");
    }
}

fn announce<S: Borrow<Settlement>>(
    parts: &Parts,
    due: &Notify,
    settlements: &[S],
    recorded: &Recorded,
    now: DateTime<Utc>,
) {
    let settlements: Vec<&Settlement> = settlements.iter().map(Borrow::borrow).collect();
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
    announce_recorded_ends(parts, &settlements, &recorded.changed);
}

/// Merges the lane changes of two sends of one app: a pause wins, and of two pauses the longer one.
fn merge(known: &mut LaneChange, fresh: LaneChange) {
    match (known, fresh) {
        (LaneChange::Pause(known), LaneChange::Pause(fresh)) => {
            let refused = known.refused + fresh.refused;
            let by_probe = known.by_probe || fresh.by_probe;
            if fresh.until > known.until {
                *known = fresh;
            }
            known.refused = refused;
            known.by_probe = by_probe;
        }
        (known, fresh @ LaneChange::Pause(_)) => *known = fresh,
        _ => {}
    }
}

fn announce_recorded_ends(
    parts: &Parts,
    settlements: &[&Settlement],
    changed: &HashSet<MessageId>,
) {
    let ended = settlements.iter().filter(|settlement| {
        let late = !changed.contains(&settlement.id);
        // Several sweepers may record one lost lease, and the first one wins. The others lose no answer, so there is no
        // warning.
        if late && settlement.word != SettlementSource::LeaseEnded {
            tracing::warn!(message_id = %settlement.id, "an outcome arrived after its lease had ended; the outcome \
                changes nothing");
        }
        !late && settlement.transition.status.is_end()
    });
    let ended: Vec<&&Settlement> = ended.collect();
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
