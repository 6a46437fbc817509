//! Wake-ups: messages to the subscribers of a topic that something has changed.
//!
//! A wake-up may come without a reason, and one from another replica may not come at all, so subscribers also poll
//! slowly. But no wake-up between a look and the wait is lost, if the subscription comes before the look:
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

/// How many wake-ups a subscriber may be behind before the subscriber only gets [`Wake::Missed`].
const BACKLOG: usize = 1024;

/// One wake-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wake {
    /// The topic was woken, with this payload.
    Said(Arc<str>),
    /// Wake-ups may have been missed: check the state.
    Missed,
}

/// Wake-ups by topic.
pub trait Wakeups: Send + Sync {
    /// Wakes every subscriber of `topic`: those in this process at once, those of other replicas soon. Never waits and
    /// never fails. `payload` is a short word such as a message id, or empty.
    fn wake(&self, topic: &str, payload: &str);

    /// Subscribes to every wake-up of `topic` from now on.
    fn subscribe(&self, topic: &str) -> WakeupSubscription;
}

/// The wake-ups of a topic since the subscription. Cancelling a wait loses no wake-up.
pub struct WakeupSubscription {
    /// Dropped before the topic, which then sees whether this was the last receiver.
    receiver: broadcast::Receiver<RemoteWakeup>,
    _topic: Topic,
}

type Topics = Arc<DashMap<String, broadcast::Sender<RemoteWakeup>>>;

/// A wake-up and its origin.
#[derive(Clone)]
struct RemoteWakeup {
    wake: Wake,
    /// Whether this process sent the wake-up.
    is_ours: bool,
}

/// Keeps a topic open, so that a wait for the topic never ends early. The last subscriber closes the topic.
struct Topic {
    topics: Topics,
    name: String,
    _open: broadcast::Sender<RemoteWakeup>,
}

impl Drop for Topic {
    fn drop(&mut self) {
        self.topics
            .remove_if(&self.name, |_, sender| sender.receiver_count() == 0);
    }
}

impl WakeupSubscription {
    /// Waits for the next wake-up.
    pub async fn next(&mut self) -> Wake {
        self.receive().await.wake
    }

    /// Returns the next wake-up that has already arrived; none: nothing has arrived. Does not wait.
    pub fn try_next(&mut self) -> Option<Wake> {
        match self.receiver.try_recv() {
            Ok(call) => Some(call.wake),
            Err(TryRecvError::Lagged(_)) => Some(Wake::Missed),
            Err(TryRecvError::Empty | TryRecvError::Closed) => None,
        }
    }

    async fn receive(&mut self) -> RemoteWakeup {
        match self.receiver.recv().await {
            Ok(call) => call,
            Err(RecvError::Lagged(_) | RecvError::Closed) => RemoteWakeup::MISSED,
        }
    }

    /// Waits for a wake-up and takes all further ones that have arrived: one look answers all.
    pub async fn notified(&mut self) {
        self.gathered().await;
    }

    /// As [`notified`](Self::notified). Returns the distinct payloads if all wake-ups came from this process. Before
    /// acting on the payload of another process, the caller must look, so the result is then none.
    pub async fn gathered(&mut self) -> Option<BTreeSet<Arc<str>>> {
        let mut said = Some(BTreeSet::new());
        let mut call = self.receive().await;
        loop {
            match call {
                RemoteWakeup {
                    wake: Wake::Said(word),
                    is_ours: true,
                } => {
                    said.as_mut().map(|said| said.insert(word));
                }
                _ => said = None,
            }
            call = match self.receiver.try_recv() {
                Ok(call) => call,
                Err(TryRecvError::Lagged(_)) => RemoteWakeup::MISSED,
                Err(TryRecvError::Empty | TryRecvError::Closed) => return said,
            };
        }
    }
}

impl RemoteWakeup {
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
    /// Sends [`Wake::Missed`] to every subscriber of every topic.
    pub(crate) fn missed(&self) {
        for topic in self.topics.iter() {
            // Fails without subscribers, which is fine.
            let _ = topic.send(RemoteWakeup::MISSED);
        }
    }
}

impl Hub {
    /// Passes on a wake-up of another process.
    pub(crate) fn relay(&self, topic: &str, payload: &str) {
        self.call(topic, payload, false);
    }

    fn call(&self, topic: &str, payload: &str, is_ours: bool) {
        if let Some(sender) = self.topics.get(topic) {
            let wake = Wake::Said(payload.into());
            // Fails when the last subscriber is just leaving, which is fine.
            let _ = sender.send(RemoteWakeup { wake, is_ours });
        }
    }
}

impl Wakeups for Hub {
    fn wake(&self, topic: &str, payload: &str) {
        self.call(topic, payload, true);
    }

    fn subscribe(&self, topic: &str) -> WakeupSubscription {
        // The entry stays locked until the receiver counts, so that no leaving subscriber removes the topic in between.
        let sender = self
            .topics
            .entry(topic.to_owned())
            .or_insert_with(|| broadcast::Sender::new(BACKLOG));
        WakeupSubscription {
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
