//! The syncer: asks WeChat for the templates of apps that are due for a sync.

use std::time::Duration;

use coord::Coord;
use store::Store;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Templates;
use crate::topic;

/// Apps that this replica syncs at the same time.
const AT_ONCE: u64 = 8;
/// How often the syncer looks for due apps without a wake-up.
const ROUND: Duration = Duration::from_secs(30);
/// How long an app is reserved for this replica: several times what its calls can take.
const LEASE: Duration = Duration::from_mins(5);

pub(crate) struct Syncer {
    store: Store,
    coord: Coord,
    templates: Templates,
    stop: CancellationToken,
}

impl Syncer {
    pub(crate) fn new(
        store: Store,
        coord: Coord,
        templates: Templates,
        stop: CancellationToken,
    ) -> Self {
        Self {
            store,
            coord,
            templates,
            stop,
        }
    }

    /// Runs until stopped. Calls in progress are dropped then: their apps are due again when the lease ends.
    pub(crate) async fn run(self) {
        let stop = self.stop.clone();
        stop.run_until_cancelled(self.sync()).await;
    }

    async fn sync(self) {
        let clock = self.coord.clock().clone();
        let mut woken = self.coord.wakeups().subscribe(topic::TEMPLATES);
        loop {
            clock.right().await;
            let now = clock.now();
            let platform = self.store.platform();
            let taken = platform
                .claim_template_syncs(AT_ONCE, now, now + LEASE)
                .await;
            match taken {
                Ok(due) if due.is_empty() => tokio::select! {
                    () = clock.sleep(ROUND) => {}
                    () = woken.notified() => {}
                },
                Ok(due) => {
                    let mut asking = JoinSet::new();
                    for one in due {
                        let templates = self.templates.clone();
                        asking.spawn(async move { templates.sync_due(&one).await });
                    }
                    while asking.join_next().await.is_some() {}
                }
                Err(error) => {
                    tracing::error!(%error, "cannot find the apps whose templates are due for a sync");
                    tokio::time::sleep(ROUND).await;
                }
            }
        }
    }
}
