//! Intake: accepts messages, all that wait at one moment in one transaction.
//!
//! Two tasks accept requests: one for small requests and one for large batches, so that a message does not wait for the
//! transaction of a thousand others. Each task serves the tenants in rotation: see [`TenantQueues`].

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use coord::Clock;
use domain::{
    app::AppId,
    id::{Sequence, TenantId},
    lifecycle::Status,
    message::Draft,
    quota::PriorityShares,
};
use store::{
    BatchEntry, FirstAnswer, IdempotencyKey, NewMessage, Received, Store, StoreError, Submission,
    SubmissionBody, Taken,
};
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use crate::{
    metrics::DeliveryMetrics,
    parts::Parts,
    submit::{Accepted, AcceptedBatch, BatchItem, SubmitError, results},
    tenant_queues::{
        BatchLimits, QueuedItem, TenantQueueReader, TenantQueues, WaitingLimits, lines,
    },
    topic,
};

/// How many messages may wait for a transaction before more are refused: of one tenant, of all tenants together, and
/// the number that each tenant may always have waiting.
const ROOM: WaitingLimits = WaitingLimits {
    each: 4096,
    all: 32_768,
    always: 1000,
};
/// The number of messages from which a transaction takes no further request, and the share of one tenant in a turn.
const TAKE: BatchLimits = BatchLimits {
    most: 512,
    share: 64,
};
/// The number of messages from which a request is a large one.
const LARGE: usize = TAKE.share + 1;
/// How long a request waits for capacity, and the `retry_after` of a request that got none.
const PATIENCE: Duration = Duration::from_secs(1);

/// Up to this number of apps, each app gets a wake-up of its own.
const FEW_APPS: usize = 4;

/// A submission and the channel for its answer.
struct QueuedSubmission {
    submission: Submission,
    answer: oneshot::Sender<IntakeReply>,
}

/// The submission comes back with its result.
type IntakeReply = Result<(Submission, Taken), SubmitError>;

/// The entry for submissions.
pub(crate) struct Intake {
    /// Requests of fewer than [`LARGE`] messages.
    small: TenantQueues<QueuedSubmission>,
    /// Requests of [`LARGE`] messages or more.
    large: TenantQueues<QueuedSubmission>,
    clock: Clock,
    store: Store,
    ids: Sequence,
}

/// A batch writer of intake.
pub(crate) struct IntakeLoop {
    waiting: TenantQueueReader<QueuedSubmission>,
    parts: Parts,
    shares: PriorityShares,
    due: Arc<Notify>,
    stop: CancellationToken,
}

impl Intake {
    pub(crate) fn new(
        parts: &Parts,
        shares: PriorityShares,
        due: &Arc<Notify>,
        stop: &CancellationToken,
    ) -> (Self, [IntakeLoop; 2]) {
        let [(small, few), (large, many)] = [lines(ROOM), lines(ROOM)];
        let loops = [few, many].map(|waiting| IntakeLoop {
            waiting,
            parts: parts.clone(),
            shares,
            due: due.clone(),
            stop: stop.clone(),
        });
        let intake = Self {
            small,
            large,
            clock: parts.coord.clock().clone(),
            store: parts.store.clone(),
            ids: Sequence::default(),
        };
        (intake, loops)
    }

    pub(crate) async fn submit(
        &self,
        tenant: TenantId,
        appid: &AppId,
        draft: Draft,
        key: Option<IdempotencyKey>,
    ) -> Result<Accepted, SubmitError> {
        let received_at = self.clock.now();
        let new = NewMessage {
            id: self.ids.id(received_at, rand::random()),
            tenant,
            appid: appid.clone(),
            draft,
            received_at,
        };
        let submission = Submission {
            tenant,
            appid: appid.clone(),
            key,
            received_at,
            load: SubmissionBody::One(Box::new(new)),
        };
        let (submission, taken) = self.hand_in(submission).await?;
        let SubmissionBody::One(new) = submission.load else {
            return Err(changed());
        };
        match taken {
            Taken::Fresh(received) => match received[..] {
                [Received::Stored] => Ok(Accepted {
                    message: new.accepted(),
                    replayed: false,
                }),
                [refused] => Err(refused.into()),
                _ => Err(changed()),
            },
            Taken::Replayed(FirstAnswer::One { id, received_at }) => Ok(Accepted {
                message: NewMessage {
                    id,
                    received_at,
                    ..*new
                }
                .accepted(),
                replayed: true,
            }),
            other => Err(refused(&other)),
        }
    }

    pub(crate) async fn submit_batch(
        &self,
        tenant: TenantId,
        appid: &AppId,
        items: Vec<BatchItem>,
        key: Option<IdempotencyKey>,
    ) -> Result<AcceptedBatch, SubmitError> {
        let received_at = self.clock.now();
        let misfits = items
            .iter()
            .any(|item| matches!(item, BatchItem::Misfit(..)));
        let repeated = match &key {
            Some(key) if misfits => {
                let door = self.store.tenant(tenant);
                door.knows_key(key, received_at).await?
            }
            _ => false,
        };
        let entries = items.into_iter().map(|item| match item {
            BatchItem::Misfit(_, words) if !repeated => BatchEntry::Unfit(words),
            BatchItem::Unfit(words) => BatchEntry::Unfit(words),
            BatchItem::Draft(draft) | BatchItem::Misfit(draft, _) => {
                BatchEntry::Message(Box::new(NewMessage {
                    id: self.ids.id(received_at, rand::random()),
                    tenant,
                    appid: appid.clone(),
                    draft: *draft,
                    received_at,
                }))
            }
        });
        let submission = Submission {
            tenant,
            appid: appid.clone(),
            key,
            received_at,
            load: SubmissionBody::Batch(entries.collect()),
        };
        let (submission, taken) = self.hand_in(submission).await?;
        let SubmissionBody::Batch(entries) = submission.load else {
            return Err(changed());
        };
        match taken {
            Taken::Fresh(received) => Ok(AcceptedBatch {
                results: results::fresh(entries, received),
                replayed: false,
            }),
            Taken::Replayed(FirstAnswer::Batch {
                entries: first,
                received_at,
            }) => Ok(AcceptedBatch {
                results: results::replayed(entries, first, received_at),
                replayed: true,
            }),
            other => Err(refused(&other)),
        }
    }

