//! Deferred updates: what Redis could not take, kept in memory and written when Redis answers again.
//!
//! Replicas that do not see a token fetch another one, and in legacy mode that fetch ends the present token. Replicas
//! that do not see a ledger overrun a budget, or count the death of a token as a foreign refresh. So a failed write
//! leaves the app here, and one task writes the updates of all apps in rounds until Redis has them. The same task
//! judges deaths of tokens for which the other replicas could not be asked at the time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use coord::Clock;
use dashmap::DashMap;
use domain::app::AppId;
use tokio::{select, sync::Notify};

use crate::memory::Memory;

/// The time between two rounds. A failed round costs one call, which fails at once while the circuit breaker is open.
const RETRY: Duration = Duration::from_secs(1);
/// The apps with deferred updates.
#[derive(Default)]
pub(crate) struct DeferredUpdates {
    apps: DashMap<AppId, DeferredUpdate>,
    /// Numbers the deferred updates.
    count: AtomicU64,
    /// Notified when a round can start now.
    more: Notify,
}

/// The deferred update of one app.
#[derive(Clone)]
pub(crate) struct DeferredUpdate {
    pub(crate) memory: Arc<Memory>,
    /// Distinguishes this update from later ones of the same app.
    number: u64,
}

impl DeferredUpdates {
    /// Adds an app. Call [`DeferredUpdates::ring`] when the memory of the app contains the update.
    pub(crate) fn defer(&self, appid: &AppId, memory: &Arc<Memory>) {
        let owed = DeferredUpdate {
            memory: Arc::clone(memory),
            number: self.count.fetch_add(1, Ordering::Relaxed),
        };
        self.apps.insert(appid.clone(), owed);
    }

    /// Starts a round, if there are deferred updates.
    pub(crate) fn ring(&self) {
        if !self.apps.is_empty() {
            self.more.notify_one();
        }
    }

    /// Waits until a round can start.
    pub(crate) async fn round(&self, clock: &Clock) {
        if self.apps.is_empty() {
            self.more.notified().await;
        } else {
            select! {
                () = self.more.notified() => {}
                () = clock.sleep(RETRY) => {}
            }
        }
    }

    /// The updates that one round writes.
    pub(crate) fn owed(&self) -> Vec<(AppId, DeferredUpdate)> {
        self.apps
            .iter()
            .map(|entry| (entry.key().clone(), entry.value().clone()))
            .collect()
    }

    /// Removes a written update, unless a later update of the app is there.
    pub(crate) fn settled(&self, appid: &AppId, update: &DeferredUpdate) {
        self.apps
            .remove_if(appid, |_, there| there.number == update.number);
    }
}
