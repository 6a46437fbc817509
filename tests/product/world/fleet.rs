//! Replicas that come and go while callers go on.

use std::sync::{Arc, Mutex, PoisonError};

use super::{World, replica::Replica};

/// Where the replicas of a world listen, as of now. Cloning is cheap, and clones show the same.
#[derive(Clone, Default)]
pub(super) struct Roster(Arc<Mutex<Vec<String>>>);

impl Roster {
    /// Writes down who is there.
    pub(super) fn enter(&self, replicas: &[Replica]) {
        let urls = replicas.iter().map(|replica| replica.url().to_owned());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = urls.collect();
    }

    /// One of those who are there, a different one for each `turn`.
    pub(super) fn pick(&self, turn: usize) -> Option<String> {
        let urls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        urls.get(turn % urls.len().max(1)).cloned()
    }
}

impl World {
    /// `kill -9` of the gateway that has run longest. Callers learn it the hard way: it stays in the roster until the
    /// next one is added.
    pub(crate) fn kill_oldest(&mut self) {
        self.replicas.remove(0).kill();
    }

    /// Asks the gateway that has run longest, a process, to stop; its exit code.
    pub(crate) async fn terminate_oldest(&mut self) -> Option<i32> {
        self.replicas.remove(0).wait_terminated().await
    }

    /// Stops all gateways in good order.
    pub(crate) async fn stop_all(&mut self) {
        while !self.replicas.is_empty() {
            self.stop_replica().await;
        }
    }
}
