//! Waiters: requests that wait for the end of a message, whichever replica ends it.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use coord::{Coord, Wake};
use dashmap::DashMap;
use domain::{
    id::{MessageId, TenantId},
    lifecycle::Status,
};
use store::{Message, Settled, Store, StoreError};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{engine::Parts, topic};

/// How often a waiter looks for itself: a wake-up can get lost with Redis.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Everybody who waits in this process. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Waiters {
    store: Store,
    waiting: Arc<DashMap<Uuid, Arc<Notify>>>,
    /// Cancelled when the gateway begins to stop: who can ask again later waits no more.
    dismissed: CancellationToken,
    /// Cancelled when it takes no requests any more: then those wait no more either who cannot.
    last_call: CancellationToken,
    /// How long they may still wait for a send that is under way then.
    last_wait: Arc<OnceLock<Duration>>,
}

/// Who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiter {
    /// Can ask again for what becomes of the message: a stop of the gateway ends the wait.
    Patient,
    /// Wants it sent only while it waits, and cannot ask again: the end of a stop's grace ends the wait.
    Attending,
    /// Waits for the record of a send that is under way, whatever stops.
    Last,
}

impl Waiters {
    pub(crate) fn new(store: Store) -> Self {
        Self {
            store,
            waiting: Arc::default(),
            dismissed: CancellationToken::new(),
            last_call: CancellationToken::new(),
            last_wait: Arc::default(),
        }
    }

    /// The gateway begins to stop: each [`Waiter::Patient`] gets its answer now.
    pub(crate) fn dismiss(&self) {
        self.dismissed.cancel();
    }

    /// The gateway takes no requests any more: each [`Waiter::Attending`] gets its answer now.
    pub(crate) fn call_last(&self, at_most: Duration) {
        self.last_wait.get_or_init(|| at_most);
        self.last_call.cancel();
    }

    /// How long a send that is under way is still waited for; none: the gateway takes requests.
    pub(crate) fn last_wait(&self) -> Option<Duration> {
        self.last_wait.get().copied()
    }

    /// The tenant's message as it is when it has ended, `at_most` is over or a stop ends the wait; none: there is no such
    /// message.
    pub(crate) async fn wait(
        &self,
        tenant: TenantId,
        id: MessageId,
        at_most: Duration,
        waiter: Waiter,
    ) -> Result<Option<Message>, StoreError> {
        let leave = match waiter {
            Waiter::Patient => self.dismissed.clone(),
            Waiter::Attending => self.last_call.clone(),
            Waiter::Last => CancellationToken::new(),
        };
        let door = self.store.tenant(tenant);
        let deadline = Instant::now() + at_most;
        let ended = Ticket::take(self, id.uuid());
        loop {
            // Registered before looking, so that an end between the look and the wait is not missed.
            let notified = ended.notify.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            let over = Instant::now() >= deadline || leave.is_cancelled();
            match door.message(id).await {
                // The database may be back before the wait is over.
                Err(error) if error.is_outage() && !over => {}
                Ok(Some(message)) if !over && !message.status.is_end() => {}
                found => return found,
            }
            let look_again = deadline.min(Instant::now() + LOOK_AGAIN);
            let look = tokio::time::timeout_at(look_again, notified);
            let _ = leave.run_until_cancelled(look).await;
        }
    }

    /// Passes on the ends that any replica tells, until it is stopped.
    pub(crate) async fn listen(self, coord: Coord, stop: CancellationToken) {
        let mut ends = coord.wakeups().subscribe(topic::ENDED);
        while let Some(wake) = stop.run_until_cancelled(ends.next()).await {
            match wake {
                Wake::Said(ids) => ids
                    .split(',')
                    .filter_map(|id| id.parse().ok())
                    .for_each(|id| self.ended(id)),
                Wake::Missed => self
                    .waiting
                    .iter()
                    .for_each(|waiter| waiter.notify_waiters()),
            }
        }
    }

    fn ended(&self, id: Uuid) {
        if let Some(waiter) = self.waiting.get(&id) {
            waiter.notify_waiters();
        }
    }
}

/// The payload that tells the ends of `ids`.
pub(crate) fn ended_payload(ids: impl Iterator<Item = MessageId>) -> String {
    let mut payload = String::new();
    for id in ids {
        if !payload.is_empty() {
            payload.push(',');
        }
        payload.push_str(&id.uuid().simple().to_string());
    }
    payload
}

/// Counts ends that a statement has written, and wakes whoever waits for them.
pub(crate) fn announce_ends(parts: &Parts, ended: &[Settled]) {
    for status in Status::ALL {
        let count = ended.iter().filter(|one| one.status == status).count();
        parts.metrics.ended(status, count);
    }
    if !ended.is_empty() {
        let payload = ended_payload(ended.iter().map(|one| one.id));
        parts.coord.wakeups().wake(topic::ENDED, &payload);
    }
}

/// A place among the waiters, given up when it is dropped.
struct Ticket<'a> {
    waiters: &'a Waiters,
    id: Uuid,
    notify: Arc<Notify>,
}

impl<'a> Ticket<'a> {
    fn take(waiters: &'a Waiters, id: Uuid) -> Self {
        let notify = waiters.waiting.entry(id).or_default().clone();
        Self {
            waiters,
            id,
            notify,
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        // Two of the references are this ticket's and the map's: nobody else waits for the message.
        self.waiters
            .waiting
            .remove_if(&self.id, |_, notify| Arc::strong_count(notify) <= 2);
    }
}
