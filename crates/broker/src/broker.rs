//! The broker's front: who asks, what is remembered, what ends.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicU64, Ordering},
};

use coord::{Coord, Subscription, Wake};
use dashmap::DashMap;
use domain::{
    app::{AppId, TokenMode},
    retry::Delay,
    seal::MasterKey,
    secret::AppSecret,
};
use tokio_util::{
    future::FutureExt,
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use crate::{
    BrokerError, Credentials, Metrics, Token, TokenState,
    fetch::Fetch,
    flight,
    memory::{Entry, Memory},
    shared::Shared,
};

/// What replicas tell each other when what they know of an app no longer holds: `instance appid`.
const CHANGED: &str = "app credentials changed";
/// How often a caller joins a flight that was bound elsewhere before it is told to come back later.
const TRANSFERS: u32 = 3;

/// One valid access token per appid. Cloning is cheap, and clones are the same thing.
///
/// Must be made inside a Tokio runtime. [`Broker::shutdown`] ends it; so does dropping the last clone, less gently.
#[derive(Clone)]
pub struct Broker(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) client: wechat::Client,
    pub(crate) coord: Coord,
    pub(crate) credentials: Arc<dyn Credentials>,
    pub(crate) shared: Shared,
    pub(crate) metrics: Metrics,
    /// Runs the flights; shutdown waits for them.
    pub(crate) tasks: TaskTracker,
    /// Tells flights not to wait for other replicas any longer.
    pub(crate) stop: CancellationToken,
    memories: DashMap<AppId, Arc<Memory>>,
    /// Tells this replica's leases and notices from those of others.
    instance: u64,
    turns: AtomicU64,
    /// Ends the listener when the broker is dropped.
    _stop_at_drop: DropGuard,
}

impl Broker {
    /// Brings together whom to ask. `master_key` seals tokens in the cells that replicas share.
    pub fn new(
        client: wechat::Client,
        coord: Coord,
        credentials: Arc<dyn Credentials>,
        master_key: MasterKey,
        metrics: Metrics,
    ) -> Self {
        let stop = CancellationToken::new();
        let changes = coord.wakeups().subscribe(CHANGED);
        let inner = Arc::new(Inner {
            client,
            shared: Shared::new(coord.clone(), master_key),
            coord,
            credentials,
            metrics,
            tasks: TaskTracker::new(),
            memories: DashMap::new(),
            instance: rand::random(),
            turns: AtomicU64::new(0),
            _stop_at_drop: stop.clone().drop_guard(),
            stop: stop.clone(),
        });
        inner
            .tasks
            .spawn(listen(Arc::downgrade(&inner), changes).with_cancellation_token_owned(stop));
        Self(inner)
    }

    /// The app's token. From memory without waiting as long as it is good; the refresh runs in the background.
    pub async fn token(&self, appid: &AppId) -> Result<Token, BrokerError> {
        let now = self.0.coord.clock().now();
        if let Some(token) = self
            .0
            .memories
            .get(appid)
            .and_then(|memory| memory.fresh(now))
        {
            return Ok(token);
        }
        // Boxed so that the future of the line above stays small.
        Box::pin(self.obtain(appid, None)).await
    }

    /// A token later than the one of `generation`, which WeChat refuses (40001, 40014, 42001). A thousand callers
    /// with the same generation cause one refresh; who comes later gets what is there.
    pub async fn stale(&self, appid: &AppId, generation: u64) -> Result<Token, BrokerError> {
        Box::pin(self.obtain(appid, Some(generation))).await
    }

    /// Proves a secret with one fetch, before it is stored. The token is kept, so that the first send needs no other,
    /// and what was known of the app before is forgotten on all replicas: no [`Broker::forget`] is needed after it.
    pub async fn verify(
        &self,
        appid: &AppId,
        secret: &AppSecret,
        mode: TokenMode,
    ) -> Result<(), BrokerError> {
        let known = self
            .0
            .memories
            .get(appid)
            .map(|memory| Arc::clone(&memory))
            .unwrap_or_default();
        let (held, ledger) = Fetch::begin(&self.0, appid, &known)
            .await
            .prove(secret, mode)
            .await?;
        self.0.shared.put_token(appid, &held).await;
        self.0
            .memories
            .insert(appid.clone(), Arc::new(Memory::of(held, ledger)));
        self.0.tell_others(appid);
        Ok(())
    }

