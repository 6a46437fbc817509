//! What the fetches and token checks of all apps share.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU64, Ordering},
};

use coord::Coord;
use domain::{app::AppId, retry::Delay, seal::MasterKey};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use crate::{
    BrokerError, BrokerEvent, BrokerMetrics, Credentials, ForeignRefresh, Observer,
    deferred::DeferredUpdates, memories::Memories, memory::Memory, shared::SharedCells,
};

/// The means of a fetch: WeChat, the credentials of the apps, the memory of this replica and the shared cells.
pub(crate) struct Fetcher {
    pub(crate) client: wechat::Client,
    pub(crate) coord: Coord,
    pub(crate) credentials: Arc<dyn Credentials>,
    pub(crate) shared: SharedCells,
    pub(crate) metrics: BrokerMetrics,
    /// Runs the fetches; shutdown waits for these tasks.
    pub(crate) tasks: TaskTracker,
    /// Cancelled when fetches must no longer wait for other replicas.
    pub(crate) stop: CancellationToken,
    /// The deferred updates for Redis.
    pub(crate) deferred: Arc<DeferredUpdates>,
    pub(crate) memories: Arc<Memories>,
    pub(crate) observer: OnceLock<Arc<dyn Observer>>,
    /// Distinguishes the leases and wake-ups of this replica from those of other replicas.
    pub(crate) instance: u64,
    turns: AtomicU64,
    /// Ends the background tasks when the broker is dropped.
    _stop_at_drop: DropGuard,
}

impl Fetcher {
    pub(crate) fn new(
        client: wechat::Client,
        coord: Coord,
        credentials: Arc<dyn Credentials>,
        master_key: MasterKey,
        metrics: BrokerMetrics,
    ) -> Self {
        let stop = CancellationToken::new();
        Self {
            client,
            shared: SharedCells::new(coord.clone(), master_key),
            credentials,
            metrics,
            tasks: TaskTracker::new(),
            deferred: Arc::default(),
            memories: Arc::new(Memories::new(coord.clock().clone())),
            coord,
            observer: OnceLock::new(),
            instance: rand::random(),
            turns: AtomicU64::new(0),
            _stop_at_drop: stop.clone().drop_guard(),
            stop,
        }
    }

    /// Passes an event to the observer, without waiting for the observer.
    pub(crate) fn tell(&self, appid: &AppId, event: BrokerEvent) {
        if let Some(observer) = self.observer.get() {
            let (observer, appid) = (Arc::clone(observer), appid.clone());
            self.tasks
                .spawn(async move { observer.observe(&appid, event).await });
        }
    }

    /// Reports that another system replaced a token.
    pub(crate) fn blame(&self, appid: &AppId, seen: ForeignRefresh) {
        self.metrics.foreign_refresh();
        tracing::warn!(
            %appid,
            count_today = seen.count_today,
            "an access token ended early: {}",
            ForeignRefresh::ADVICE
        );
        self.tell(appid, BrokerEvent::ForeignRefresh(seen));
    }

    /// Returns a failure with a backoff that grows with the number of failures in a row.
    pub(crate) fn later(&self, memory: &Memory, detail: impl Into<String>) -> BrokerError {
        let retry_at =
            Delay::Backoff.next_try(self.coord.clock().now(), memory.next_try(), rand::random());
        BrokerError::Later {
            retry_at,
            detail: detail.into(),
        }
    }

    pub(crate) fn shutting_down(&self) -> BrokerError {
        BrokerError::Later {
            retry_at: self.coord.clock().now(),
            detail: "the gateway is shutting down".to_owned(),
        }
    }

    /// Returns a unique owner name for one use of a fetch lease.
    pub(crate) fn owner(&self) -> String {
        format!(
            "{:016x}-{}",
            self.instance,
            self.turns.fetch_add(1, Ordering::Relaxed)
        )
    }
}
