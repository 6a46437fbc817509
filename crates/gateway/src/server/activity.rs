//! What goes on on a connection, so that one on which nothing does can end.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

/// The requests of a connection that are worked on, and its answers that are not taken whole yet.
#[derive(Debug)]
pub(super) struct Activity {
    /// How many requests are worked on. Whatever happens is a new version of it.
    working: watch::Sender<usize>,
    answers: Mutex<Answers>,
}

#[derive(Debug, Default)]
struct Answers {
    next: u64,
    /// When a part of it was last taken.
    taken_at: HashMap<u64, Instant>,
}

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            working: watch::Sender::new(0),
            answers: Mutex::default(),
        })
    }

    /// A request is worked on until this is dropped.
    pub(super) fn work(self: &Arc<Self>) -> Work {
        self.working.send_modify(|working| *working += 1);
        Work(self.clone())
    }

    /// An answer is on its way until this is dropped.
    pub(super) fn answer(self: &Arc<Self>) -> Answer {
        let mut answers = self.lock();
        let id = answers.next;
        answers.next += 1;
        answers.taken_at.insert(id, Instant::now());
        drop(answers);
        Answer(self.clone(), id)
    }

    /// Returns when no request has been worked on and no answer taken for so long.
    pub(super) async fn quiet(&self, patience: Duration) {
        let mut working = self.working.subscribe();
        loop {
            // Neither fails while the sender is here.
            let _ = working.wait_for(|working| *working == 0).await;
            if timeout(patience, working.changed()).await.is_err() {
                return;
            }
        }
    }

    /// Returns when an answer has waited for so long, and up to half as long again, without a part of it being taken.
    pub(super) async fn stuck(&self, patience: Duration) {
        loop {
            sleep(patience / 2).await;
            let oldest = self.lock().taken_at.values().min().copied();
            if oldest.is_some_and(|oldest| oldest.elapsed() >= patience) {
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is worked on.
#[derive(Debug)]
pub(super) struct Work(Arc<Activity>);

impl Drop for Work {
    fn drop(&mut self) {
        self.0.working.send_modify(|working| *working -= 1);
    }
}

/// An answer on its way.
#[derive(Debug)]
pub(super) struct Answer(Arc<Activity>, u64);

impl Answer {
    /// The client has taken what was there, and the next part is asked for.
    pub(super) fn taken(&self) {
        self.0.lock().taken_at.insert(self.1, Instant::now());
        self.0.working.send_modify(|_| ());
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.0.lock().taken_at.remove(&self.1);
    }
}
