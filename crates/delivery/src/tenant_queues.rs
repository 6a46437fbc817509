//! Tenant queues: requests wait for a shared transaction in one queue for each tenant, served in rotation.
//!
//! With a common queue, one tenant could fill the transaction and all waiting capacity. Here each tenant has capacity
//! of its own, and a transaction takes a bounded share from the front of each queue in turn. So the few items of a
//! small tenant go with the next transaction, however many items other tenants have queued.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use domain::id::TenantId;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// How much may wait. The caller defines the weight of an item.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WaitingLimits {
    /// The limit of one tenant.
    pub(crate) each: usize,
    /// The limit of all tenants together. A tenant within `always` may exceed this limit.
    pub(crate) all: usize,
    /// What each tenant may always have waiting.
    pub(crate) always: usize,
}

/// How much one transaction takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchLimits {
    /// The limit of the transaction. A single item that weighs more is taken alone.
    pub(crate) most: usize,
    /// The limit of one turn of one tenant, if more tenants wait.
    pub(crate) share: usize,
}

/// There was no capacity in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoCapacity;

/// The entry of the queues.
pub(crate) struct TenantQueues<T>(Arc<Inner<T>>);

/// The exit of the queues, for one task. On drop, the queues close and drop the waiting items.
pub(crate) struct TenantQueueReader<T>(Arc<Inner<T>>);

struct Inner<T> {
    room: WaitingLimits,
    state: Mutex<QueueState<T>>,
    arrived: Notify,
    /// The weight of all items that wait or are in a transaction.
    total: Arc<AtomicUsize>,
}

struct QueueState<T> {
    closed: bool,
    lines: HashMap<TenantId, QueuedItems<T>>,
    /// The tenants with waiting items, the next tenant first.
    turns: VecDeque<TenantId>,
}

struct QueuedItems<T> {
    room: Arc<Semaphore>,
    waiting: VecDeque<QueuedItem<T>>,
}

/// One item. On drop, the item's capacity is free again.
pub(crate) struct QueuedItem<T> {
    pub(crate) item: T,
    pub(crate) place: QueuePlace,
}

/// Capacity in use.
pub(crate) struct QueuePlace {
    weight: usize,
    total: Arc<AtomicUsize>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for QueuePlace {
    fn drop(&mut self) {
        self.total.fetch_sub(self.weight, Ordering::Relaxed);
    }
}

impl<T> Drop for TenantQueueReader<T> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.closed = true;
        state.lines.clear();
    }
}

/// Queues that are empty and open.
pub(crate) fn lines<T>(room: WaitingLimits) -> (TenantQueues<T>, TenantQueueReader<T>) {
    let inner = Arc::new(Inner {
        room,
        state: Mutex::new(QueueState {
            closed: false,
            lines: HashMap::new(),
            turns: VecDeque::new(),
        }),
        arrived: Notify::new(),
        total: Arc::default(),
    });
    (TenantQueues(inner.clone()), TenantQueueReader(inner))
}

impl<T> TenantQueues<T> {
    /// Waits at most `patience` for capacity in the tenant's queue, then appends the item.
    pub(crate) async fn enter(
        &self,
        tenant: TenantId,
        weight: usize,
        patience: Duration,
        item: T,
    ) -> Result<(), NoCapacity> {
        let inner = &*self.0;
        let weight = weight.clamp(1, inner.room.each);
        let permits = u32::try_from(weight).map_err(|_| NoCapacity)?;
        let room = inner.room_of(tenant)?;
        let permit = room.clone().acquire_many_owned(permits);
        let permit = tokio::time::timeout(patience, permit).await;
        let permit = permit.map_err(|_| NoCapacity)?.map_err(|_| NoCapacity)?;
        let place = QueuePlace {
            weight,
            total: inner.total.clone(),
            _permit: permit,
        };
        let before = inner.total.fetch_add(weight, Ordering::Relaxed);
        let own = inner.room.each - room.available_permits();
        if before + weight > inner.room.all && own > inner.room.always {
            return Err(NoCapacity);
        }
        let mut state = inner.state();
        if state.closed {
            return Err(NoCapacity);
        }
        let line = state
            .lines
            .entry(tenant)
            .or_insert_with(|| QueuedItems::of(room));
        line.waiting.push_back(QueuedItem { item, place });
        if line.waiting.len() == 1 {
            state.turns.push_back(tenant);
        }
        drop(state);
        inner.arrived.notify_one();
        Ok(())
    }
}

impl<T> TenantQueueReader<T> {
    /// Accepts no more items. The waiting items are still served.
    pub(crate) fn close(&self) {
        self.0.state().closed = true;
        self.0.arrived.notify_one();
    }

    /// The items of the next transaction, as soon as an item waits. `None`: the queues are closed and empty.
    pub(crate) async fn next(&self, take: BatchLimits) -> Option<Vec<QueuedItem<T>>> {
        loop {
            let (taken, closed) = {
                let mut state = self.0.state();
                (state.take(take), state.closed)
            };
            if !taken.is_empty() {
                return Some(taken);
            }
            if closed {
                return None;
            }
            self.0.arrived.notified().await;
        }
    }
}

impl<T> Inner<T> {
    fn room_of(&self, tenant: TenantId) -> Result<Arc<Semaphore>, NoCapacity> {
        let mut state = self.state();
        if state.closed {
            return Err(NoCapacity);
        }
        let new = || QueuedItems::of(Arc::new(Semaphore::new(self.room.each)));
        Ok(state.lines.entry(tenant).or_insert_with(new).room.clone())
    }

