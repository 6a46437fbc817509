//! The worker: claims messages whenever there are free sending slots.
//!
//! The worker uses the list of apps with ready messages of one look for 50 ms. A wake-up from intake in the same
//! process names the app. So most claims need no look.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use store::{ClaimBatch, ClaimRequest, StoreError};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    dispatch::Dispatcher, options::EngineOptions, parts::Parts, retrying_writer::Backlog, topic,
    waiters::announce_ends,
};

/// How often an idle worker looks for messages without a wake-up: a wake-up can get lost with Redis.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long a worker waits after a failure of the database.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// How long a busy worker waits for more free slots.
const GATHER: Duration = Duration::from_millis(5);
/// How long the result of one look for apps is used before the next look.
const BELIEVED: Duration = Duration::from_millis(50);
/// How many apps a wake-up may name.
const MOST_NAMED: usize = 8;
/// The largest claim. A larger claim only makes the first message wait for the last one.
const LARGEST_CLAIM: usize = 256;

pub(crate) struct Worker {
    parts: Parts,
    options: EngineOptions,
    dispatcher: Dispatcher,
    slots: Arc<Semaphore>,
    backlog: Backlog,
    stop: CancellationToken,
}

impl Worker {
    pub(crate) fn new(
        parts: &Parts,
        options: EngineOptions,
        dispatcher: Dispatcher,
        backlog: Backlog,
        stop: CancellationToken,
    ) -> Self {
        Self {
            parts: parts.clone(),
            options,
            dispatcher,
            slots: Arc::new(Semaphore::new(options.slots)),
            backlog,
            stop,
        }
    }

    /// Runs until stopped. A running claim is finished, and all claimed messages are sent.
    pub(crate) async fn run(self) {
        let mut wakeups = self.parts.coord.wakeups().subscribe(topic::QUEUE);
        let mut round = Round::default();
        let mut broken = Vec::new();
        loop {
            let free = async {
                let permits = self.free_slots().await;
                // With a wrong clock, a lease would end before its send, or last for hours.
                self.parts.coord.clock().right().await;
                permits
            };
            let permits = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                permits = free => permits,
            };
            let Some(permits) = permits else { return };
            match self.step(&mut round, &mut broken, permits).await {
                Ok(true) => {}
                // The subscription keeps wake-ups that arrive while the claim runs.
                Ok(false) => tokio::select! {
                    said = wakeups.gathered() => round = Round::of(said),
                    () = self.parts.coord.clock().sleep(LOOK_AGAIN) => round = Round::default(),
                    () = self.stop.cancelled() => return,
                },
                Err(error) => {
                    tracing::error!(%error, "cannot claim messages");
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
            }
        }
    }

    /// Makes one claim and dispatches the messages. Returns whether to claim again at once.
    ///
    /// `broken` holds the leases of claims that failed. Whether such a claim was committed is unknown, so each one is
    /// taken back before the next claim.
    async fn step(
        &self,
        round: &mut Round,
        broken: &mut Vec<i64>,
        permits: OwnedSemaphorePermit,
    ) -> Result<bool, StoreError> {
        let now = self.parts.coord.clock().now();
        let platform = self.parts.store.platform();
        while let Some(&lease) = broken.last() {
            platform.undo_claim(lease, now).await?;
            broken.pop();
        }
        let request = ClaimRequest {
            slots: permits.num_permits(),
            apps: round.known(permits.num_permits()),
            cursor: std::mem::take(&mut round.cursor),
            lease: rand::random(),
            lease_until: now + self.options.lease,
            shares: self.options.shares,
        };
        let mut batch = platform
            .claim(&request, now)
            .await
            .inspect_err(|_| broken.push(request.lease))?;
        self.dispatcher
            .dispatch(std::mem::take(&mut batch.claimed), permits);
        announce_ends(&self.parts, &batch.ended);
        Ok(round.go_on(&request, batch))
    }

    /// All free slots, once the database takes the outcomes of earlier attempts. A busy worker waits a moment for some
    /// slots, so that claims are batches. If all other sends hang, the worker continues with the free slots.
    async fn free_slots(&self) -> Option<OwnedSemaphorePermit> {
        let few = (self.options.slots / 4).clamp(1, LARGEST_CLAIM);
        let mut permits = self.slots.clone().acquire_owned().await.ok()?;
        if let Ok(more) = u32::try_from(few - 1)
            && let Ok(gathered) =
                tokio::time::timeout(GATHER, self.slots.clone().acquire_many_owned(more)).await
        {
            permits.merge(gathered.ok()?);
        }
        let rest = self
            .slots
            .available_permits()
            .min(LARGEST_CLAIM.saturating_sub(permits.num_permits()));
        if let Ok(rest) = self
            .slots
            .clone()
            .try_acquire_many_owned(u32::try_from(rest).unwrap_or(0))
        {
            permits.merge(rest);
        }
        self.backlog.cleared().await;
        Some(permits)
    }
}

/// The position of a worker in the rotation over the apps.
#[derive(Default)]
struct Round {
    /// The app after which the next claim continues. Empty: at the start.
    cursor: String,
    /// Whether an app that this round has passed may have more messages.
    has_more: bool,
    /// The apps that have messages as of the last look, and until when that list is used.
    known: Option<(Vec<String>, Instant)>,
}

impl Round {
    /// A round over the apps that a wake-up names, or over all apps if the wake-up names none or too many.
    fn of(said: Option<BTreeSet<Arc<str>>>) -> Self {
        let apps = said
            .into_iter()
            .flatten()
            .map(|appid| appid.to_string())
            .collect::<Vec<_>>();
        let named = !apps.is_empty() && apps.len() <= MOST_NAMED && !apps.contains(&String::new());
        Self {
            known: named.then(|| (apps, Instant::now() + BELIEVED)),
            ..Self::default()
        }
    }

    /// The apps of the next claim: at most `slots`, so that each app gets a slot. Empty: the claim looks for apps
    /// itself.
    fn known(&mut self, slots: usize) -> Vec<String> {
        match self.known.take() {
            Some((apps, until)) if apps.len() <= slots && Instant::now() < until => {
                self.known = Some((apps.clone(), until));
                apps
            }
            _ => Vec::new(),
        }
    }

    /// Takes in the result of a claim. Returns whether to claim again at once: within a round, for the next apps; at
    /// the end of a round, if some app may have more messages.
    fn go_on(&mut self, request: &ClaimRequest, found: ClaimBatch) -> bool {
        self.has_more |= found.more;
        self.cursor = found.cursor;
        if !self.cursor.is_empty() {
            return true;
        }
        let whole = request.cursor.is_empty() && request.apps.is_empty();
        if whole && found.more {
            self.known = Some((found.apps, Instant::now() + BELIEVED));
        }
        std::mem::take(&mut self.has_more)
    }
}
