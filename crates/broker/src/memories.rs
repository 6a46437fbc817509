//! The memories of all apps on this replica.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use coord::Clock;
use dashmap::DashMap;
use domain::app::AppId;

use crate::{memory::Memory, token::Token};

/// The interval at which the broker looks for idle apps.
const SWEEP: Duration = Duration::from_mins(10);

/// The memory of each app that this replica has used in the last hours.
pub(crate) struct Memories {
    clock: Clock,
    apps: DashMap<AppId, Arc<Memory>>,
    /// When `apps` was last swept, in seconds since 1970.
    swept_at: AtomicI64,
}

impl Memories {
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            clock,
            apps: DashMap::new(),
            swept_at: AtomicI64::new(0),
        }
    }

    /// The app's token, if alive and not yet due for a refresh. The hot path.
    pub(crate) fn fresh(&self, appid: &AppId) -> Option<Token> {
        let now = self.clock.now();
        self.apps.get(appid).and_then(|memory| memory.fresh(now))
    }

    /// Returns the app's memory and marks the app as used now.
    pub(crate) fn use_app(&self, appid: &AppId) -> Arc<Memory> {
        let now = self.clock.now();
        self.sweep(now);
        let memory = self
            .apps
            .entry(appid.clone())
            .or_insert_with(|| Arc::new(Memory::new(now)));
        // Touched while the map entry is locked, so that no sweep takes the app for idle.
        memory.touch(now);
        Arc::clone(&memory)
    }

    /// The memory of an app, if the app is in memory. Does not count as a use.
    pub(crate) fn get(&self, appid: &AppId) -> Option<Arc<Memory>> {
        self.apps.get(appid).map(|memory| Arc::clone(&memory))
    }

    /// The memories of all apps.
    pub(crate) fn all(&self) -> impl Iterator<Item = (AppId, Arc<Memory>)> {
        self.apps
            .iter()
            .map(|entry| (entry.key().clone(), Arc::clone(entry.value())))
    }

    /// The present time by the clock of the broker.
    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    /// Replaces the memory of an app.
    pub(crate) fn put(&self, appid: &AppId, memory: Arc<Memory>) {
        self.apps.insert(appid.clone(), memory);
    }

    /// Removes the memory of an app.
    pub(crate) fn remove(&self, appid: &AppId) -> Option<Arc<Memory>> {
        self.apps.remove(appid).map(|(_, memory)| memory)
    }

    /// Removes this memory, unless another one is there now.
    pub(crate) fn remove_if_present(&self, appid: &AppId, memory: &Memory) {
        self.apps
            .remove_if(appid, |_, there| std::ptr::eq(&raw const **there, memory));
    }

    /// Whether `memory` is still the memory of the app. A change or removal of the app replaces the memory.
    pub(crate) fn contains(&self, appid: &AppId, memory: &Memory) -> bool {
        self.apps
            .get(appid)
            .is_some_and(|there| std::ptr::eq(&raw const **there, memory))
    }

    /// Forgets apps that nothing has used for hours. The shared cells keep what is worth keeping.
    fn sweep(&self, now: DateTime<Utc>) {
        let (now_s, last) = (now.timestamp(), self.swept_at.load(Ordering::Relaxed));
        let is_due = Duration::from_secs((now_s - last).unsigned_abs()) >= SWEEP;
        let is_ours = is_due
            && self
                .swept_at
                .compare_exchange(last, now_s, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if is_ours {
            self.apps.retain(|_, memory| !memory.is_idle(now));
        }
    }
}
