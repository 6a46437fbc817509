//! The sweeper of receipts that wait for their message: a task of its own, so that no other sweep waits for receipts.

use std::time::{Duration, Instant};

use store::StoreError;
use tokio_util::sync::CancellationToken;

use super::writer::announce;
use crate::parts::Parts;

/// The interval of the rounds.
const ROUND: Duration = Duration::from_secs(1);
/// The most sweeps of one round. The next round continues with the rest.
const SWEEPS: usize = 16;
/// The pause after a sweep, as a multiple of the sweep's duration: the database is free for other work most of the
/// time.
const REST: u32 = 3;

pub(crate) struct ReceiptSweeper {
    parts: Parts,
    stop: CancellationToken,
}

impl ReceiptSweeper {
    pub(crate) fn new(parts: &Parts, stop: CancellationToken) -> Self {
        Self {
            parts: parts.clone(),
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
        let mut after = String::new();
        loop {
            clock.right().await;
            if let Err(error) = self.round(&mut after).await {
                tracing::error!(%error, "cannot read the receipts that wait; trying again");
                tokio::time::sleep(ROUND).await;
            }
            clock.sleep(ROUND).await;
        }
    }

    /// Continues with the apps after `after`.
    async fn round(&self, after: &mut String) -> Result<(), StoreError> {
        let platform = self.parts.store.platform();
        for _ in 0..SWEEPS {
            let (began, now) = (Instant::now(), self.parts.coord.clock().now());
            let swept = platform.sweep_receipts(after, now).await?;
            announce(&self.parts, &swept.settled);
            self.parts.metrics.receipts_abandoned(swept.abandoned);
            *after = swept.after;
            if after.is_empty() && !swept.more {
                break;
            }
            tokio::time::sleep(began.elapsed() * REST).await;
        }
        Ok(())
    }
}
