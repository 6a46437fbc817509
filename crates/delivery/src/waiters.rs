//! Waiters: requests that wait for the end of a message, on whichever replica the message ends.

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

use crate::{parts::Parts, topic};

/// How often a waiter reads the message without a wake-up: a wake-up can get lost with Redis.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// All waiting requests of this process. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Waiters {
    store: Store,
    waiting: Arc<DashMap<Uuid, Arc<Notify>>>,
    /// Cancelled when the gateway begins to stop: each [`Waiter::Patient`] stops waiting.
    dismissed: CancellationToken,
    /// Cancelled when the gateway takes no more requests: each [`Waiter::Attending`] stops waiting too.
    last_call: CancellationToken,
    /// How long an attending request may still wait, after `last_call`, for a message in flight.
    last_wait: Arc<OnceLock<Duration>>,
}

/// The kinds of waiting requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiter {
    /// The client can ask again for the message: a stop of the gateway ends the wait.
    Patient,
    /// The client wants the message sent only during the wait, and cannot ask again: the end of a stop's grace ends the
    /// wait.
    Attending,
    /// Waits for the record of a message in flight, also during a stop.
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

    /// The gateway takes no more requests: each [`Waiter::Attending`] gets its answer now.
    pub(crate) fn dismiss_attending(&self, at_most: Duration) {
        self.last_wait.get_or_init(|| at_most);
        self.last_call.cancel();
    }

    /// How long a message in flight is still waited for. `None`: the gateway takes requests.
    pub(crate) fn last_wait(&self) -> Option<Duration> {
        self.last_wait.get().copied()
    }

    /// The tenant's message as soon as it has ended, `at_most` is over, or a stop ends the wait. `None`: there is no
    /// such message.
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
        let ended = WaitHandle::take(self, id.uuid());
        loop {
            // Registered before the read, so that an end between the read and the wait is not missed.
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

    /// Wakes local waiters for the ends that any replica announces, until stopped.
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

/// The payload that announces the ends of `ids`.
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

/// Counts the ends that a statement has written, and wakes the waiting requests.
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

/// The registration of a waiter, removed on drop.
struct WaitHandle<'a> {
    waiters: &'a Waiters,
    id: Uuid,
    notify: Arc<Notify>,
}

impl<'a> WaitHandle<'a> {
    fn take(waiters: &'a Waiters, id: Uuid) -> Self {
        let notify = waiters.waiting.entry(id).or_default().clone();
        Self {
            waiters,
            id,
            notify,
        }
    }
}

impl Drop for WaitHandle<'_> {
    fn drop(&mut self) {
        // This ticket and the map hold two of the references, so no other request waits for the message.
        self.waiters
            .waiting
            .remove_if(&self.id, |_, notify| Arc::strong_count(notify) <= 2);
    }
}
