//! The forms over Redis of everything that replicas share.
//!
//! Keys: `wxgate:cell:…` and `wxgate:lease:…` (hashes), `wxgate:limit:…` (a number), `wxgate:name` (shows that Redis
//! was emptied); channel: `wxgate:wakes`. All keys expire.

mod cells;
mod leases;
mod limits;
mod link;
mod standing;
mod wakeups;

use tokio_util::{
    future::FutureExt,
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use self::{
    cells::RemoteCells,
    leases::RemoteLeases,
    limits::RemoteLimits,
    link::Link,
    wakeups::{Outbox, RemoteWakeups},
};
use crate::{Clock, CoordError, wakeups::Hub};

/// The common part of all forms over Redis: the connection, the tasks that carry wake-ups, and the task that probes a
/// Redis that does not answer.
pub(crate) struct Remote {
    clock: Clock,
    link: Link,
    outbox: Outbox,
    /// Ends the tasks.
    _stop: DropGuard,
}

/// Whether [`Remote::open`] accepts this URL.
pub(crate) fn check_url(url: &str) -> Result<(), CoordError> {
    link::connection(url).map(|_| ())
}

impl Remote {
    /// Starts the tasks; makes no connection yet.
    pub(crate) fn open(
        url: &str,
        ca: Option<&[u8]>,
        clock: Clock,
        hub: Hub,
    ) -> Result<Self, CoordError> {
        let link = Link::open(url, ca)?;
        let stop = CancellationToken::new();
        let outbox = wakeups::start(&link, hub, &stop);
        let probe = link.clone().probe();
        TaskTracker::new().spawn(probe.with_cancellation_token_owned(stop.clone()));
        Ok(Self {
            clock,
            link,
            outbox,
            _stop: stop.drop_guard(),
        })
    }

    pub(crate) fn cells(&self) -> RemoteCells {
        RemoteCells::new(self.link.clone(), self.clock.clone())
    }

    pub(crate) fn leases(&self) -> RemoteLeases {
        RemoteLeases::new(self.link.clone(), self.clock.clone())
    }

    pub(crate) fn limits(&self) -> RemoteLimits {
        RemoteLimits::new(self.link.clone(), self.clock.clone())
    }

    pub(crate) fn wakeups(&self, hub: Hub) -> RemoteWakeups {
        RemoteWakeups::new(hub, self.outbox.clone())
    }

    /// Whether Redis answers and takes writes, as the last calls have shown.
    pub(crate) fn is_up(&self) -> bool {
        self.link.is_up()
    }

    /// Checks that Redis can do all that replicas need.
    pub(crate) async fn examine(&self) -> Result<(), CoordError> {
        self.link.examine().await
    }

    /// Sends a PING.
    pub(crate) async fn ping(&self) -> Result<(), CoordError> {
        self.link.ping().await
    }
}