    fn state(&self) -> MutexGuard<'_, QueueState<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> QueuedItems<T> {
    fn of(room: Arc<Semaphore>) -> Self {
        Self {
            room,
            waiting: VecDeque::new(),
        }
    }
}

impl<T> QueueState<T> {
    fn take(&mut self, take: BatchLimits) -> Vec<QueuedItem<T>> {
        let (mut taken, mut weight) = (Vec::new(), 0);
        while let Some(tenant) = self.turns.pop_front() {
            let Some(line) = self.lines.get_mut(&tenant) else {
                continue;
            };
            let share = if self.turns.is_empty() {
                take.most
            } else {
                take.share
            };
            let mut turn = 0;
            while let Some(first) = line.waiting.front()
                && turn < share
                && (weight == 0 || weight + first.place.weight <= take.most)
            {
                turn += first.place.weight;
                weight += first.place.weight;
                taken.extend(line.waiting.pop_front());
            }
            if !line.waiting.is_empty() && turn > 0 {
                self.turns.push_back(tenant);
            } else if !line.waiting.is_empty() {
                // The item did not fit any more, so this tenant is the first of the next transaction.
                self.turns.push_front(tenant);
                break;
            }
            if weight >= take.most {
                break;
            }
        }
        // Removes the queues of tenants that have no item waiting, entering or in a transaction.
        self.lines
            .retain(|_, line| !line.waiting.is_empty() || Arc::strong_count(&line.room) > 1);
        taken
    }
}

#[cfg(test)]
mod tests {
    use domain::id;

    use super::*;

    const ROOM: WaitingLimits = WaitingLimits {
        each: 100,
        all: 150,
        always: 10,
    };
    const TAKE: BatchLimits = BatchLimits { most: 8, share: 3 };
    const AT_ONCE: Duration = Duration::ZERO;

    fn tenant(number: u16) -> TenantId {
        id::new(chrono::DateTime::UNIX_EPOCH, number, 1)
    }

    async fn enter(lines: &TenantQueues<(u16, usize)>, number: u16, weights: &[usize]) {
        for (at, weight) in weights.iter().enumerate() {
            let entered = lines.enter(tenant(number), *weight, AT_ONCE, (number, at));
            entered.await.unwrap();
        }
    }

    async fn next(served: &TenantQueueReader<(u16, usize)>) -> Vec<(u16, usize)> {
        let taken = served.next(TAKE).await.unwrap();
        taken.into_iter().map(|waiting| waiting.item).collect()
    }

    #[tokio::test]
    async fn one_message_goes_with_the_next_transaction_however_many_wait() {
        let (lines, served) = lines(ROOM);
        enter(&lines, 1, &[1; 20]).await;
        enter(&lines, 2, &[1]).await;
        assert_eq!(
            next(&served).await,
            [
                (1, 0),
                (1, 1),
                (1, 2),
                (2, 0),
                (1, 3),
                (1, 4),
                (1, 5),
                (1, 6)
            ]
        );
        enter(&lines, 3, &[1]).await;
        assert!(next(&served).await.contains(&(3, 0)));
    }

    #[tokio::test]
    async fn what_does_not_fit_is_the_first_of_the_next_and_one_that_never_fits_goes_alone() {
        let (lines, served) = lines(ROOM);
        enter(&lines, 1, &[5, 20, 1]).await;
        enter(&lines, 2, &[2, 2]).await;
        assert_eq!(next(&served).await, [(1, 0), (2, 0)]);
        assert_eq!(next(&served).await, [(1, 1)]);
        assert_eq!(next(&served).await, [(2, 1), (1, 2)]);
    }

    #[tokio::test]
    async fn a_full_line_is_full_for_its_tenant_alone() {
        let (lines, served) = lines(ROOM);
        enter(&lines, 1, &[100]).await;
        let entered = lines.enter(tenant(1), 1, AT_ONCE, (1, 1)).await;
        assert_eq!(entered, Err(NoCapacity));
        enter(&lines, 2, &[50]).await;
        let entered = lines.enter(tenant(2), 1, AT_ONCE, (2, 1)).await;
        assert_eq!(entered, Err(NoCapacity), "all tenants together have enough");
        enter(&lines, 3, &[10]).await;
        let taken = served.next(TAKE).await.unwrap();
        let entered = lines.enter(tenant(1), 1, AT_ONCE, (1, 1)).await;
        assert_eq!(entered, Err(NoCapacity), "it is in a transaction");
        drop(taken);
        enter(&lines, 1, &[1]).await;
    }

    #[tokio::test]
    async fn what_waits_for_a_task_that_has_died_is_dropped() {
        let (lines, served) = lines(ROOM);
        let (answer, answered) = tokio::sync::oneshot::channel::<()>();
        let entered = lines.enter(tenant(1), 1, AT_ONCE, answer).await;
        assert_eq!(entered, Ok(()));
        drop(served);
        assert!(answered.await.is_err());
        let (answer, _answered) = tokio::sync::oneshot::channel();
        let entered = lines.enter(tenant(1), 1, AT_ONCE, answer).await;
        assert_eq!(entered, Err(NoCapacity));
    }

    #[tokio::test]
    async fn closed_lines_are_served_to_their_end_and_leave_nothing() {
        let (lines, served) = lines(ROOM);
        enter(&lines, 1, &[1, 1]).await;
        served.close();
        let entered = lines.enter(tenant(1), 1, AT_ONCE, (1, 2)).await;
        assert_eq!(entered, Err(NoCapacity));
        assert_eq!(next(&served).await, [(1, 0), (1, 1)]);
        assert!(served.next(TAKE).await.is_none());
        assert!(served.0.state().lines.is_empty());
        assert_eq!(served.0.total.load(Ordering::Relaxed), 0);
    }
}
