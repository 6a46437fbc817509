//! The janitor: deletes old data in small batches, so that no other task waits long, and renews old counts.

use std::time::Duration;

use chrono::{DateTime, Utc};
use coord::Clock;
use store::{PlatformStore, Store, StoreError};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{grants::Counts, options::Retention};

/// The interval of the rounds.
const ROUND: Duration = Duration::from_mins(1);
/// The pause between two batches, in which other tasks can write.
const BREATH: Duration = Duration::from_millis(20);
/// How often the deletion of payloads restarts with the oldest messages, for those that had not ended before.
const FROM_THE_START: Duration = Duration::from_hours(24);

pub(crate) struct Janitor {
    store: Store,
    clock: Clock,
    retention: Retention,
    counts: Counts,
    stop: CancellationToken,
}

/// The progress of the deletion of payloads.
struct PurgeProgress {
    cursor: Uuid,
    started_at: DateTime<Utc>,
}

impl Janitor {
    pub(crate) fn new(
        store: Store,
        clock: Clock,
        retention: Retention,
        counts: Counts,
        stop: CancellationToken,
    ) -> Self {
        Self {
            store,
            clock,
            retention,
            counts,
            stop,
        }
    }

    /// Runs until stopped.
    pub(crate) async fn run(self) {
        let stop = self.stop.clone();
        stop.run_until_cancelled(self.clean()).await;
    }

    async fn clean(self) {
        let clock = self.clock.clone();
        let platform = self.store.platform();
        let mut payloads = PurgeProgress {
            cursor: Uuid::nil(),
            started_at: clock.now(),
        };
        loop {
            clock.right().await;
            let (began, now) = (clock.elapsed(), clock.now());
            if now >= payloads.started_at + FROM_THE_START {
                payloads = PurgeProgress {
                    cursor: Uuid::nil(),
                    started_at: now,
                };
            }
            if let Err(error) = self.round(&platform, &mut payloads, now).await {
                tracing::error!(%error, "cannot delete old data");
            }
            if let Err(error) = self.counts.renew_old().await {
                tracing::error!(%error, "cannot renew old counts of grants");
            }
            // Counted from the start of the round. The next round finds data that became old meanwhile.
            let rest = (began + ROUND).saturating_sub(clock.elapsed());
            clock.sleep(rest).await;
        }
    }

    async fn round(
        &self,
        platform: &PlatformStore,
        payloads: &mut PurgeProgress,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        while platform.forget_idempotency_keys(now).await?.more {
            tokio::time::sleep(BREATH).await;
        }
        while platform.forget_events(now).await?.more {
            tokio::time::sleep(BREATH).await;
        }
        while platform.forget_form_ids(now).await?.more {
            tokio::time::sleep(BREATH).await;
        }
        while platform.forget_lanes(now).await?.more {
            tokio::time::sleep(BREATH).await;
        }
        let before = now - self.retention.messages;
        while platform.forget_messages(before).await?.more {
            tokio::time::sleep(BREATH).await;
        }
        // An event contains the content of its message.
        let before = now - self.retention.payloads;
        while platform.forget_deliveries(before).await?.more {
            tokio::time::sleep(BREATH).await;
        }
        let before = now - self.retention.audit;
        while platform.forget_audit(before).await?.more {
            tokio::time::sleep(BREATH).await;
        }
        if self.retention.payloads < self.retention.messages {
            let before = now - self.retention.payloads;
            while let Some(cursor) = platform
                .drop_payloads(payloads.cursor, before, now)
                .await?
                .cursor
            {
                payloads.cursor = cursor;
                tokio::time::sleep(BREATH).await;
            }
        }
        Ok(())
    }
}
