//! The entry point of the broker: requests for tokens, the memory of each app, and the shutdown.

use std::{
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use coord::{Coord, Wake, WakeupSubscription};
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
    BrokerError, BrokerEvent, BrokerMetrics, Credentials, Observer, Proof, Token, TokenState,
    app_totals::AppTotals,
    check::TokenHealth,
    deferred::{self, DeferredUpdates},
    memory::{Memory, TokenReply},
    shared::SharedCells,
    single_flight,
};

/// The wake-up topic after which other replicas forget what is in memory of an app. Payload: `instance appid`.
const CHANGED: &str = "app credentials changed";
/// How many unsuitable results of shared fetches a caller accepts before the broker answers [`BrokerError::Later`].
const MAX_JOINED_FETCHES: u32 = 3;
/// The interval at which the broker looks for idle apps.
const SWEEP: Duration = Duration::from_mins(10);

/// One valid access token per appid. Cloning is cheap, and clones share their state.
///
/// Must be made inside a Tokio runtime. [`Broker::shutdown`] ends the broker and waits for the fetches. Dropping the
/// last clone ends the broker too, without waiting.
#[derive(Clone)]
pub struct Broker(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) client: wechat::Client,
    pub(crate) coord: Coord,
    pub(crate) credentials: Arc<dyn Credentials>,
    pub(crate) shared: SharedCells,
    pub(crate) metrics: BrokerMetrics,
    /// Runs the fetches; shutdown waits for these tasks.
    pub(crate) tasks: TaskTracker,
    /// Cancelled when fetches must no longer wait for other replicas.
    pub(crate) stop: CancellationToken,
    /// The deferred updates for Redis.
    pub(crate) deferred: Arc<DeferredUpdates>,
    memories: DashMap<AppId, Arc<Memory>>,
    /// When `memories` was last swept, in seconds since 1970.
    swept_at: AtomicI64,
    observer: OnceLock<Arc<dyn Observer>>,
    /// Distinguishes the leases and wake-ups of this replica from those of other replicas.
    instance: u64,
    turns: AtomicU64,
    /// Ends the background tasks when the broker is dropped.
    _stop_at_drop: DropGuard,
}

impl Broker {
    /// Creates the broker and starts the background tasks. `master_key` seals tokens in the cells that replicas share.
    pub fn new(
        client: wechat::Client,
        coord: Coord,
        credentials: Arc<dyn Credentials>,
        master_key: MasterKey,
        metrics: BrokerMetrics,
    ) -> Self {
        let stop = CancellationToken::new();
        let changes = coord.wakeups().subscribe(CHANGED);
        let inner = Arc::new(Inner {
            client,
            shared: SharedCells::new(coord.clone(), master_key),
            coord,
            credentials,
            metrics,
            tasks: TaskTracker::new(),
            deferred: Arc::default(),
            memories: DashMap::new(),
            swept_at: AtomicI64::new(0),
            observer: OnceLock::new(),
            instance: rand::random(),
            turns: AtomicU64::new(0),
            _stop_at_drop: stop.clone().drop_guard(),
            stop: stop.clone(),
        });
        inner.metrics.watch(Arc::downgrade(&inner));
        inner.tasks.spawn(
            listen(Arc::downgrade(&inner), changes).with_cancellation_token_owned(stop.clone()),
        );
        inner.tasks.spawn(
            deferred::settle(
                Arc::downgrade(&inner),
                Arc::clone(&inner.deferred),
                inner.coord.clock().clone(),
            )
            .with_cancellation_token_owned(stop),
        );
        Self(inner)
    }

    /// Sends all further events to `observer`. The first observer stays; later ones are ignored.
    #[must_use]
    pub fn with_observer(self, observer: Arc<dyn Observer>) -> Self {
        let _ = self.0.observer.set(observer);
        self
    }

