//! Changes of apps, which replicas announce to each other.

use std::sync::Weak;

use coord::{Coord, Wake, WakeupSubscription};
use domain::app::AppId;

use crate::fetcher::Fetcher;

/// The wake-up topic after which other replicas forget what is in memory of an app. Payload: `instance appid`.
const CHANGED: &str = "app credentials changed";

/// Subscribes to the changes that replicas announce.
pub(crate) fn subscribe(coord: &Coord) -> WakeupSubscription {
    coord.wakeups().subscribe(CHANGED)
}

/// Handles the changes of apps that other replicas announce.
pub(crate) async fn listen(fetcher: Weak<Fetcher>, mut changes: WakeupSubscription) {
    loop {
        let wake = changes.next().await;
        let Some(fetcher) = fetcher.upgrade() else {
            return;
        };
        match wake {
            Wake::Said(words) => fetcher.handle_change(&words),
            Wake::Missed => fetcher.restore(),
        }
    }
}

impl Fetcher {
    /// Makes the other replicas forget what is in memory of an app.
    pub(crate) fn announce_change(&self, appid: &AppId) {
        self.coord
            .wakeups()
            .wake(CHANGED, &format!("{:016x} {appid}", self.instance));
    }

    fn handle_change(&self, words: &str) {
        if let Some((from, appid)) = words.split_once(' ')
            && from != format!("{:016x}", self.instance)
            && let Ok(appid) = AppId::parse(appid)
        {
            self.memories.remove(&appid);
        }
    }

    /// Called after Redis was away. Redis may have lost the cells of this replica, and this replica may have missed
    /// that an app was repaired or that a later token exists.
    fn restore(&self) {
        for (appid, memory) in self.memories.all() {
            memory.clear_failures();
            self.deferred.defer(&appid, &memory);
        }
        self.deferred.ring();
    }
}
