//! Operations of callers that wait for the end of a message, and the effect of a stop on these callers.

use std::time::Duration;

use domain::{
    app::AppId,
    id::{MessageId, TenantId},
    message::Draft,
};
use store::Message;
use tokio::sync::oneshot;

use super::Delivery;
use crate::{
    error::DeliveryError,
    submit::{Attended, SubmitError},
    waiters::Waiter,
};

impl Delivery {
    /// Accepts a message that is to be sent only while the caller waits for its end, at most `at_most`. When the caller
    /// drops this future, the message is canceled unless the send has begun.
    pub async fn submit_attended(
        &self,
        tenant: TenantId,
        appid: &AppId,
        draft: Draft,
        at_most: Duration,
    ) -> Result<Attended, SubmitError> {
        let (mut sender, answer) = oneshot::channel();
        let (delivery, appid) = (self.clone(), appid.clone());
        self.0.tasks.spawn(async move {
            let accepted = delivery.submit(tenant, &appid, draft, None).await;
            let id = match accepted {
                Ok(accepted) => accepted.message.id,
                Err(refused) => return drop(sender.send(Err(refused))),
            };
            tokio::select! {
                message = delivery.attend(tenant, id, at_most) => drop(sender.send(Ok(Attended { id, message }))),
                () = sender.closed() => delivery.call_back(tenant, id).await,
            }
        });
        let gone = |_| SubmitError::Unavailable("the gateway stops".to_owned());
        answer.await.unwrap_or_else(|closed| Err(gone(closed)))
    }

    /// Waits until the message has ended. When the gateway stops first, the message is canceled. A message that is in
    /// flight by then is waited for as long as the stop permits.
    async fn attend(
        &self,
        tenant: TenantId,
        id: MessageId,
        at_most: Duration,
    ) -> Result<Message, DeliveryError> {
        let message = self.wait(tenant, id, at_most, Waiter::Attending).await?;
        let Some(left) = self.0.waiters.last_wait() else {
            return Ok(message);
        };
        // Two rounds: a message in flight may come back for a retry later, and the second round cancels that retry.
        for at_most in [left, Duration::ZERO] {
            if let Ok(canceled) = self.cancel(tenant, id).await {
                return Ok(canceled);
            }
            let message = self.wait(tenant, id, at_most, Waiter::Last).await?;
            if message.status.is_end() || at_most.is_zero() {
                return Ok(message);
            }
        }
        Ok(message)
    }

    async fn call_back(&self, tenant: TenantId, id: MessageId) {
        match self.cancel(tenant, id).await {
            Ok(_) => {
                tracing::debug!(%id, "canceled a message, because its caller has disconnected");
            }
            Err(error) => {
                tracing::debug!(%id, %error, "cannot cancel a message whose caller has disconnected");
            }
        }
    }

    /// The message as soon as it has ended, `at_most` is over, or the gateway begins to stop.
    pub async fn wait_ended(
        &self,
        tenant: TenantId,
        id: MessageId,
        at_most: Duration,
    ) -> Result<Message, DeliveryError> {
        self.wait(tenant, id, at_most, Waiter::Patient).await
    }

    async fn wait(
        &self,
        tenant: TenantId,
        id: MessageId,
        at_most: Duration,
        waiter: Waiter,
    ) -> Result<Message, DeliveryError> {
        let message = self.0.waiters.wait(tenant, id, at_most, waiter).await?;
        message.ok_or(DeliveryError::NotFound("message"))
    }

    /// First part of a stop: every waiting caller that can ask again gets the message as it is. All else goes on.
    pub fn dismiss_waiters(&self) {
        self.0.waiters.dismiss();
    }

    /// Second part of a stop: no more requests come, so the callers that cannot ask again stop waiting too. Their
    /// messages are canceled; messages in flight are waited for, at most `at_most`.
    pub fn dismiss_attending(&self, at_most: Duration) {
        self.0.waiters.dismiss_attending(at_most);
    }
}
