//! Webhooks: the endpoints of tenants, and the events about each message for these endpoints.

mod address;
mod announcer;
mod client;
mod settings;
mod signature;
mod slots;

use chrono::{DateTime, Utc};
use coord::Coord;
use domain::{
    id::{self, EventId, TenantId, WebhookId},
    seal::{MasterKey, SealOwner},
    secret::WebhookSecret,
    violation::Violation,
    webhook::{EventType, PREVIOUS_SECRET_LIFE},
};
use store::{
    AppEvent, DeliveryStatus, Keep, Listing, NewWebhook, Origin, Page, Store, StoreError, Swept,
    TenantStore, Webhook, WebhookDelivery,
};

pub(crate) use self::announcer::Announcer;
pub use self::settings::WebhookSettings;
use self::settings::changes;
use crate::topic;

/// How many endpoints a tenant may have.
const MOST: u64 = 20;

/// Why a request about webhooks is refused.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The tenant has no item of this kind and id.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// Fields that are wrong.
    #[error("{} fields are wrong", .0.len())]
    Invalid(Vec<Violation>),
    /// The tenant has the maximum number of endpoints.
    #[error("a tenant has at most {MOST} webhooks: remove a webhook that is not needed")]
    TooMany,
    /// A disabled endpoint gets no events.
    #[error("the webhook is disabled: set its status to enabled first")]
    Disabled,
    /// The database failed.
    #[error(transparent)]
    Store(StoreError),
}

impl From<Vec<Violation>> for WebhookError {
    fn from(violations: Vec<Violation>) -> Self {
        Self::Invalid(violations)
    }
}

impl From<StoreError> for WebhookError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound(what) => Self::NotFound(what),
            other => Self::Store(other),
        }
    }
}

/// Manages the endpoints of tenants. Cheap to clone.
#[derive(Clone)]
pub struct Webhooks {
    store: Store,
    coord: Coord,
    master_key: MasterKey,
    allow_private: bool,
    origin: Origin,
}

impl std::fmt::Debug for Webhooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhooks")
            .field("allow_private", &self.allow_private)
            .finish_non_exhaustive()
    }
}

impl Webhooks {
    pub(crate) fn new(
        store: Store,
        coord: Coord,
        master_key: MasterKey,
        allow_private: bool,
    ) -> Self {
        Self {
            store,
            coord,
            master_key,
            allow_private,
            origin: Origin::GATEWAY,
        }
    }

    /// The same, on behalf of `origin`: the audit log names `origin` for each change.
    #[must_use]
    pub fn by(&self, origin: Origin) -> Self {
        Self {
            origin,
            ..self.clone()
        }
    }

    /// Creates an endpoint. The secret is shown only here.
    pub async fn create(
        &self,
        tenant: TenantId,
        settings: WebhookSettings,
        keep: Keep<(Webhook, WebhookSecret)>,
    ) -> Result<(Webhook, WebhookSecret), WebhookError> {
        let checked = settings.check(self.allow_private)?;
        let words = changes(&checked);
        let mut missing = Vec::new();
        for (pointer, is_there) in [
            ("/url", checked.url.is_some()),
            ("/events", checked.events.is_some()),
        ] {
            if !is_there {
                missing.push(Violation::new(pointer, "required"));
            }
        }
        let (Some(url), Some(events)) = (checked.url, checked.events) else {
            return Err(missing.into());
        };
        let door = self.store.tenant(tenant);
        let now = self.coord.clock().now();
        let id = id::new(now, 0, rand::random());
        let (secret, secret_sealed) = self.new_secret(tenant, id);
        let new = NewWebhook {
            id,
            url,
            events,
            description: checked.description.flatten(),
            secret_sealed,
        };
        let made = (new.made(tenant, now), secret);
        let line = self.origin.did("webhook.create", &id).saying(words);
        let door = door.with_audit_line(line).with_answer(keep.answer(&made));
        match door.create_webhook(new, MOST, now).await? {
            Some(_) => Ok(made),
            None => Err(WebhookError::TooMany),
        }
    }

    /// The tenant's endpoints, newest first.
    pub async fn list(
        &self,
        tenant: TenantId,
        page: &Page,
    ) -> Result<Listing<Webhook>, WebhookError> {
        Ok(self.store.tenant(tenant).webhooks(page).await?)
    }

    /// One endpoint of the tenant.
    pub async fn get(&self, tenant: TenantId, id: WebhookId) -> Result<Webhook, WebhookError> {
        Ok(self.store.tenant(tenant).webhook(id).await?)
    }

    /// Changes an endpoint. Enabling resets its failures, disabling ends its pending deliveries.
    pub async fn update(
        &self,
        tenant: TenantId,
        id: WebhookId,
        settings: WebhookSettings,
    ) -> Result<Webhook, WebhookError> {
        let patch = settings.check(self.allow_private)?;
        let now = self.coord.clock().now();
        let line = self.origin.did("webhook.update", &id);
        let door = self.store.tenant(tenant);
        let door = door.with_audit_line(line.saying(changes(&patch)));
        Ok(door.update_webhook(id, patch, now).await?)
    }

