//! The entry point of the broker: requests for tokens, changes of apps, and the shutdown.

use std::sync::Arc;

use coord::Coord;
use domain::{
    app::{AppId, TokenMode},
    seal::MasterKey,
    secret::AppSecret,
};
use tokio_util::future::FutureExt;

use crate::{
    BrokerError, BrokerMetrics, Credentials, Observer, Proof, Token, TokenState, changes,
    deferred_writer,
    fetcher::Fetcher,
    health::TokenHealth,
    memory::{Memory, TokenReply},
    single_flight,
};

/// How many unsuitable results of shared fetches a caller accepts before the broker answers [`BrokerError::Later`].
const MAX_JOINED_FETCHES: u32 = 3;
/// One valid access token per appid. Cloning is cheap, and clones share their state.
///
/// Must be made inside a Tokio runtime. [`Broker::shutdown`] ends the broker and waits for the fetches. Dropping the
/// last clone ends the broker too, without waiting.
#[derive(Clone)]
pub struct Broker(Arc<Fetcher>);

impl Broker {
    /// Creates the broker and starts the background tasks. `master_key` seals tokens in the cells that replicas share.
    pub fn new(
        client: wechat::Client,
        coord: Coord,
        credentials: Arc<dyn Credentials>,
        master_key: MasterKey,
        metrics: BrokerMetrics,
    ) -> Self {
        let fetcher = Arc::new(Fetcher::new(
            client,
            coord,
            credentials,
            master_key,
            metrics,
        ));
        fetcher.metrics.count_apps_of(&fetcher.memories);
        let changes = changes::subscribe(&fetcher.coord);
        fetcher.tasks.spawn(
            changes::listen(Arc::downgrade(&fetcher), changes)
                .with_cancellation_token_owned(fetcher.stop.clone()),
        );
        fetcher.tasks.spawn(
            deferred_writer::run(
                Arc::downgrade(&fetcher),
                Arc::clone(&fetcher.deferred),
                fetcher.coord.clock().clone(),
            )
            .with_cancellation_token_owned(fetcher.stop.clone()),
        );
        Self(fetcher)
    }

    /// Sends all further events to `observer`. The first observer stays; later ones are ignored.
    #[must_use]
    pub fn with_observer(self, observer: Arc<dyn Observer>) -> Self {
        let _ = self.0.observer.set(observer);
        self
    }

    /// Returns the app's token: at once from memory while the token is good. The refresh runs in the background.
    pub async fn token(&self, appid: &AppId) -> Result<Token, BrokerError> {
        if let Some(token) = self.0.memories.fresh(appid) {
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
            let (memory, now) = (self.0.memories.use_app(appid), self.0.coord.clock().now());
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
        let memory = self.0.memories.use_app(appid);
        Box::pin(self.0.check(appid, &memory, token)).await == TokenHealth::Dead
    }

    /// Fetches another token on request. The present token serves until then, and also when the refresh fails.
    /// Refreshes are at least 30 s apart, and at most 20 a day in stable mode, where the old token then ends at once (a
    /// legacy token lives for five more minutes). [`BrokerError::TooSoon`] contains the time of the next possible
    /// refresh. A refresh does not wait for the pause of a blocked app. After a refusal by WeChat, callers get the same
    /// error for 30 s without another call.
    pub async fn refresh(&self, appid: &AppId) -> Result<Token, BrokerError> {
        let memory = self.0.memories.use_app(appid);
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
        let known = self.0.memories.get(appid);
        known.unwrap_or_else(|| Arc::new(Memory::new(self.0.coord.clock().now())))
    }

    pub(crate) fn fetcher(&self) -> &Fetcher {
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
        self.0.memories.put(appid, Arc::clone(&memory));
        if self.0.shared.put_token(appid, &held).await.is_err() {
            self.0.deferred.defer(appid, &memory);
            self.0.deferred.ring();
        }
        self.0.announce_change(appid);
    }

    /// Forgets the app on all replicas: the app was removed, or the secret changed without [`Broker::adopt`].
    pub fn forget(&self, appid: &AppId) {
        let known = self.0.memories.remove(appid);
        let generation = known
            .and_then(|memory| memory.held(self.0.coord.clock().now()))
            .map(|held| held.token.generation);
        let (fetcher, appid) = (Arc::clone(&self.0), appid.clone());
        self.0.tasks.spawn(async move {
            fetcher.shared.drop_token(&appid, generation).await;
            fetcher.announce_change(&appid);
        });
    }

    /// The state of the app's token, as known to this replica and in the shared cells. Makes no call of WeChat.
    pub async fn survey(&self, appid: &AppId) -> TokenState {
        let known = self.0.memories.get(appid);
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
        let mut memory = self.0.memories.use_app(appid);
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
            if is_known && !self.0.memories.contains(appid, &memory) {
                // The app changed during the fetch, and the fetch may have used the old secret.
                memory = self.0.memories.use_app(appid);
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
