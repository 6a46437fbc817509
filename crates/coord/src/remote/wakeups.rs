//! Wake-ups over Redis: local ones at once, those of other replicas by publish and subscribe.
//!
//! Two tasks, which the cancellation token ends: the *publisher* takes the wake-ups of local callers from the outbox
//! and sends pipelines; the *listener* holds a connection of its own and passes the wake-ups of other replicas to the
//! hub. When the listener connects, or finds that Redis was emptied, every subscriber gets
//! [`Wake::Missed`](crate::Wake::Missed), because Redis keeps no wake-ups for a listener that is away.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use futures::StreamExt;
use redis::{Msg, RedisError, RedisResult};
use tokio::{
    select,
    sync::mpsc,
    time::{Instant, interval_at, timeout},
};
use tokio_util::{future::FutureExt, sync::CancellationToken, task::TaskTracker};

use super::link::{Link, PATIENCE};
use crate::{WakeupSubscription, Wakeups, wakeups::Hub};

const CHANNEL: &str = "wxgate:wakes";
/// The most wake-ups that wait to be published. Further ones are dropped: the other replicas poll as well.
const OUTBOX: usize = 4096;
/// The most wake-ups in one pipeline.
const PIPELINE: usize = 256;
/// How long the listener waits before connecting again. In real time under every clock: the network has its own.
const RECONNECT: Duration = Duration::from_millis(250);
/// How often the listener sends a PING and checks whether Redis was emptied.
const WATCH: Duration = Duration::from_secs(5);

/// The queue of topics and payloads from local callers to the publisher.
pub(super) type Outbox = mpsc::Sender<(String, String)>;

/// Wakes this process's hub and passes the wake-up to the publisher.
pub(crate) struct RemoteWakeups {
    hub: Hub,
    outbox: Outbox,
}

impl RemoteWakeups {
    pub(super) fn new(hub: Hub, outbox: Outbox) -> Self {
        Self { hub, outbox }
    }
}

impl Wakeups for RemoteWakeups {
    fn wake(&self, topic: &str, payload: &str) {
        self.hub.wake(topic, payload);
        // Fails when the outbox is full, for example while Redis is away: the other replicas then poll.
        let _ = self.outbox.try_send((topic.to_owned(), payload.to_owned()));
    }

    fn subscribe(&self, topic: &str) -> WakeupSubscription {
        self.hub.subscribe(topic)
    }
}

/// Starts the publisher and the listener.
pub(super) fn start(link: &Link, hub: Hub, stop: &CancellationToken) -> Outbox {
    let (outbox, waiting) = mpsc::channel(OUTBOX);
    // Distinguishes this process's publications from those of others; must only differ among a few replicas.
    let instance = new_name();
    let tasks = TaskTracker::new();
    tasks.spawn(
        publish(link.clone(), instance.clone(), waiting)
            .with_cancellation_token_owned(stop.clone()),
    );
    tasks.spawn(listen(link.clone(), instance, hub).with_cancellation_token_owned(stop.clone()));
    outbox
}

async fn publish(link: Link, instance: String, mut waiting: mpsc::Receiver<(String, String)>) {
    let mut batch = Vec::with_capacity(PIPELINE);
    while waiting.recv_many(&mut batch, PIPELINE).await > 0 {
        let mut pipeline = redis::pipe();
        for (topic, payload) in batch.drain(..) {
            pipeline
                .cmd("PUBLISH")
                .arg(CHANNEL)
                .arg(format!("{instance}\n{topic}\n{payload}"))
                .ignore();
        }
        let mut manager = link.manager();
        if let Err(error) = link
            .ask(async { pipeline.query_async::<()>(&mut manager).await })
            .await
        {
            tracing::debug!(%error, "cannot send wake-ups to other replicas: some wake-ups were dropped");
        }
    }
}

async fn listen(link: Link, instance: String, hub: Hub) {
    loop {
        if let Err(error) = listen_once(&link, &instance, &hub).await {
            tracing::debug!(%error, "cannot receive wake-ups from other replicas");
        }
        // A call on the shared connection finds out whether Redis is away; the `RedisState` logs the result.
        let _ = link.name(&new_name()).await;
        tokio::time::sleep(RECONNECT).await;
    }
}

/// Listens until the connection ends.
async fn listen_once(link: &Link, instance: &str, hub: &Hub) -> RedisResult<()> {
    let (mut sink, mut messages) = soon(link.client().get_async_pubsub()).await?.split();
    soon(sink.subscribe(CHANNEL)).await?;
    link.revive().await;
    let mut name = link.name(&new_name()).await.ok();
    hub.missed();
    let mut watch = interval_at(Instant::now() + WATCH, WATCH);
    loop {
        select! {
            message = messages.next() => match message {
                Some(message) => hand_over(&message, instance, hub),
                None => return Ok(()),
            },
            _ = watch.tick() => {
                soon(sink.ping::<()>()).await?;
                let now = link.name(&new_name()).await.ok();
                if name.is_some() && now.is_some() && now != name {
                    tracing::warn!("Redis has lost its data: this replica writes its own copy back");
                    hub.missed();
                }
                name = now.or(name);
            }
        }
    }
}

/// Returns a random name.
fn new_name() -> String {
    format!("{:016x}", RandomState::new().hash_one(std::process::id()))
}

fn hand_over(message: &Msg, instance: &str, hub: &Hub) {
    let Ok(text) = message.get_payload::<String>() else {
        return;
    };
    let mut parts = text.splitn(3, '\n');
    if let (Some(from), Some(topic), Some(payload)) = (parts.next(), parts.next(), parts.next())
        && from != instance
    {
        hub.relay(topic, payload);
    }
}

async fn soon<T>(exchange: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
    timeout(PATIENCE, exchange)
        .await
        .unwrap_or_else(|_elapsed| {
            Err(RedisError::from(std::io::Error::from(
                std::io::ErrorKind::TimedOut,
            )))
        })
}
