//! The broker's front: who asks, what is remembered, what ends.

use std::{
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
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
    BrokerError, Credentials, Event, Metrics, Observer, Proof, Token, TokenState,
    arrears::{self, Arrears},
    census::Census,
    check::Health,
    flight,
    memory::{Entry, Memory},
    shared::Shared,
};

/// What replicas tell each other when what they know of an app no longer holds: `instance appid`.
const CHANGED: &str = "app credentials changed";
/// How often a caller joins a flight that was bound elsewhere before it is told to come back later.
const TRANSFERS: u32 = 3;
/// How often apps that nobody uses any longer are looked for.
const SWEEP: Duration = Duration::from_mins(10);

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
    /// What Redis is yet to be told.
    pub(crate) arrears: Arc<Arrears>,
    memories: DashMap<AppId, Arc<Memory>>,
    /// When they were last swept, in seconds.
    swept_at: AtomicI64,
    observer: OnceLock<Arc<dyn Observer>>,
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
            arrears: Arc::default(),
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
            arrears::settle(
                Arc::downgrade(&inner),
                Arc::clone(&inner.arrears),
                inner.coord.clock().clone(),
            )
            .with_cancellation_token_owned(stop),
        );
        Self(inner)
    }

    /// Tells this one of events from now on. The first observer stays.
    #[must_use]
    pub fn with_observer(self, observer: Arc<dyn Observer>) -> Self {
        let _ = self.0.observer.set(observer);
        self
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

    /// The token to try again with after WeChat has refused the one of `generation` (40001, 40014, 42001): a later one,
    /// or the same where WeChat takes it in a call of its own, so that the refusal was a stray one or about something
    /// else. A thousand callers with the same generation cause one look and one refresh at most.
    pub async fn stale(&self, appid: &AppId, generation: u64) -> Result<Token, BrokerError> {
        let mut present = Box::pin(self.obtain(appid, None)).await?;
        if present.generation < generation {
            // The refused token is one that another replica has fetched, and this one has not seen yet.
            let (memory, now) = (self.0.memory(appid), self.0.coord.clock().now());
            memory.learn(self.0.shared.token(appid).await, None, now);
            present = Box::pin(self.obtain(appid, None)).await?;
        }
        if present.generation > generation || !self.is_dead(appid, &present).await {
            return Ok(present);
        }
        Box::pin(self.obtain(appid, Some(generation))).await
    }

    /// Whether WeChat refuses the token, which it has refused once, in a call of its own too. Changes nothing.
    pub async fn is_dead(&self, appid: &AppId, token: &Token) -> bool {
        let memory = self.0.memory(appid);
        Box::pin(self.0.check(appid, &memory, token)).await == Health::Dead
    }

    /// Another token, because somebody wants one. The present one serves until then, and when this fails. At least
    /// 30 s apart; 20 a day in stable mode, whose old token then ends at once (a legacy one has five minutes more).
    /// [`BrokerError::TooSoon`] says when to ask again. A pause of a blocked app is not waited for; what WeChat said when
    /// it refused is told for 30 s without asking it again.
    pub async fn refresh(&self, appid: &AppId) -> Result<Token, BrokerError> {
        let memory = self.0.memory(appid);
        let now = self.0.coord.clock().now();
        memory.learn(self.0.shared.token(appid).await, None, now);
        let beyond = memory.newest();
        let _waiting = self.0.metrics.waiting();
        for _ in 0..TRANSFERS {
            let now = self.0.coord.clock().now();
            let entry = memory.enter_asking(now, beyond, |goal| {
                flight::launch(&self.0, appid, &memory, goal)
            });
            let token = match entry {
                Entry::Token(token) => token,
                Entry::Failed(error) => return Err(error),
                Entry::Wait(flight) => flight.await?,
            };
            // The flight may have been under way already, and found that WeChat keeps the present token.
            if token.generation > beyond {
                return Ok(token);
            }
        }
        Err(self.0.later(&memory, "WeChat keeps the present token"))
    }

    /// Proves a secret with one fetch, before it is stored. Changes nothing: [`Broker::adopt`] does, once it is stored.
    pub async fn prove(
        &self,
        appid: &AppId,
        secret: &AppSecret,
        mode: TokenMode,
    ) -> Result<Proof, BrokerError> {
        flight::prove(&self.0, appid, &self.known(appid), secret, mode).await
    }

    /// What is known of an app; nothing is kept of one that is not known.
    pub(crate) fn known(&self, appid: &AppId) -> Arc<Memory> {
        let known = self.0.memories.get(appid).map(|memory| Arc::clone(&memory));
        known.unwrap_or_else(|| Arc::new(Memory::new(self.0.coord.clock().now())))
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.0
    }

    /// Uses what a secret has brought that is now stored, on all replicas, so that the first send needs no other token.
    /// Whatever was known of the app before is forgotten, and what fetches that began before bring is not kept: they
    /// may have read the old secret. No [`Broker::forget`] is needed after it.
    pub async fn adopt(&self, appid: &AppId, proof: Proof) {
        let Proof { mut held, ledger } = proof;
        let there = self.0.shared.token(appid).await;
        let known = self.0.memories.get(appid).map(|memory| memory.newest());
        let now = self.0.coord.clock().now();
        let newest = known.max(there.map(|held| held.token.generation));
        // Fetches have the time of their beginning as generation.
        held.token.generation = newest
            .max(Some(now.timestamp_millis().unsigned_abs()))
            .map_or(1, |newest| newest.saturating_add(1));
        let memory = Arc::new(Memory::of(held.clone(), ledger, now));
        self.0.memories.insert(appid.clone(), Arc::clone(&memory));
        if self.0.shared.put_token(appid, &held).await.is_err() {
            self.0.arrears.owe(appid, &memory);
            self.0.arrears.ring();
        }
        self.0.tell_others(appid);
    }

    /// Forgets the app on all replicas: it was removed, or its secret changed without [`Broker::adopt`].
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

    /// How it stands with the app's token, on this replica or on those it can ask. Costs WeChat nothing.
    pub async fn survey(&self, appid: &AppId) -> TokenState {
        let known = self.0.memories.get(appid).map(|memory| Arc::clone(&memory));
        let now = self.0.coord.clock().now();
        let memory = known.unwrap_or_else(|| Arc::new(Memory::new(now)));
        let ledger = self.0.shared.ledger(appid).await.ok().flatten();
        memory.learn(self.0.shared.token(appid).await, ledger, now);
        memory.state(self.0.coord.clock().now())
    }

    /// How it stands with the app's token, as far as this replica has dealt with it.
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
        let mut memory = self.0.memory(appid);
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
            let landed = flight.await;
            drop(waiting);
            let is_known = !matches!(landed, Err(BrokerError::UnknownApp));
            if is_known && !self.0.remembers(appid, &memory) {
                // The app changed meanwhile, and the flight may have used its old secret.
                memory = self.0.memory(appid);
                continue;
            }
            let token = landed?;
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
    /// The app's memory, which is used now.
    fn memory(&self, appid: &AppId) -> Arc<Memory> {
        let now = self.coord.clock().now();
        self.sweep(now);
        let memory = self
            .memories
            .entry(appid.clone())
            .or_insert_with(|| Arc::new(Memory::new(now)));
        // While the entry is held, so that no sweep takes it for idle.
        memory.touch(now);
        Arc::clone(&memory)
    }

    /// Whether this is what is remembered of the app: it has not been changed or forgotten since.
    pub(crate) fn remembers(&self, appid: &AppId, memory: &Memory) -> bool {
        self.memories
            .get(appid)
            .is_some_and(|there| std::ptr::eq(&raw const **there, memory))
    }

    /// Forgets apps that have not been used for hours. What is worth keeping of them is in the cells.
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

    /// Takes all apps into a census.
    pub(crate) fn count_apps(&self, census: &mut Census) {
        let now = self.coord.clock().now();
        for memory in &self.memories {
            census.count(&memory, now);
        }
    }

    /// Tells the observer, without waiting for it.
    pub(crate) fn tell(&self, appid: &AppId, event: Event) {
        if let Some(observer) = self.observer.get() {
            let (observer, appid) = (Arc::clone(observer), appid.clone());
            self.tasks
                .spawn(async move { observer.observe(&appid, event).await });
        }
    }

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

    /// Redis was away: it may have lost what we showed it, and we may have missed that an app was repaired or that there
    /// is a later token.
    fn restore(&self) {
        for entry in &self.memories {
            entry.forgive();
            self.arrears.owe(entry.key(), entry.value());
        }
        self.arrears.ring();
    }
}

/// Follows what other replicas say about apps.
async fn listen(inner: Weak<Inner>, mut changes: Subscription) {
    loop {
        let wake = changes.next().await;
        let Some(inner) = inner.upgrade() else { return };
        match wake {
            Wake::Said(words) => inner.heard_of_a_change(&words),
            Wake::Missed => inner.restore(),
        }
    }
}
