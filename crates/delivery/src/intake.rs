//! Intake: accepts messages, all that wait at one moment in one transaction.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use coord::Clock;
use domain::{
    app::{AppId, AppKind},
    id::{self, MessageId, TenantId},
    lifecycle::Status,
    message::Draft,
    quota::Shares,
    violation::Violation,
};
use store::{IdempotencyKey, Message, NewMessage, Received, Store, StoreError};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::{engine::Parts, metrics::Metrics, topic};

/// How many requests may wait for a transaction before more are turned away.
const WAITING: usize = 4096;
/// How many messages one transaction takes.
const BATCH: usize = 512;
/// How long a request waits for room, and what one that found none is told.
const PATIENCE: Duration = Duration::from_secs(1);

/// A message that has been accepted.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The message; of a replay, as it is now.
    pub message: Message,
    /// Whether its idempotency key had been used for it before.
    pub replayed: bool,
}

/// Why a message was not accepted.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SubmitError {
    /// The tenant has no such app.
    #[error("there is no such app")]
    NoSuchApp,
    /// The message cannot be sent as it is.
    #[error("the message has {} fields that are wrong", .0.len())]
    Violations(Vec<Violation>),
    /// The day's quota is spent and the message would expire before the next day.
    #[error(
        "the app's quota for today is spent, and the message would expire before the next day begins"
    )]
    QuotaExhausted {
        /// When the next day begins.
        reset_at: DateTime<Utc>,
    },
    /// The idempotency key stands for another request.
    #[error("this Idempotency-Key was used for another request within the last 24 hours")]
    KeyReused,
    /// More requests wait than the database can take.
    #[error("more messages are waiting than the database can take")]
    Overloaded {
        /// When to try again.
        retry_after: Duration,
    },
    /// The database does not answer.
    #[error("{0}")]
    Unavailable(String),
    /// The database answers what it should not.
    #[error("{0}")]
    Broken(String),
}

impl From<StoreError> for SubmitError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => Self::Unavailable(error.to_string()),
            _ => Self::Broken(error.to_string()),
        }
    }
}

struct Waiting {
    new: NewMessage,
    answer: oneshot::Sender<Result<Received, SubmitError>>,
}

/// The desk where messages are handed in.
pub(crate) struct Intake {
    waiting: mpsc::Sender<Waiting>,
    store: Store,
    clock: Clock,
}

/// The task behind the desk.
pub(crate) struct IntakeLoop {
    waiting: mpsc::Receiver<Waiting>,
    parts: Parts,
    shares: Shares,
    due: Arc<Notify>,
    stop: CancellationToken,
}

impl Intake {
    pub(crate) fn new(
        parts: Parts,
        shares: Shares,
        due: Arc<Notify>,
        stop: CancellationToken,
    ) -> (Self, IntakeLoop) {
        let (sender, waiting) = mpsc::channel(WAITING);
        let desk = Self {
            waiting: sender,
            store: parts.store.clone(),
            clock: parts.coord.clock().clone(),
        };
        (
            desk,
            IntakeLoop {
                waiting,
                parts,
                shares,
                due,
                stop,
            },
        )
    }

