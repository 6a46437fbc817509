//! Activity of one connection, so that the server can end a connection without activity.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

/// The requests of one connection in progress, and the answers that the client has not taken completely.
#[derive(Debug)]
pub(super) struct Activity {
    /// The number of requests in progress. Every activity makes a new version of this watch value.
    working: watch::Sender<usize>,
    answers: Mutex<Answers>,
}

#[derive(Debug, Default)]
struct Answers {
    next: u64,
    /// For each answer: the time at which the client last took a part.
    taken_at: HashMap<u64, Instant>,
}

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            working: watch::Sender::new(0),
            answers: Mutex::default(),
        })
    }

    /// Counts a request as in progress until the returned guard is dropped.
    pub(super) fn work(self: &Arc<Self>) -> Work {
        self.working.send_modify(|working| *working += 1);
        Work(self.clone())
    }

    /// Counts an answer as in transfer until the returned guard is dropped.
    pub(super) fn answer(self: &Arc<Self>) -> PendingResponse {
        let mut answers = self.lock();
        let id = answers.next;
        answers.next += 1;
        answers.taken_at.insert(id, Instant::now());
        drop(answers);
        PendingResponse(self.clone(), id)
    }

    /// Returns when for `patience` no request was in progress and no part of an answer was taken.
    pub(super) async fn quiet(&self, patience: Duration) {
        let mut working = self.working.subscribe();
        loop {
            // Neither call fails while the sender exists, and `self` owns the sender.
            let _ = working.wait_for(|working| *working == 0).await;
            if timeout(patience, working.changed()).await.is_err() {
                return;
            }
        }
    }

    /// Returns when an answer has waited for `patience` (at most half as long again) without a part being taken.
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

/// The guard of a request in progress.
#[derive(Debug)]
pub(super) struct Work(Arc<Activity>);

impl Drop for Work {
    fn drop(&mut self) {
        self.0.working.send_modify(|working| *working -= 1);
    }
}

/// The guard of an answer in transfer.
#[derive(Debug)]
pub(super) struct PendingResponse(Arc<Activity>, u64);

impl PendingResponse {
    /// Notes that the client has taken the previous part, because hyper asks for the next part.
    pub(super) fn taken(&self) {
        self.0.lock().taken_at.insert(self.1, Instant::now());
        self.0.working.send_modify(|_| ());
    }
}

impl Drop for PendingResponse {
    fn drop(&mut self) {
        self.0.lock().taken_at.remove(&self.1);
    }
}
