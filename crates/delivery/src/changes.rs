//! Changes: what a tenant does with a message after it was accepted.

use domain::{
    id::{MessageId, TenantId},
    lifecycle::ImpossibleEvent,
    quota::PriorityShares,
};
use store::{Canceled, IdempotencyKey, Message, Retried, StoreError};

use crate::{
    parts::Parts,
    submit::{Accepted, SubmitError},
    topic,
    waiters::ended_payload,
};

/// Why a message was not changed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ChangeError {
    /// The tenant has no such message.
    #[error("there is no such message")]
    NotFound,
    /// The status of the message does not permit the change.
    #[error(transparent)]
    Refused(ImpossibleEvent),
    /// The content of the message has been deleted.
    #[error("the content of the message has been deleted")]
    Emptied,
    /// The message would not be accepted.
    #[error(transparent)]
    Submit(SubmitError),
}

impl From<StoreError> for ChangeError {
    fn from(error: StoreError) -> Self {
        Self::Submit(error.into())
    }
}

/// Makes the changes, and wakes the tasks concerned.
pub(crate) struct Changes {
    parts: Parts,
    shares: PriorityShares,
}

impl Changes {
    pub(crate) fn new(parts: Parts, shares: PriorityShares) -> Self {
        Self { parts, shares }
    }

    pub(crate) async fn cancel(
        &self,
        tenant: TenantId,
        id: MessageId,
    ) -> Result<Message, ChangeError> {
        let now = self.parts.coord.clock().now();
        match self.parts.store.tenant(tenant).cancel(id, now).await? {
            Canceled::Now { message, released } => {
                self.parts.metrics.ended(message.status, 1);
                let wakeups = self.parts.coord.wakeups();
                wakeups.wake(topic::ENDED, &ended_payload([id].into_iter()));
                if released {
                    wakeups.wake(topic::QUEUE, "");
                }
                Ok(message)
            }
            Canceled::Before(message) => Ok(message),
            Canceled::Refused(refusal) => Err(ChangeError::Refused(refusal)),
            Canceled::NoSuchMessage => Err(ChangeError::NotFound),
        }
    }

    pub(crate) async fn retry(
        &self,
        tenant: TenantId,
        id: MessageId,
        key: Option<IdempotencyKey>,
    ) -> Result<Accepted, ChangeError> {
        let now = self.parts.coord.clock().now();
        let door = self.parts.store.tenant(tenant);
        let (message, replayed) = match door.retry(id, key.as_ref(), self.shares, now).await? {
            Retried::Queued(message) => (message, false),
            Retried::Replayed(message) => (message, true),
            Retried::Refused(refusal) => return Err(ChangeError::Refused(refusal)),
            Retried::NotTaken(refused) => return Err(ChangeError::Submit(refused.into())),
            Retried::KeyReused => return Err(ChangeError::Submit(SubmitError::KeyReused)),
            Retried::NoSuchApp => return Err(ChangeError::Submit(SubmitError::NoSuchApp)),
            Retried::Emptied => return Err(ChangeError::Emptied),
            Retried::NoSuchMessage => return Err(ChangeError::NotFound),
        };
        if !replayed {
            self.parts.coord.wakeups().wake(topic::QUEUE, "");
        }
        Ok(Accepted { message, replayed })
    }
}