    pub(crate) async fn submit(
        &self,
        tenant: TenantId,
        appid: &AppId,
        draft: Draft,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<Accepted, SubmitError> {
        let received_at = self.clock.now();
        let id = id::new(received_at, sequence(), rand::random());
        let new = NewMessage {
            id,
            tenant,
            appid: appid.clone(),
            draft,
            idempotency,
            received_at,
        };
        let (answer, answered) = oneshot::channel();
        let overloaded = || SubmitError::Overloaded {
            retry_after: PATIENCE,
        };
        let waiting = Waiting {
            new: new.clone(),
            answer,
        };
        self.waiting
            .send_timeout(waiting, PATIENCE)
            .await
            .map_err(|_| overloaded())?;
        match answered.await.map_err(|_| overloaded())?? {
            Received::Stored => Ok(Accepted {
                message: new.accepted(),
                replayed: false,
            }),
            Received::Replayed(id) => self.replay(tenant, id).await,
            Received::KeyReused => Err(SubmitError::KeyReused),
            Received::NoSuchApp => Err(SubmitError::NoSuchApp),
            Received::WrongKind(kind) => Err(SubmitError::Violations(vec![wrong_kind(kind)])),
            Received::QuotaExhausted { reset_at } => Err(SubmitError::QuotaExhausted { reset_at }),
        }
    }

    async fn replay(&self, tenant: TenantId, id: MessageId) -> Result<Accepted, SubmitError> {
        match self.store.tenant(tenant).message(id).await {
            Ok(Some(message)) => Ok(Accepted {
                message,
                replayed: true,
            }),
            // The message is gone before its key: it was old, so the key is free for another.
            Ok(None) => Err(SubmitError::KeyReused),
            Err(error) => Err(error.into()),
        }
    }
}

impl IntakeLoop {
    /// Runs until it is stopped and has answered everybody who had handed in a message by then.
    pub(crate) async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                () = self.stop.cancelled(), if !self.waiting.is_closed() => self.waiting.close(),
                taken = self.waiting.recv_many(&mut batch, BATCH) => {
                    if taken == 0 {
                        return;
                    }
                    self.accept(std::mem::take(&mut batch)).await;
                }
            }
        }
    }

    async fn accept(&self, batch: Vec<Waiting>) {
        let (news, answers): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .map(|waiting| (waiting.new, waiting.answer))
            .unzip();
        let received: Vec<Result<Received, SubmitError>> = match self.take_in(&news).await {
            Ok(received) => received.into_iter().map(Ok).collect(),
            // One that the database refuses must not take the others with it.
            Err(StoreError::Broken(error)) if news.len() > 1 => {
                tracing::error!(
                    error,
                    "cannot accept a batch; accepting its messages one by one"
                );
                let mut received = Vec::with_capacity(news.len());
                for new in &news {
                    let alone = self.take_in(std::slice::from_ref(new)).await;
                    received.push(alone.map(|alone| alone[0]).map_err(SubmitError::from));
                }
                received
            }
            Err(error) => {
                tracing::error!(%error, messages = news.len(), "cannot accept messages");
                let refusal = SubmitError::from(error);
                news.iter().map(|_| Err(refusal.clone())).collect()
            }
        };
        for (answer, received) in answers.into_iter().zip(received) {
            // Fails when the caller has gone: its message is in the queue all the same.
            let _ = answer.send(received);
        }
    }

    async fn take_in(&self, news: &[NewMessage]) -> Result<Vec<Received>, StoreError> {
        let now = self.parts.coord.clock().now();
        let platform = self.parts.store.platform();
        let received = platform.intake(news, self.shares, now).await?;
        self.announce(news, &received);
        Ok(received)
    }

    fn announce(&self, news: &[NewMessage], received: &[Received]) {
        let stored = || {
            news.iter()
                .zip(received)
                .filter(|(new, r)| **r == Received::Stored && !new.draft.dry_run)
        };
        self.parts.metrics.accepted(stored().count());
        if stored().any(|(new, _)| new.starts_as() == Status::Queued) {
            self.parts.coord.wakeups().wake(topic::QUEUE, "");
        }
        if stored().any(|(new, _)| new.starts_as() == Status::Scheduled) {
            self.due.notify_one();
        }
    }
}

fn wrong_kind(kind: AppKind) -> Violation {
    let detail = match kind {
        AppKind::MiniProgram => {
            "the app is a mini-program: send on channel `subscribe` or `template`"
        }
        AppKind::OfficialAccount => "the app is an official account: send on channel `official`",
    };
    Violation::new("/channel", detail)
}

/// Keeps the ids of one process in order within a millisecond.
fn sequence() -> u16 {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed) % id::SEQUENCE_LIMIT
}

impl Metrics {
    fn accepted(&self, count: usize) {
        self.accepted.inc_by(count as u64);
    }
}
