//! The sweeper: acts on times. Due messages become ready, late messages expire, ended leases are recorded.
//!
//! **Ended leases** are judged only when every existing outcome has been recorded:
//!
//! - A send ends at least 4 s before its lease (`dispatch::UNNOTICED_OUTAGE`). So a lease that ends while the outcome waits
//!   for the database ends in an outage of more than 4 s.
//! - Every replica writes the heartbeat once a second, by the database's clock. A gap of more than 3 s starts a new
//!   `steady_since`.
//! - The sweeper judges leases only when `steady_since` is at least 8 s ago. By then every replica has had the time to
//!   write the outcomes in its memory, and `store::doubt` has made sure that the connections of the pool lead to the
//!   primary.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use domain::{
    lifecycle::Event,
    verdict::{Attempt, Outcome},
};
use store::{ClaimedMessage, Settlement, SettlementSource, StoreError};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{parts::Parts, recorder::record, topic, waiters::announce_ends};

/// The interval of the rounds over expired messages, ended leases and stranded messages, which no due time announces.
const ROUND: Duration = Duration::from_secs(1);
/// How long the database must have taken writes before leases are judged: after an outage, the workers write their
/// outcomes first.
const SETTLED: Duration = Duration::from_secs(8);
/// How long a message is not sent again after the end of its lease. The worker may be slow rather than dead, and an
/// answer of the worker counts until then.
const CORRECTION: Duration = Duration::from_secs(5);

pub(crate) struct Sweeper {
    parts: Parts,
    /// The length of a lease.
    lease: Duration,
    due: Arc<Notify>,
    stop: CancellationToken,
}

impl Sweeper {
    pub(crate) fn new(
        parts: &Parts,
        lease: Duration,
        due: Arc<Notify>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            parts: parts.clone(),
            lease,
            due,
            stop,
        }
    }

    /// Runs until stopped.
    pub(crate) async fn run(self) {
        let stop = self.stop.clone();
        stop.run_until_cancelled(self.sweep()).await;
    }

    async fn sweep(self) {
        let clock = self.parts.coord.clock().clone();
        // A round comes each second, however the time of day jumps.
        let mut round_at = clock.elapsed();
        loop {
            clock.right().await;
            let now = clock.now();
            let swept = async {
                self.promote(now).await?;
                if clock.elapsed() >= round_at {
                    round_at = clock.elapsed() + ROUND;
                    self.round(now).await?;
                }
                self.parts.store.platform().next_due().await
            };
            let next_due = match swept.await {
                Ok(next_due) => next_due.unwrap_or(DateTime::<Utc>::MAX_UTC),
                Err(error) => {
                    tracing::error!(%error, "cannot sweep the queue");
                    tokio::time::sleep(ROUND).await;
                    continue;
                }
            };
            tokio::select! {
                () = clock.sleep_until(next_due) => {}
                () = clock.sleep(round_at.saturating_sub(clock.elapsed())) => {}
                () = self.due.notified() => {}
            }
        }
    }

    /// Records sends with an ended lease. Returns whether there may be more.
    ///
    /// A healthy send must not be taken for a lost one, because a lost send may be repeated. So the time is fetched
    /// again just before the decision. A jump of the clock may end leases that have just begun, so no lease is judged
    /// for the length of a lease after a jump. After an outage of the database, all workers write their outcomes first.
    async fn judge(&self, now: DateTime<Utc>) -> Result<bool, StoreError> {
        let clock = self.parts.coord.clock();
        // In every round: only reading the machine's clock shows a jump.
        let is_steady = clock.steady_for() >= self.lease;
        let overdue = self.parts.store.platform().overdue(now).await?;
        if overdue.is_empty() || !is_steady {
            return Ok(false);
        }
        let Ok(now) = tokio::time::timeout(ROUND, clock.checked()).await else {
            return Ok(false);
        };
        if clock.steady_for() < self.lease {
            return Ok(false);
        }
        let lost: Vec<Settlement> = overdue
            .into_iter()
            .filter(|flight| flight.lease_until <= now)
            .filter_map(|flight| lost(flight, now))
            .collect();
        // The heartbeat is read after the overdue leases. If the database has been steady long enough by then, every
        // existing outcome of these leases was recorded before.
        if lost.is_empty() || self.parts.store.beat().await?.steady_for < SETTLED {
            return Ok(false);
        }
        self.give_up(lost).await
    }

    async fn promote(&self, now: DateTime<Utc>) -> Result<(), StoreError> {
        loop {
            let swept = self.parts.store.platform().promote(now).await?;
            if swept.moved > 0 {
                self.parts.coord.wakeups().wake(topic::QUEUE, "");
            }
            if !swept.more {
                return Ok(());
            }
        }
    }

    /// Records that leases have ended. False: the database refuses some of these records for their content, and those
    /// leases are still overdue.
    async fn give_up(&self, mut lost: Vec<Settlement>) -> Result<bool, StoreError> {
        match record(&self.parts, &self.due, &mut lost, &[]).await {
            Ok(()) => return Ok(true),
            Err(error) if error.is_outage() => return Err(error),
            Err(error) => {
                tracing::error!(%error, "cannot record lost leases; recording them one by one");
            }
        }
        for one in lost {
            let message_id = one.id;
            match record(&self.parts, &self.due, &mut vec![one], &[]).await {
                Err(error) if error.is_outage() => return Err(error),
                Err(error) => tracing::error!(%message_id, %error, "cannot record a lost lease"),
                Ok(()) => {}
            }
        }
        Ok(false)
    }

    async fn round(&self, now: DateTime<Utc>) -> Result<(), StoreError> {
        let platform = self.parts.store.platform();
        loop {
            let expired = platform.expire(now).await?;
            if expired.is_empty() {
                break;
            }
            announce_ends(&self.parts, &expired);
        }
        while self.judge(now).await? {}
        if platform.release_stranded(now).await?.moved > 0 {
            self.parts.coord.wakeups().wake(topic::QUEUE, "");
        }
        Ok(())
    }
}

/// The record of a message that a lost worker has claimed. WeChat may or may not have the message.
fn lost(flight: ClaimedMessage, now: DateTime<Utc>) -> Option<Settlement> {
    let transition = flight
        .facts()
        .apply(&Event::LeaseEnded, now + CORRECTION, rand::random())
        .ok()?;
    let grant = flight.grant_news(&Event::LeaseEnded);
    let mut attempts = flight.attempts;
    attempts.push(Attempt {
        number: attempts
            .last()
            .map_or(1, |last| last.number.saturating_add(1)),
        // The attempt began at some time between the claim and the end of the lease.
        started_at: flight.claimed_at,
        duration_ms: u64::try_from((flight.lease_until - flight.claimed_at).num_milliseconds())
            .unwrap_or_default(),
        outcome: Outcome::Unknown,
        errcode: None,
        errmsg: Some(
            "the gateway process that was sending the message stopped before recording an answer"
                .to_owned(),
        ),
        rid: None,
    });
    Some(Settlement {
        id: flight.id,
        lease: flight.lease,
        word: SettlementSource::LeaseEnded,
        appid: flight.appid,
        touser: flight.touser,
        template_id: flight.template_id,
        grant,
        transition,
        attempts,
        refund: None,
        msgid: None,
        failure_detail: None,
    })
}
