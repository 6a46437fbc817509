//! The verbs of those who wait for the end of a message, and what a stop means to them.

use std::time::Duration;

use domain::{
    app::AppId,
    id::{MessageId, TenantId},
    message::Draft,
};
use store::Message;
use tokio::sync::oneshot;

use super::{Delivery, DeliveryError};
use crate::{
    submit::{Attended, SubmitError},
    waiters::Waiter,
};

impl Delivery {
    /// Accepts a message of somebody who waits for its end, at most so long, and wants it sent only while they wait:
    /// when this is dropped before, the message is called back, unless it has left.
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

    /// The message when it has ended. When the gateway stops before, the message is called back; one that has left by then
    /// is waited for as long as the stop permits.
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
        // Not once: a send that is under way may come back to be tried again later.
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
            Ok(_) => tracing::debug!(%id, "a message is called back whose sender has gone"),
            Err(error) => tracing::debug!(%id, %error, "the sender of a message has gone"),
        }
    }

    /// The message as it is when it has ended, when `at_most` is over, or when the gateway begins to stop.
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

    /// The first part of a stop: whoever waits for the end of a message, and can ask for it again, gets the message as it is.
    /// Everything else goes on.
    pub fn dismiss_waiters(&self) {
        self.0.waiters.dismiss();
    }

    /// The second part: no requests come any more, so those wait no more either that cannot ask again.
    /// Their messages are called back; those that have left are waited for, at most so long.
    pub fn dismiss_attending(&self, at_most: Duration) {
        self.0.waiters.call_last(at_most);
    }
}
