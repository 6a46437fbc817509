//! Wake-ups: "look now", said to whoever waits for a topic.
//!
//! A wake-up may come for nothing, and one from another replica may not come at all: who waits polls slowly as
//! the net. But none is lost between a look and the wait, if one subscribes before looking:
//!
//! ```
//! # use wxgate_coord::{Clock, Coord};
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! # let coord = Coord::in_process(Clock::system());
//! # let look = || false;
//! let mut subscription = coord.wakeups().subscribe("queue");
//! if !look() {
//! #   coord.wakeups().wake("queue", "");
//!     subscription.notified().await; // Returns at once for a wake-up since the line that subscribes.
//! }
//! # });
//! ```

use std::{collections::BTreeSet, sync::Arc};

use dashmap::DashMap;
use tokio::sync::broadcast::{
    self,
    error::{RecvError, TryRecvError},
};

/// How many wake-ups a subscriber may be behind before it is only told that it missed some.
const BACKLOG: usize = 1024;

/// One wake-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wake {
    /// Somebody woke the topic and said this.
    Said(Arc<str>),
    /// Some may have been missed: look.
    Missed,
}

/// "Look now", by topic.
pub trait Wakeups: Send + Sync {
    /// Wakes every subscriber of `topic`: those in this process at once, those of other replicas soon. Never
    /// waits and never fails. `payload` is a short word such as a message id, or empty.
    fn wake(&self, topic: &str, payload: &str);

    /// Every wake-up of `topic` from now on.
    fn subscribe(&self, topic: &str) -> Subscription;
}

/// The wake-ups of a topic since it was subscribed. Dropping a wait half-way loses nothing.
pub struct Subscription {
    /// Dropped before the topic, which then sees whether it was the last.
    receiver: broadcast::Receiver<Call>,
    _topic: Topic,
}

type Topics = Arc<DashMap<String, broadcast::Sender<Call>>>;

/// A wake-up and where it comes from.
#[derive(Clone)]
struct Call {
    wake: Wake,
    /// Whether it was said in this process.
    is_ours: bool,
}

/// Keeps a topic open, so that waiting for it never ends by itself; the last subscriber closes it.
struct Topic {
    topics: Topics,
    name: String,
    _open: broadcast::Sender<Call>,
}

impl Drop for Topic {
    fn drop(&mut self) {
        self.topics
            .remove_if(&self.name, |_, sender| sender.receiver_count() == 0);
    }
}

impl Subscription {
    /// The next wake-up, with what was said.
    pub async fn next(&mut self) -> Wake {
        self.receive().await.wake
    }

    /// The next wake-up that has come already; none: nothing has. Waits for nothing.
    pub fn try_next(&mut self) -> Option<Wake> {
        match self.receiver.try_recv() {
            Ok(call) => Some(call.wake),
            Err(TryRecvError::Lagged(_)) => Some(Wake::Missed),
            Err(TryRecvError::Empty | TryRecvError::Closed) => None,
        }
    }

    async fn receive(&mut self) -> Call {
        match self.receiver.recv().await {
            Ok(call) => call,
            Err(RecvError::Lagged(_) | RecvError::Closed) => Call::MISSED,
        }
    }

    /// Waits for a wake-up and takes all that have come with it: one look answers them all.
    pub async fn notified(&mut self) {
        self.gathered().await;
    }

    /// As [`notified`](Self::notified), with what was said, each once, if all of it was said in this process. What
    /// another one says is not this one's to act upon before it has looked.
    pub async fn gathered(&mut self) -> Option<BTreeSet<Arc<str>>> {
        let mut said = Some(BTreeSet::new());
        let mut call = self.receive().await;
        loop {
            match call {
                Call {
                    wake: Wake::Said(word),
                    is_ours: true,
                } => {
                    said.as_mut().map(|said| said.insert(word));
                }
                _ => said = None,
            }
            call = match self.receiver.try_recv() {
                Ok(call) => call,
                Err(TryRecvError::Lagged(_)) => Call::MISSED,
                Err(TryRecvError::Empty | TryRecvError::Closed) => return said,
            };
        }
    }
}

impl Call {
    const MISSED: Self = Self {
        wake: Wake::Missed,
        is_ours: false,
    };
}

/// Wake-ups within this process.
#[derive(Clone, Default)]
pub(crate) struct Hub {
    topics: Topics,
}

impl Hub {
    /// Tells every subscriber of every topic that it may have missed something.
    pub(crate) fn missed(&self) {
        for topic in self.topics.iter() {
            // Fails when nobody listens, which is fine.
            let _ = topic.send(Call::MISSED);
        }
    }
}

impl Hub {
    /// Passes on what another process said.
    pub(crate) fn relay(&self, topic: &str, payload: &str) {
        self.call(topic, payload, false);
    }

    fn call(&self, topic: &str, payload: &str, is_ours: bool) {
        if let Some(sender) = self.topics.get(topic) {
            let wake = Wake::Said(payload.into());
            // Fails when the last subscriber is just leaving, which is fine.
            let _ = sender.send(Call { wake, is_ours });
        }
    }
}

impl Wakeups for Hub {
    fn wake(&self, topic: &str, payload: &str) {
        self.call(topic, payload, true);
    }

    fn subscribe(&self, topic: &str) -> Subscription {
        // The entry stays locked until the receiver counts, so that nobody who leaves removes it in between.
        let sender = self
            .topics
            .entry(topic.to_owned())
            .or_insert_with(|| broadcast::Sender::new(BACKLOG));
        Subscription {
            receiver: sender.subscribe(),
            _topic: Topic {
                topics: Arc::clone(&self.topics),
                name: topic.to_owned(),
                _open: sender.clone(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_subscriber_closes_the_topic() {
        let hub = Hub::default();
        let (first, second) = (hub.subscribe("topic"), hub.subscribe("topic"));
        drop(first);
        assert_eq!(hub.topics.len(), 1);
        drop(second);
        assert!(
            hub.topics.is_empty(),
            "10,000 topics of the past would be 400 MB"
        );
    }
}