    /// Returns the app's token: at once from memory while the token is good. The refresh runs in the background.
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
        // Boxed, so that the future of the fast path above stays small.
        Box::pin(self.obtain(appid, None)).await
    }

    /// Returns the token to use after WeChat has refused the token of `generation` (40001, 40014, 42001). The result is
    /// a later token, or the same one where WeChat accepts that token in a token check, so that the refusal was stray
    /// or had another cause. A thousand callers with the same generation cause at most one token check and one refresh.
    pub async fn stale(&self, appid: &AppId, generation: u64) -> Result<Token, BrokerError> {
        let mut present = Box::pin(self.obtain(appid, None)).await?;
        if present.generation < generation {
            // Another replica has fetched the refused token, and this replica has not seen that token yet.
            let (memory, now) = (self.0.memory(appid), self.0.coord.clock().now());
            memory.learn(self.0.shared.token(appid).await, None, now);
            present = Box::pin(self.obtain(appid, None)).await?;
        }
        if present.generation > generation || !self.is_dead(appid, &present).await {
            return Ok(present);
        }
        Box::pin(self.obtain(appid, Some(generation))).await
    }

    /// Whether WeChat refuses the token, which WeChat has refused once, in a token check too. Changes nothing.
    pub async fn is_dead(&self, appid: &AppId, token: &Token) -> bool {
        let memory = self.0.memory(appid);
        Box::pin(self.0.check(appid, &memory, token)).await == TokenHealth::Dead
    }

    /// Fetches another token on request. The present token serves until then, and also when the refresh fails.
    /// Refreshes are at least 30 s apart, and at most 20 a day in stable mode, where the old token then ends at once (a
    /// legacy token lives for five more minutes). [`BrokerError::TooSoon`] contains the time of the next possible
    /// refresh. A refresh does not wait for the pause of a blocked app. After a refusal by WeChat, callers get the same
    /// error for 30 s without another call.
    pub async fn refresh(&self, appid: &AppId) -> Result<Token, BrokerError> {
        let memory = self.0.memory(appid);
        let now = self.0.coord.clock().now();
        memory.learn(self.0.shared.token(appid).await, None, now);
        let beyond = memory.newest();
        let _waiting = self.0.metrics.waiting();
        for _ in 0..MAX_JOINED_FETCHES {
            let now = self.0.coord.clock().now();
            let entry = memory.request_refresh(now, beyond, |goal| {
                single_flight::launch(&self.0, appid, &memory, goal)
            });
            let token = match entry {
                TokenReply::Token(token) => token,
                TokenReply::Failed(error) => return Err(error),
                TokenReply::Wait(flight) => flight.await?,
            };
            // The fetch may have started before this request, and may have found that WeChat keeps the present token.
            if token.generation > beyond {
                return Ok(token);
            }
        }
        Err(self
            .0
            .later(&memory, "WeChat returned the present token and no new one"))
    }

    /// Proves a secret with one fetch. Changes nothing: the caller stores the secret, then calls [`Broker::adopt`].
    pub async fn prove(
        &self,
        appid: &AppId,
        secret: &AppSecret,
        mode: TokenMode,
    ) -> Result<Proof, BrokerError> {
        single_flight::prove(&self.0, appid, &self.known(appid), secret, mode).await
    }

    /// Returns the memory of an app, or an empty one that is not kept when the app is not in memory.
    pub(crate) fn known(&self, appid: &AppId) -> Arc<Memory> {
        let known = self.0.memories.get(appid).map(|memory| Arc::clone(&memory));
        known.unwrap_or_else(|| Arc::new(Memory::new(self.0.coord.clock().now())))
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.0
    }

    /// Uses the token of a secret that is now stored, on all replicas, so that the first send needs no further fetch.
    /// The broker forgets the earlier state of the app, and drops the results of fetches that began before, which may
    /// have read the old secret. No [`Broker::forget`] is needed afterwards.
    pub async fn adopt(&self, appid: &AppId, proof: Proof) {
        let Proof { mut held, ledger } = proof;
        let there = self.0.shared.token(appid).await;
        let known = self.0.memories.get(appid).map(|memory| memory.newest());
        let now = self.0.coord.clock().now();
        let newest = known.max(there.map(|held| held.token.generation));
        // The generation of a fetch is at least the start time of the fetch in milliseconds.
        held.token.generation = newest
            .max(Some(now.timestamp_millis().unsigned_abs()))
            .map_or(1, |newest| newest.saturating_add(1));
        let memory = Arc::new(Memory::of(held.clone(), ledger, now));
        self.0.memories.insert(appid.clone(), Arc::clone(&memory));
        if self.0.shared.put_token(appid, &held).await.is_err() {
            self.0.deferred.defer(appid, &memory);
            self.0.deferred.ring();
        }
        self.0.announce_change(appid);
    }

    /// Forgets the app on all replicas: the app was removed, or the secret changed without [`Broker::adopt`].
    pub fn forget(&self, appid: &AppId) {
        let known = self.0.memories.remove(appid).map(|(_, memory)| memory);
        let generation = known
            .and_then(|memory| memory.held(self.0.coord.clock().now()))
            .map(|held| held.token.generation);
        let (inner, appid) = (Arc::clone(&self.0), appid.clone());
        self.0.tasks.spawn(async move {
            inner.shared.drop_token(&appid, generation).await;
            inner.announce_change(&appid);
        });
    }

    /// The state of the app's token, as known to this replica and in the shared cells. Makes no call of WeChat.
    pub async fn survey(&self, appid: &AppId) -> TokenState {
        let known = self.0.memories.get(appid).map(|memory| Arc::clone(&memory));
        let now = self.0.coord.clock().now();
        let memory = known.unwrap_or_else(|| Arc::new(Memory::new(now)));
        let ledger = self.0.shared.ledger(appid).await.ok().flatten();
        memory.learn(self.0.shared.token(appid).await, ledger, now);
        memory.state(self.0.coord.clock().now())
    }

    /// The state of the app's token as known to this replica; none: the app is not in memory.
    pub fn state(&self, appid: &AppId) -> Option<TokenState> {
        let now = self.0.coord.clock().now();
        self.0.memories.get(appid).map(|memory| memory.state(now))
    }

    /// Waits for the fetches in progress, each for at most the client's time-out. Later callers still get tokens from
    /// memory.
    pub async fn shutdown(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    async fn obtain(&self, appid: &AppId, stale: Option<u64>) -> Result<Token, BrokerError> {
        let mut memory = self.0.memory(appid);
        for _ in 0..MAX_JOINED_FETCHES {
            let now = self.0.coord.clock().now();
            let entry = memory.enter(now, stale, |goal| {
                single_flight::launch(&self.0, appid, &memory, goal)
            });
            let flight = match entry {
                TokenReply::Token(token) => return Ok(token),
                TokenReply::Failed(error) => return Err(error),
                TokenReply::Wait(flight) => flight,
            };
            let waiting = self.0.metrics.waiting();
            let landed = flight.await;
            drop(waiting);
            let is_known = !matches!(landed, Err(BrokerError::UnknownApp));
            if is_known && !self.0.remembers(appid, &memory) {
                // The app changed during the fetch, and the fetch may have used the old secret.
                memory = self.0.memory(appid);
                continue;
            }
            let token = landed?;
            // The fetch may have started before this request, for a token that WeChat refuses by now.
            let good = stale.is_none_or(|stale| token.generation > stale);
            if good && token.expires_at > self.0.coord.clock().now() {
                return Ok(token);
            }
        }
        Err(self.0.later(
            &memory,
            "access tokens end faster than the gateway can fetch new ones",
        ))
    }
}