    /// Waits for capacity, then for the transaction that accepts the submission.
    async fn hand_in(&self, submission: Submission) -> IntakeReply {
        let overloaded = || SubmitError::Overloaded {
            retry_after: PATIENCE,
        };
        let messages = submission.messages().count();
        let lines = if messages < LARGE {
            &self.small
        } else {
            &self.large
        };
        let tenant = submission.tenant;
        let (answer, answered) = oneshot::channel();
        let request = QueuedSubmission { submission, answer };
        let entered = lines.enter(tenant, messages, PATIENCE, request).await;
        entered.map_err(|_| overloaded())?;
        answered.await.map_err(|_| overloaded())?
    }
}

impl IntakeLoop {
    /// Runs until stopped, and then until all requests that were handed in are answered.
    pub(crate) async fn run(self) {
        let closing = async {
            self.stop.cancelled().await;
            self.waiting.close();
        };
        let serving = async {
            while let Some(mut batch) = self.waiting.next(TAKE).await {
                while !batch.is_empty() {
                    batch = self.accept(batch).await;
                }
            }
        };
        tokio::join!(closing, serving);
    }

    /// Accepts and answers a batch. Returns the requests whose idempotency key another request of the batch had:
    /// these requests need another transaction.
    async fn accept(
        &self,
        batch: Vec<QueuedItem<QueuedSubmission>>,
    ) -> Vec<QueuedItem<QueuedSubmission>> {
        let mut submissions = Vec::with_capacity(batch.len());
        let mut callers = Vec::with_capacity(batch.len());
        for QueuedItem { item, place } in batch {
            submissions.push(item.submission);
            callers.push((item.answer, place));
        }
        let taken = self.take_all_in(&submissions).await;
        let mut again = Vec::new();
        for ((submission, (answer, place)), taken) in
            submissions.into_iter().zip(callers).zip(taken)
        {
            match taken {
                Ok(Taken::Twin) => again.push(QueuedItem {
                    item: QueuedSubmission { submission, answer },
                    place,
                }),
                // Fails when the caller has gone. The message is in the queue nevertheless.
                taken => drop(answer.send(taken.map(|taken| (submission, taken)))),
            }
        }
        again
    }

    async fn take_all_in(&self, submissions: &[Submission]) -> Vec<Result<Taken, SubmitError>> {
        match self.take_in(submissions).await {
            Ok(taken) => taken.into_iter().map(Ok).collect(),
            // A submission that the database refuses must not fail the others.
            Err(StoreError::Broken(error)) if submissions.len() > 1 => {
                tracing::error!(
                    error,
                    "cannot accept a batch; accepting its requests one by one"
                );
                let mut taken = Vec::with_capacity(submissions.len());
                for submission in submissions {
                    let alone = self.take_in(std::slice::from_ref(submission)).await;
                    taken.push(match alone {
                        Ok(mut alone) => alone.pop().ok_or_else(changed),
                        Err(error) => Err(error.into()),
                    });
                }
                taken
            }
            Err(error) => {
                tracing::error!(%error, requests = submissions.len(), "cannot accept messages");
                let refusal = SubmitError::from(error);
                submissions.iter().map(|_| Err(refusal.clone())).collect()
            }
        }
    }

    async fn take_in(&self, submissions: &[Submission]) -> Result<Vec<Taken>, StoreError> {
        let now = self.parts.coord.clock().now();
        let platform = self.parts.store.platform();
        let taken = platform.intake(submissions, self.shares, now).await?;
        self.announce(submissions, &taken);
        Ok(taken)
    }

    fn announce(&self, submissions: &[Submission], taken: &[Taken]) {
        let stored = || {
            submissions
                .iter()
                .zip(taken)
                .flat_map(|(submission, taken)| submission.stored(taken))
        };
        self.parts.metrics.accepted(stored().count());
        let ready = stored().filter(|new| new.starts_as() == Status::Queued);
        let apps: BTreeSet<&str> = ready.map(|new| new.appid.as_str()).collect();
        let wakeups = self.parts.coord.wakeups();
        match apps.len() {
            0..=FEW_APPS => apps
                .into_iter()
                .for_each(|appid| wakeups.wake(topic::QUEUE, appid)),
            _ => wakeups.wake(topic::QUEUE, ""),
        }
        if stored().any(|new| new.starts_as() == Status::Scheduled) {
            self.due.notify_one();
        }
    }
}

/// Why a submission as a whole was not accepted.
fn refused(taken: &Taken) -> SubmitError {
    match taken {
        Taken::NoSuchApp => SubmitError::NoSuchApp,
        // The fingerprint covers the path, so an answer of another kind belongs to another request.
        Taken::KeyReused | Taken::Replayed(_) => SubmitError::KeyReused,
        Taken::Fresh(_) | Taken::Twin => changed(),
    }
}

fn changed() -> SubmitError {
    SubmitError::Broken("intake answered about another request: this is a defect".into())
}

impl DeliveryMetrics {
    fn accepted(&self, count: usize) {
        self.accepted.inc_by(count as u64);
    }
}
