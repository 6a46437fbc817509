//! Webhooks: a tenant's endpoints, and how they are told what became of each message.

mod address;
mod announcer;
mod post;
mod signature;

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use coord::Coord;
use domain::{
    id::{self, EventId, TenantId, WebhookId},
    seal::{MasterKey, SealOwner},
    secret::WebhookSecret,
    violation::Violation,
    webhook::{EventFilter, EventType, ROTATION},
};
use reqwest::Url;
use store::{
    AppEvent, DeliveryStatus, Keep, Listing, NewWebhook, Page, Store, StoreError, Swept, Webhook,
    WebhookDelivery, WebhookPatch,
};

pub(crate) use self::announcer::Announcer;
pub use self::announcer::ShowMessage;
use crate::{engine::Parts, topic};

/// How many endpoints a tenant may have.
const MOST: usize = 20;
/// The longest URL.
const LONGEST_URL: usize = 2_000;
/// The longest description, in characters.
const LONGEST_DESCRIPTION: usize = 500;

/// What an endpoint is made with, or changed to; none leaves as is.
#[derive(Clone, Debug, Default)]
pub struct WebhookSettings {
    /// Where events are posted to.
    pub url: Option<String>,
    /// The words of the events that it wants, or `*` for all.
    pub events: Option<Vec<String>>,
    /// What its owner says of it.
    pub description: Option<Option<String>>,
    /// Whether it is told of events.
    pub enabled: Option<bool>,
}

/// Why the desk refuses.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The tenant has no such thing.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// Fields that are wrong.
    #[error("{} fields are wrong", .0.len())]
    Invalid(Vec<Violation>),
    /// The tenant has as many endpoints as it may have.
    #[error("a tenant has at most {MOST} webhooks: remove one that is not needed")]
    TooMany,
    /// Nothing is told to an endpoint that is disabled.
    #[error("the webhook is disabled: set its status to enabled first")]
    Disabled,
    /// The database is at fault.
    #[error(transparent)]
    Store(StoreError),
}

impl From<StoreError> for WebhookError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound(what) => Self::NotFound(what),
            other => Self::Store(other),
        }
    }
}

/// The desk where tenants look after their endpoints. Cheap to clone.
#[derive(Clone)]
pub struct Webhooks {
    store: Store,
    coord: Coord,
    master_key: MasterKey,
    allow_private: bool,
}

impl std::fmt::Debug for Webhooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhooks")
            .field("allow_private", &self.allow_private)
            .finish_non_exhaustive()
    }
}

impl Webhooks {
    pub(crate) fn new(parts: &Parts, allow_private: bool) -> Self {
        Self {
            store: parts.store.clone(),
            coord: parts.coord.clone(),
            master_key: parts.master_key.clone(),
            allow_private,
        }
    }

    /// Makes an endpoint. Its secret is shown this once.
    pub async fn create(
        &self,
        tenant: TenantId,
        settings: WebhookSettings,
        keep: Keep<(Webhook, WebhookSecret)>,
    ) -> Result<(Webhook, WebhookSecret), WebhookError> {
        let checked = self.check(&settings)?;
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
            return Err(WebhookError::Invalid(missing));
        };
        let door = self.store.tenant(tenant);
        let full = Page {
            limit: MOST as u64,
            after: None,
        };
        if door.webhooks(&full).await?.items.len() >= MOST {
            return Err(WebhookError::TooMany);
        }
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
        let door = door.answering(keep.answer(&made));
        door.create_webhook(new, now).await?;
        Ok(made)
    }

    /// The tenant's endpoints, newest first.
    pub async fn list(
        &self,
        tenant: TenantId,
        page: &Page,
    ) -> Result<Listing<Webhook>, WebhookError> {
        Ok(self.store.tenant(tenant).webhooks(page).await?)
    }

    /// One of them.
    pub async fn get(&self, tenant: TenantId, id: WebhookId) -> Result<Webhook, WebhookError> {
        Ok(self.store.tenant(tenant).webhook(id).await?)
    }

    /// Changes one of them. Enabling forgets its failures; disabling ends what is on its way to it.
    pub async fn update(
        &self,
        tenant: TenantId,
        id: WebhookId,
        settings: WebhookSettings,
    ) -> Result<Webhook, WebhookError> {
        let patch = self.check(&settings)?;
        let now = self.coord.clock().now();
        Ok(self
            .store
            .tenant(tenant)
            .update_webhook(id, patch, now)
            .await?)
    }

    /// Removes one of them, and all that is on its way to it.
    pub async fn remove(&self, tenant: TenantId, id: WebhookId) -> Result<(), WebhookError> {
        Ok(self.store.tenant(tenant).remove_webhook(id).await?)
    }

    /// Gives one of them a new secret, shown this once. For a day both sign.
    pub async fn rotate_secret(
        &self,
        tenant: TenantId,
        id: WebhookId,
        keep: Keep<(Webhook, WebhookSecret)>,
    ) -> Result<(Webhook, WebhookSecret), WebhookError> {
        let now = self.coord.clock().now();
        let until = now + ROTATION;
        let (secret, sealed) = self.new_secret(tenant, id);
        let door = self.store.tenant(tenant);
        let rotated = Webhook {
            previous_secret_until: Some(until),
            updated_at: now,
            ..door.webhook(id).await?
        };
        let rotated = (rotated, secret);
        let door = door.answering(keep.answer(&rotated));
        door.rotate_webhook_secret(id, sealed, until, now).await?;
        Ok(rotated)
    }

    /// Sends one of them an event that says nothing, whatever it asks for. It is tried once.
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
        let door = self.store.tenant(tenant).answering(keep.answer(&told));
        door.tell_webhook(id, &event, now).await?;
        self.wake();
        Ok(told)
    }

    /// What one of them was told, or is to be told, newest first.
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

    /// Tells one of them an event once more; its tries begin anew.
    pub async fn redeliver(
        &self,
        tenant: TenantId,
        id: WebhookId,
        event: EventId,
        keep: Keep<WebhookDelivery>,
    ) -> Result<WebhookDelivery, WebhookError> {
        self.enabled(tenant, id).await?;
        let now = self.coord.clock().now();
        let door = self.store.tenant(tenant);
        let told = door.webhook_delivery(id, event).await?.again(now);
        let door = door.answering(keep.answer(&told));
        door.redeliver(id, event, now).await?;
        self.wake();
        Ok(told)
    }

    /// Tells one of them the events once more that happened in this time and were given up, the oldest first; how many,
    /// and whether there may be more.
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
        let door = self.store.tenant(tenant);
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

    /// The patch that is asked for: every field obeys its rule.
    fn check(&self, settings: &WebhookSettings) -> Result<WebhookPatch, WebhookError> {
        let mut found = Vec::new();
        if let Some(url) = &settings.url
            && let Err(rule) = check_url(url, self.allow_private)
        {
            found.push(Violation::new("/url", rule));
        }
        let events = settings
            .events
            .as_deref()
            .map(|words| check_events(words, &mut found));
        if let Some(Some(description)) = &settings.description
            && description.chars().count() > LONGEST_DESCRIPTION
        {
            let rule = format!("must have at most {LONGEST_DESCRIPTION} characters");
            found.push(Violation::new("/description", rule));
        }
        if !found.is_empty() {
            return Err(WebhookError::Invalid(found));
        }
        Ok(WebhookPatch {
            url: settings.url.clone(),
            events,
            description: settings.description.clone(),
            enabled: settings.enabled,
        })
    }
}