    /// Forgets the app on all replicas: it was removed, or its secret changed without [`Broker::verify`].
    pub fn forget(&self, appid: &AppId) {
        let known = self.0.memories.remove(appid).map(|(_, memory)| memory);
        let generation = known
            .and_then(|memory| memory.held(self.0.coord.clock().now()))
            .map(|held| held.token.generation);
        let (inner, appid) = (Arc::clone(&self.0), appid.clone());
        self.0.tasks.spawn(async move {
            inner.shared.drop_token(&appid, generation).await;
            inner.tell_others(&appid);
        });
    }

    /// How it stands with the app's token, if this replica has dealt with it.
    pub fn state(&self, appid: &AppId) -> Option<TokenState> {
        let now = self.0.coord.clock().now();
        self.0.memories.get(appid).map(|memory| memory.state(now))
    }

    /// Waits for the fetches that are under way, each at most the client's time-out. Callers who come after this
    /// still get what is in memory.
    pub async fn shutdown(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    async fn obtain(&self, appid: &AppId, stale: Option<u64>) -> Result<Token, BrokerError> {
        let memory = Arc::clone(&self.0.memories.entry(appid.clone()).or_default());
        for _ in 0..TRANSFERS {
            let now = self.0.coord.clock().now();
            let entry = memory.enter(now, stale, |goal| {
                flight::launch(&self.0, appid, &memory, goal)
            });
            let flight = match entry {
                Entry::Token(token) => return Ok(token),
                Entry::Failed(error) => return Err(error),
                Entry::Wait(flight) => flight,
            };
            let waiting = self.0.metrics.waiting();
            let token = flight.await?;
            drop(waiting);
            // The flight may have been under way already, for a token that is by now refused itself.
            let good = stale.is_none_or(|stale| token.generation > stale);
            if good && token.expires_at > self.0.coord.clock().now() {
                return Ok(token);
            }
        }
        Err(self
            .0
            .later(&memory, "tokens end faster than they can be fetched"))
    }
}

impl Inner {
    /// A failure that backs off further with every one in a row.
    pub(crate) fn later(&self, memory: &Memory, detail: impl Into<String>) -> BrokerError {
        let retry_at =
            Delay::Backoff.next_try(self.coord.clock().now(), memory.next_try(), rand::random());
        BrokerError::Later {
            retry_at,
            detail: detail.into(),
        }
    }

    pub(crate) fn shutting_down(&self) -> BrokerError {
        BrokerError::Later {
            retry_at: self.coord.clock().now(),
            detail: "the gateway is shutting down".to_owned(),
        }
    }

    /// A name for one turn at the lease.
    pub(crate) fn owner(&self) -> String {
        format!(
            "{:016x}-{}",
            self.instance,
            self.turns.fetch_add(1, Ordering::Relaxed)
        )
    }

    /// Drops this memory, unless another has taken its place.
    pub(crate) fn drop_memory(&self, appid: &AppId, memory: &Memory) {
        self.memories
            .remove_if(appid, |_, there| std::ptr::eq(&raw const **there, memory));
    }

    fn tell_others(&self, appid: &AppId) {
        self.coord
            .wakeups()
            .wake(CHANGED, &format!("{:016x} {appid}", self.instance));
    }

    fn heard_of_a_change(&self, words: &str) {
        if let Some((from, appid)) = words.split_once(' ')
            && from != format!("{:016x}", self.instance)
            && let Ok(appid) = AppId::parse(appid)
        {
            self.memories.remove(&appid);
        }
    }

    /// Redis was away: it may have lost our tokens, and we may have missed that an app was repaired.
    async fn restore(&self) {
        let memories: Vec<_> = self
            .memories
            .iter()
            .map(|entry| (entry.key().clone(), Arc::clone(&entry)))
            .collect();
        for (appid, memory) in memories {
            memory.forgive();
            if let Some(held) = memory.held(self.coord.clock().now()) {
                self.shared.put_token(&appid, &held).await;
            }
        }
    }
}

/// Follows what other replicas say about apps.
async fn listen(inner: Weak<Inner>, mut changes: Subscription) {
    loop {
        let wake = changes.next().await;
        let Some(inner) = inner.upgrade() else { return };
        match wake {
            Wake::Said(words) => inner.heard_of_a_change(&words),
            Wake::Missed => inner.restore().await,
        }
    }
}