    /// Removes an endpoint and its pending deliveries.
    pub async fn remove(&self, tenant: TenantId, id: WebhookId) -> Result<(), WebhookError> {
        let door = self.recording(tenant, "webhook.remove", id);
        let now = self.coord.clock().now();
        Ok(door.remove_webhook(id, now).await?)
    }

    /// Gives an endpoint a new secret, shown only here. For a day, events are signed with both secrets.
    pub async fn rotate_secret(
        &self,
        tenant: TenantId,
        id: WebhookId,
        keep: Keep<(Webhook, WebhookSecret)>,
    ) -> Result<(Webhook, WebhookSecret), WebhookError> {
        let now = self.coord.clock().now();
        let until = now + PREVIOUS_SECRET_LIFE;
        let (secret, sealed) = self.new_secret(tenant, id);
        let door = self.recording(tenant, "webhook.rotate_secret", id);
        let rotated = Webhook {
            previous_secret_until: Some(until),
            updated_at: now,
            ..door.webhook(id).await?
        };
        let rotated = (rotated, secret);
        let door = door.with_answer(keep.answer(&rotated));
        door.rotate_webhook_secret(id, sealed, until, now).await?;
        Ok(rotated)
    }

    /// Sends an endpoint a test event without content, whatever events the endpoint subscribes to. There is one
    /// attempt.
    pub async fn test(
        &self,
        tenant: TenantId,
        id: WebhookId,
        keep: Keep<WebhookDelivery>,
    ) -> Result<WebhookDelivery, WebhookError> {
        self.enabled(tenant, id).await?;
        let now = self.coord.clock().now();
        let event = AppEvent {
            id: id::new(now, 0, rand::random()),
            kind: EventType::WebhookTest,
            data: serde_json::json!({"webhook_id": id.to_string()}),
        };
        let told = WebhookDelivery::pending(id, &event, now);
        let door = self.recording(tenant, "webhook.test", id);
        let door = door.with_answer(keep.answer(&told));
        door.create_delivery(id, &event, now).await?;
        self.wake();
        Ok(told)
    }

    /// The deliveries to an endpoint, newest first.
    pub async fn deliveries(
        &self,
        tenant: TenantId,
        id: WebhookId,
        status: Option<DeliveryStatus>,
        page: &Page,
    ) -> Result<Listing<WebhookDelivery>, WebhookError> {
        let door = self.store.tenant(tenant);
        Ok(door.webhook_deliveries(id, status, page).await?)
    }

    /// Delivers an event to an endpoint again. The attempts start over.
    pub async fn redeliver(
        &self,
        tenant: TenantId,
        id: WebhookId,
        event: EventId,
        keep: Keep<WebhookDelivery>,
    ) -> Result<WebhookDelivery, WebhookError> {
        self.enabled(tenant, id).await?;
        let now = self.coord.clock().now();
        let line = self.origin.did("webhook.redeliver", &id);
        let door = self.store.tenant(tenant);
        let told = door.webhook_delivery(id, event).await?.again(now);
        let door = door.with_audit_line(line.saying(event.to_string()));
        let door = door.with_answer(keep.answer(&told));
        door.redeliver(id, event, now).await?;
        self.wake();
        Ok(told)
    }

    /// Delivers again the failed events from `since` to `until`, the oldest first. Returns the number, and whether
    /// there may be more.
    pub async fn redeliver_failed(
        &self,
        tenant: TenantId,
        id: WebhookId,
        since: DateTime<Utc>,
        until: Option<DateTime<Utc>>,
        keep: Keep<Swept>,
    ) -> Result<Swept, WebhookError> {
        self.enabled(tenant, id).await?;
        let now = self.coord.clock().now();
        let until = until.unwrap_or(now);
        if until <= since {
            let rule = "must be later than `since`";
            return Err(WebhookError::Invalid(vec![Violation::new("/until", rule)]));
        }
        let door = self.recording(tenant, "webhook.redeliver", id);
        let told = door.redeliver_failed(id, since, until, keep, now).await?;
        self.wake();
        Ok(told)
    }

    async fn enabled(&self, tenant: TenantId, id: WebhookId) -> Result<(), WebhookError> {
        let webhook = self.store.tenant(tenant).webhook(id).await?;
        if webhook.enabled {
            Ok(())
        } else {
            Err(WebhookError::Disabled)
        }
    }

    /// The tenant's store, whose next change gets an audit line with `action` on this endpoint.
    fn recording(&self, tenant: TenantId, action: &str, id: WebhookId) -> TenantStore {
        let line = self.origin.did(action, &id);
        self.store.tenant(tenant).with_audit_line(line)
    }

    fn wake(&self) {
        self.coord.wakeups().wake(topic::WEBHOOKS, "");
    }

    fn new_secret(&self, tenant: TenantId, id: WebhookId) -> (WebhookSecret, Vec<u8>) {
        let secret = signature::secret(rand::random());
        let owner = SealOwner::webhook_secret(tenant, id);
        let sealed = self
            .master_key
            .seal(&owner, rand::random(), secret.expose());
        (secret, sealed)
    }
}