impl Inner {
    /// Returns the app's memory and marks the app as used now.
    fn memory(&self, appid: &AppId) -> Arc<Memory> {
        let now = self.coord.clock().now();
        self.sweep(now);
        let memory = self
            .memories
            .entry(appid.clone())
            .or_insert_with(|| Arc::new(Memory::new(now)));
        // Touched while the map entry is locked, so that no sweep takes the app for idle.
        memory.touch(now);
        Arc::clone(&memory)
    }

    /// Whether `memory` is still the present memory of the app: the app was not changed or forgotten meanwhile.
    pub(crate) fn remembers(&self, appid: &AppId, memory: &Memory) -> bool {
        self.memories
            .get(appid)
            .is_some_and(|there| std::ptr::eq(&raw const **there, memory))
    }

    /// Forgets apps that nothing has used for hours. The shared cells keep what is worth keeping.
    fn sweep(&self, now: DateTime<Utc>) {
        let (now_s, last) = (now.timestamp(), self.swept_at.load(Ordering::Relaxed));
        let is_due = Duration::from_secs((now_s - last).unsigned_abs()) >= SWEEP;
        let is_ours = is_due
            && self
                .swept_at
                .compare_exchange(last, now_s, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if is_ours {
            self.memories.retain(|_, memory| !memory.is_idle(now));
        }
    }

    /// Counts all apps into a census.
    pub(crate) fn count_apps(&self, census: &mut AppTotals) {
        let now = self.coord.clock().now();
        for memory in &self.memories {
            census.count(&memory, now);
        }
    }

    /// Passes an event to the observer, without waiting for the observer.
    pub(crate) fn tell(&self, appid: &AppId, event: BrokerEvent) {
        if let Some(observer) = self.observer.get() {
            let (observer, appid) = (Arc::clone(observer), appid.clone());
            self.tasks
                .spawn(async move { observer.observe(&appid, event).await });
        }
    }

    /// Returns a failure with a backoff that grows with the number of failures in a row.
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

    /// Returns a unique owner name for one use of a fetch lease.
    pub(crate) fn owner(&self) -> String {
        format!(
            "{:016x}-{}",
            self.instance,
            self.turns.fetch_add(1, Ordering::Relaxed)
        )
    }

    /// Drops this memory, unless another one is there now.
    pub(crate) fn drop_memory(&self, appid: &AppId, memory: &Memory) {
        self.memories
            .remove_if(appid, |_, there| std::ptr::eq(&raw const **there, memory));
    }

    fn announce_change(&self, appid: &AppId) {
        self.coord
            .wakeups()
            .wake(CHANGED, &format!("{:016x} {appid}", self.instance));
    }

    fn handle_change(&self, words: &str) {
        if let Some((from, appid)) = words.split_once(' ')
            && from != format!("{:016x}", self.instance)
            && let Ok(appid) = AppId::parse(appid)
        {
            self.memories.remove(&appid);
        }
    }

    /// Called after Redis was away. Redis may have lost the cells of this replica, and this replica may have missed
    /// that an app was repaired or that a later token exists.
    fn restore(&self) {
        for entry in &self.memories {
            entry.clear_failures();
            self.deferred.defer(entry.key(), entry.value());
        }
        self.deferred.ring();
    }
}

/// Handles the changes of apps that other replicas announce.
async fn listen(inner: Weak<Inner>, mut changes: WakeupSubscription) {
    loop {
        let wake = changes.next().await;
        let Some(inner) = inner.upgrade() else { return };
        match wake {
            Wake::Said(words) => inner.handle_change(&words),
            Wake::Missed => inner.restore(),
        }
    }
}
