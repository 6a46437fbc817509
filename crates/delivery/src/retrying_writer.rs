//! The keeper: a batch writer for items that must not be lost, whatever the database answers.
//!
//! An answer of WeChat comes only once, so the answer stays in memory until it is written. There is no limit on
//! retries. The memory is bounded by the senders: each item holds a slot until the item is written.
//!
//! In an outage ([`StoreError::is_outage`]) the write is repeated every half second, together with all items that have
//! arrived meanwhile. If the database refuses one item for its content, the keeper finds that item by halving the
//! batch, so that the others are written. The keeper removes the texts of the refused item. If that does not help, the
//! item is set aside and retried with a backoff.

use std::time::Duration;

use chrono::{DateTime, Utc};
use coord::Clock;
use prometheus_client::metrics::gauge::Gauge;
use store::StoreError;
use tokio::sync::{mpsc, watch};

/// How many items are written at once.
pub(crate) const BATCH: usize = 512;
/// The wait after a failure of the database. Real time under every clock, because the database has a clock of its own.
const AFTER_FAILURE: Duration = Duration::from_millis(500);
/// The first and the longest wait before the retry of an item that is refused on its own.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(15);

/// Writes items of one kind.
pub(crate) trait Writer: Send + Sync + 'static {
    /// The type of the items.
    type Item: Send + Sync;
    /// The name of the items in the log.
    const ITEMS: &'static str;

    /// Writes the items. After a failure, `items` holds the items that are not written.
    fn write(
        &self,
        items: &mut Vec<Self::Item>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Removes the texts of an item that a reader can do without. Returns whether there were any.
    fn strip(&self, item: &mut Self::Item) -> bool;

    /// The name of the item in the log.
    fn name(&self, item: &Self::Item) -> String;

    /// Extends the right to a refused item, so that no other task decides about the item.
    fn hold(&self, item: &Self::Item) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// The state of a keeper, for the tasks that depend on the keeper. Clones share the state.
#[derive(Clone, Debug)]
pub(crate) struct Backlog {
    /// The last error of the database. `None`: the database takes the items.
    refusal: watch::Sender<Option<String>>,
    waiting: Gauge,
}

impl Backlog {
    /// A backlog that counts the items in the gauge `waiting`.
    pub(crate) fn new(waiting: Gauge) -> Self {
        Self {
            refusal: watch::Sender::new(None),
            waiting,
        }
    }

    /// Why the database takes nothing at the moment. `None`: the database takes the items.
    pub(crate) fn refusal(&self) -> Option<String> {
        self.refusal.borrow().clone()
    }

    /// Returns once the database takes the items.
    pub(crate) async fn cleared(&self) {
        // Fails when the sender is gone, which is `self`.
        let _ = self.refusal.subscribe().wait_for(Option::is_none).await;
    }
}

/// Keeps items until they are written.
pub(crate) struct RetryingWriter<W: Writer> {
    writer: W,
    items: mpsc::Receiver<W::Item>,
    clock: Clock,
    backlog: Backlog,
    /// The items that are not written yet.
    waiting: Vec<W::Item>,
    refused: Vec<RefusedItem<W::Item>>,
}

/// An item that the database refuses, also without other items in the batch.
struct RefusedItem<I> {
    item: I,
    tries: u32,
    retry_at: DateTime<Utc>,
}

impl<W: Writer> RetryingWriter<W> {
    pub(crate) fn new(
        writer: W,
        items: mpsc::Receiver<W::Item>,
        clock: Clock,
        backlog: Backlog,
    ) -> Self {
        Self {
            writer,
            items,
            clock,
            backlog,
            waiting: Vec::with_capacity(BATCH),
            refused: Vec::new(),
        }
    }

    /// Runs until all senders are gone and everything is written.
    pub(crate) async fn run(mut self) {
        while self.gather().await {
            self.write_waiting().await;
            self.retry_refused().await;
            self.count();
        }
    }

    /// Waits until there is something to write. False: no more items can come.
    async fn gather(&mut self) -> bool {
        if !self.waiting.is_empty() {
            tokio::time::sleep(AFTER_FAILURE).await;
            while let Ok(item) = self.items.try_recv() {
                self.waiting.push(item);
            }
            return true;
        }
        let Some(retry_at) = self.refused.iter().map(|one| one.retry_at).min() else {
            return self.items.recv_many(&mut self.waiting, BATCH).await > 0;
        };
        let is_over = self.items.is_closed() && self.items.is_empty();
        tokio::select! {
            _ = self.items.recv_many(&mut self.waiting, BATCH), if !is_over => {}
            () = self.clock.sleep_until(retry_at) => {}
        }
        true
    }

    /// Writes the waiting items, as far as the database takes them.
    async fn write_waiting(&mut self) {
        let mut parts = vec![std::mem::take(&mut self.waiting)];
        while let Some(mut part) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            match self.writer.write(&mut part).await {
                Ok(()) => {
                    self.accept();
                    // Reuses the vector, so that the usual case allocates nothing.
                    part.clear();
                    if self.waiting.capacity() == 0 {
                        self.waiting = part;
                    }
                }
                Err(error) if error.is_outage() => {
                    self.waiting.extend(part);
                    self.waiting.extend(parts.drain(..).flatten());
                    self.refuse(&error);
                }
                Err(error) => self.divide(part, &error, &mut parts).await,
            }
        }
    }

    /// Halves a refused part of a batch, until the item that the database refuses is alone.
    async fn divide(
        &mut self,
        mut part: Vec<W::Item>,
        error: &StoreError,
        parts: &mut Vec<Vec<W::Item>>,
    ) {
        if part.len() > 1 {
            let rest = part.split_off(part.len() / 2);
            parts.extend([rest, part]);
            return;
        }
        let Some(mut item) = part.pop() else { return };
        if self.writer.strip(&mut item) {
            let name = self.writer.name(&item);
            tracing::error!(name, %error, items = W::ITEMS, "the database refuses the text of an item: recording the \
                item without the text");
            parts.push(vec![item]);
            return;
        }
        self.set_aside(item, 0, error).await;
    }

    async fn set_aside(&mut self, item: W::Item, tries: u32, error: &StoreError) {
        let name = self.writer.name(&item);
        tracing::error!(name, %error, tries, items = W::ITEMS, "the database refuses one item: keeping the item in \
            memory and trying again");
        if let Err(error) = self.writer.hold(&item).await {
            tracing::warn!(name, %error, items = W::ITEMS, "cannot extend the lease of a refused item");
        }
        let pause = FIRST_RETRY * 2u32.pow(tries.min(8));
        self.refused.push(RefusedItem {
            item,
            tries,
            retry_at: self.clock.now() + pause.min(LONGEST_RETRY),
        });
    }

    /// Retries, one by one, the items that were set aside and are due.
    async fn retry_refused(&mut self) {
        let now = self.clock.now();
        let is_due = |one: &mut RefusedItem<W::Item>| one.retry_at <= now;
        let due: Vec<_> = self.refused.extract_if(.., is_due).collect();
        for one in due {
            let tries = one.tries + 1;
            let mut alone = vec![one.item];
            match self.writer.write(&mut alone).await {
                Ok(()) => self.accept(),
                Err(error) if error.is_outage() => {
                    self.waiting.append(&mut alone);
                    self.refuse(&error);
                }
                Err(error) => {
                    for item in alone {
                        self.set_aside(item, tries, &error).await;
                    }
                }
            }
        }
    }

    fn accept(&self) {
        let was_refused = self
            .backlog
            .refusal
            .send_if_modified(|why| why.take().is_some());
        if was_refused {
            tracing::info!(items = W::ITEMS, "the database accepts items again");
        }
    }

    fn refuse(&self, error: &StoreError) {
        let before = self.backlog.refusal.send_replace(Some(error.to_string()));
        if before.is_none() {
            tracing::error!(%error, waiting = self.waiting.len(), items = W::ITEMS, "the database does not accept items: keeping the items in memory and trying again");
        }
    }

    fn count(&self) {
        let waiting = self.waiting.len() + self.refused.len();
        self.backlog
            .waiting
            .set(i64::try_from(waiting).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        sync::{
            Arc, Mutex,
            atomic::{AtomicUsize, Ordering},
        },
    };

    use super::*;

    /// Takes numbers. Refuses odd multiples of 50 as they are, and 100 until `is_open` is set.
    #[derive(Clone, Default)]
    struct Numbers {
        written: Arc<Mutex<BTreeSet<i32>>>,
        outages: Arc<AtomicUsize>,
        held: Arc<AtomicUsize>,
        is_open: Arc<AtomicUsize>,
    }

    impl Writer for Numbers {
        type Item = i32;
        const ITEMS: &'static str = "numbers";

        async fn write(&self, items: &mut Vec<i32>) -> Result<(), StoreError> {
            let fails = |left: usize| left.checked_sub(1);
            let order = Ordering::SeqCst;
            if self.outages.fetch_update(order, order, fails).is_ok() {
                return Err(StoreError::Unavailable("read-only".into()));
            }
            let is_closed = self.is_open.load(order) == 0;
            if items
                .iter()
                .any(|one| one % 100 == 50 || (*one == 100 && is_closed))
            {
                return Err(StoreError::Broken("a constraint".into()));
            }
            self.written.lock().unwrap().extend(items.drain(..));
            Ok(())
        }

        /// 50 becomes -50, which is accepted.
        fn strip(&self, item: &mut i32) -> bool {
            let is_text = *item % 100 == 50;
            if is_text {
                *item = -*item;
            }
            is_text
        }

        fn name(&self, item: &i32) -> String {
            item.to_string()
        }

        async fn hold(&self, _: &i32) -> Result<(), StoreError> {
            self.held.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
    }

    #[tokio::test]
    async fn nothing_is_lost_and_nothing_waits_for_what_is_refused() {
        let numbers = Numbers::default();
        numbers.outages.store(1, Ordering::SeqCst);
        let (clock, time) = Clock::manual(DateTime::UNIX_EPOCH);
        let backlog = Backlog::new(Gauge::default());
        let (sender, items) = mpsc::channel(1000);
        for number in 1..=300 {
            sender.try_send(number).unwrap();
        }
        let keeper = RetryingWriter::new(numbers.clone(), items, clock, backlog.clone());
        let running = keeper.run();
        tokio::pin!(running);
        let refused = async {
            while numbers.held.load(Ordering::SeqCst) == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = &mut running => panic!("100 is not written"),
            () = refused => {}
        }
        let expected = (1..=300).map(|one| if one % 100 == 50 { -one } else { one });
        let mut expected: BTreeSet<i32> = expected.collect();
        expected.remove(&100);
        assert_eq!(*numbers.written.lock().unwrap(), expected);
        assert_eq!(
            backlog.refusal(),
            None,
            "the database takes what it is given"
        );

        numbers.is_open.store(1, Ordering::SeqCst);
        drop(sender);
        tokio::select! {
            () = &mut running => panic!("its time has not come"),
            () = time.sleepers(1) => {}
        }
        time.advance(FIRST_RETRY);
        running.await;
        assert!(numbers.written.lock().unwrap().contains(&100));
    }

    #[tokio::test]
    async fn an_outage_is_told_and_waited_for() {
        let numbers = Numbers::default();
        numbers.outages.store(3, Ordering::SeqCst);
        let (clock, _time) = Clock::manual(DateTime::UNIX_EPOCH);
        let gauge = Gauge::default();
        let backlog = Backlog::new(gauge.clone());
        let (sender, items) = mpsc::channel(10);
        sender.try_send(1).unwrap();
        drop(sender);
        let keeper = RetryingWriter::new(numbers.clone(), items, clock, backlog.clone());
        let running = keeper.run();
        tokio::pin!(running);
        let told = async {
            while backlog.refusal().is_none() || gauge.get() == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = &mut running => panic!("the database refuses"),
            () = told => {}
        }
        running.await;
        backlog.cleared().await;
        assert_eq!(gauge.get(), 0);
        assert_eq!(*numbers.written.lock().unwrap(), BTreeSet::from([1]));
    }
}