/// What is wrong with the URL of an endpoint. Where its name leads is looked at with every post.
fn check_url(text: &str, allow_private: bool) -> Result<(), String> {
    if text.len() > LONGEST_URL {
        return Err(format!("must have at most {LONGEST_URL} characters"));
    }
    let url = Url::parse(text)
        .map_err(|error| format!("must be a URL such as https://host/path ({error})"))?;
    let scheme_is_fine = url.scheme() == "https" || allow_private && url.scheme() == "http";
    if !scheme_is_fine {
        return Err("must begin with https://".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err(
            "must have no user, password or fragment: the signature proves who calls".to_owned(),
        );
    }
    let is_local = url
        .host_str()
        .is_some_and(|host| host == "localhost" || host.ends_with(".localhost"));
    let is_private = address::literal(&url).is_some_and(|literal| !address::is_public(literal));
    if !allow_private && (is_local || is_private) {
        return Err(
            "must be reachable from the public internet: private and local addresses are refused"
                .to_owned(),
        );
    }
    Ok(())
}

/// The events that the words name; what is wrong with them goes into `found`.
fn check_events(words: &[String], found: &mut Vec<Violation>) -> EventFilter {
    if words.is_empty() {
        let rule = "must name at least one event, or be [\"*\"] for all";
        found.push(Violation::new("/events", rule));
    }
    if words.len() == 1 && words[0] == "*" {
        return EventFilter::All;
    }
    let mut kinds = BTreeSet::new();
    for (index, word) in words.iter().enumerate() {
        if let Some(kind) = EventType::subscribable().find(|kind| kind.as_str() == word) {
            kinds.insert(kind);
        } else {
            let known: Vec<&str> = EventType::subscribable().map(EventType::as_str).collect();
            let rule = format!("must be one of {}; or `*` alone", known.join(", "));
            found.push(Violation::new(format!("/events/{index}"), rule));
        }
    }
    EventFilter::Only(kinds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_public_and_https() {
        for url in [
            "https://hooks.example/wx?key=1",
            "https://1.1.1.1/",
            "https://hooks.example:8443/",
        ] {
            assert_eq!(check_url(url, false), Ok(()), "{url}");
        }
        for url in [
            "http://hooks.example/",
            "ftp://hooks.example/",
            "hooks.example",
            "https://user:word@hooks.example/",
            "https://hooks.example/#part",
            "https://localhost/",
            "https://a.localhost/",
            "https://127.1/",
            "https://10.0.0.8/",
            "https://[::1]/",
            "https://169.254.169.254/latest/meta-data/",
        ] {
            assert!(check_url(url, false).is_err(), "{url}");
        }
        assert_eq!(check_url("http://127.0.0.1:9/", true), Ok(()));
    }

    #[test]
    fn events_are_named_one_by_one_or_all() {
        let read = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            let mut found = Vec::new();
            let filter = check_events(&words, &mut found);
            let pointers: Vec<String> = found.into_iter().map(|one| one.pointer).collect();
            (filter.to_string(), pointers)
        };
        assert_eq!(read(&["*"]), ("*".to_owned(), vec![]));
        assert_eq!(
            read(&["message.failed", "message.sent", "message.sent"]).0,
            "message.sent message.failed"
        );
        assert_eq!(read(&[]).1, ["/events"]);
        assert_eq!(
            read(&["message.sent", "*", "webhook.test"]).1,
            ["/events/1", "/events/2"]
        );
    }
}
