//! The desk where consequences are handed in: all that wait at one moment are carried out in one transaction.

use std::{collections::HashSet, time::Duration};

use domain::lifecycle::Status;
use store::{HeardEvent, HeardNews, NewReceipt, Settled, StoreError};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{CallbackError, Consequence};
use crate::{engine::Parts, topic, waiters::ended_payload};

/// How many callbacks may wait for a transaction before more are turned away.
const WAITING: usize = 4096;
/// How many callbacks one transaction takes.
const BATCH: usize = 512;
/// How long a callback waits for room. WeChat waits for five seconds altogether.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a callback came to, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It counted.
    Taken,
    /// It had counted before.
    Repeated,
    /// It means nothing here.
    Ignored,
}

impl Outcome {
    /// The word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Repeated => "repeated",
            Self::Ignored => "ignored",
        }
    }
}

type Answer = oneshot::Sender<Result<Outcome, CallbackError>>;

/// The desk.
pub(super) struct Desk(mpsc::Sender<(Consequence, Answer)>);

/// The task behind the desk.
pub(crate) struct DeskLoop {
    waiting: mpsc::Receiver<(Consequence, Answer)>,
    parts: Parts,
    stop: CancellationToken,
}

impl Desk {
    pub(super) fn new(parts: Parts, stop: CancellationToken) -> (Self, DeskLoop) {
        let (sender, waiting) = mpsc::channel(WAITING);
        let desk_loop = DeskLoop {
            waiting,
            parts,
            stop,
        };
        (Self(sender), desk_loop)
    }

    /// Returns when the consequence is in the database.
    pub(super) async fn take(&self, consequence: Consequence) -> Result<Outcome, CallbackError> {
        if consequence == Consequence::Nothing {
            return Ok(Outcome::Ignored);
        }
        let overloaded = || {
            CallbackError::Unavailable(
                "more callbacks are waiting than the database can take".to_owned(),
            )
        };
        let (answer, answered) = oneshot::channel();
        self.0
            .send_timeout((consequence, answer), PATIENCE)
            .await
            .map_err(|_| overloaded())?;
        answered.await.map_err(|_| overloaded())?
    }
}

impl DeskLoop {
    /// Runs until it is stopped and has answered everybody who waited by then.
    pub(crate) async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                () = self.stop.cancelled(), if !self.waiting.is_closed() => self.waiting.close(),
                taken = self.waiting.recv_many(&mut batch, BATCH) => {
                    if taken == 0 {
                        return;
                    }
                    self.carry_out(std::mem::take(&mut batch)).await;
                }
            }
        }
    }

    async fn carry_out(&self, batch: Vec<(Consequence, Answer)>) {
        let (consequences, answers): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        let outcomes: Vec<Result<Outcome, CallbackError>> = match self.take_in(&consequences).await
        {
            Ok(outcomes) => outcomes.into_iter().map(Ok).collect(),
            // One that the database refuses must not take the others with it.
            Err(StoreError::Broken(error)) if consequences.len() > 1 => {
                tracing::error!(error, "cannot take callbacks; taking them one by one");
                let mut outcomes = Vec::with_capacity(consequences.len());
                for consequence in &consequences {
                    let alone = self.take_in(std::slice::from_ref(consequence)).await;
                    outcomes.push(alone.map(|alone| alone[0]).map_err(CallbackError::from));
                }
                outcomes
            }
            Err(error) => {
                tracing::error!(%error, callbacks = consequences.len(), "cannot take callbacks; WeChat will repeat them");
                let refusal = CallbackError::from(error);
                consequences.iter().map(|_| Err(refusal.clone())).collect()
            }
        };
        for (answer, outcome) in answers.into_iter().zip(outcomes) {
            // Fails when WeChat has hung up: what it said is in the database all the same.
            let _ = answer.send(outcome);
        }
    }

    /// Carries out all consequences; says what each came to.
    async fn take_in(&self, consequences: &[Consequence]) -> Result<Vec<Outcome>, StoreError> {
        let now = self.parts.coord.clock().now();
        let platform = self.parts.store.platform();
        let receipts: Vec<NewReceipt> = consequences.iter().flat_map(receipts).cloned().collect();
        let settled = platform.receive(&receipts, now).await?;
        announce(&self.parts, &settled);
        let news: Vec<HeardNews> = consequences
            .iter()
            .filter_map(subscriptions)
            .cloned()
            .collect();
        let mut fresh = platform.remember_events(&news, now).await?;
        Ok(consequences
            .iter()
            .map(|consequence| outcome(consequence, &mut fresh))
            .collect())
    }
}

fn receipts(consequence: &Consequence) -> &[NewReceipt] {
    match consequence {
        Consequence::Receipts(receipts) => receipts,
        Consequence::Subscriptions(_) | Consequence::Nothing => &[],
    }
}

fn subscriptions(consequence: &Consequence) -> Option<&HeardNews> {
    match consequence {
        Consequence::Subscriptions(news) => Some(news),
        Consequence::Receipts(_) | Consequence::Nothing => None,
    }
}

/// An event that came twice in one batch counts at its first place.
fn outcome(consequence: &Consequence, fresh: &mut HashSet<HeardEvent>) -> Outcome {
    match consequence {
        Consequence::Receipts(_) => Outcome::Taken,
        Consequence::Subscriptions(news) if fresh.remove(&news.event) => Outcome::Taken,
        Consequence::Subscriptions(_) => Outcome::Repeated,
        Consequence::Nothing => Outcome::Ignored,
    }
}

/// Tells whom it concerns that messages were settled.
pub(crate) fn announce(parts: &Parts, settled: &[Settled]) {
    for status in [Status::Delivered, Status::Undelivered] {
        let count = settled.iter().filter(|one| one.status == status).count();
        parts.metrics.settled(status, count);
    }
    if !settled.is_empty() {
        parts.coord.wakeups().wake(
            topic::ENDED,
            &ended_payload(settled.iter().map(|one| one.id)),
        );
    }
}
