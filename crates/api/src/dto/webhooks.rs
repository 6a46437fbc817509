//! Webhook endpoints in requests and answers. Each secret is shown once.

use chrono::{DateTime, Utc};
use delivery::WebhookSettings;
use domain::{secret::WebhookSecret, webhook::EventType};
use serde::{Deserialize, Serialize};
use store::{DeliveryStatus, Swept};
use utoipa::{
    IntoParams, ToSchema,
    openapi::{
        ObjectBuilder,
        schema::{ArrayBuilder, Type},
    },
};

use super::{not_null, nullable, open_lists::EventTypes, page, time::Timestamp, word};
use crate::problem::Problem;

/// A webhook endpoint to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WebhookRequest {
    /// The URL for events. https, on the public internet; the gateway does not follow redirects.
    #[schema(
        example = "https://shop.example/wxgate",
        max_length = 2000,
        pattern = "^https?://"
    )]
    url: String,
    /// The types of the events to post, or `["*"]` for all.
    #[schema(schema_with = events_schema)]
    events: Vec<String>,
    /// A description, for people.
    #[schema(max_length = 500)]
    description: Option<String>,
}

impl From<WebhookRequest> for WebhookSettings {
    fn from(new: WebhookRequest) -> Self {
        Self {
            url: Some(new.url),
            events: Some(new.events),
            description: Some(new.description),
            enabled: None,
        }
    }
}

/// What to change of an endpoint; absent fields stay unchanged.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(
    clippy::option_option,
    reason = "absent, null and a value are three things in a PATCH"
)]
pub(crate) struct WebhookChanges {
    /// The URL for events.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(value_type = String, required = false, max_length = 2000, pattern = "^https?://")]
    url: Option<String>,
    /// The types of the events to post, or `["*"]` for all.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(schema_with = events_schema, required = false)]
    events: Option<Vec<String>>,
    /// A description, for people; null: none.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>, required = false, max_length = 500, example = "orders")]
    description: Option<Option<String>>,
    /// `enabled` clears the failures; `disabled` ends the pending deliveries.
    #[serde(default, deserialize_with = "word")]
    #[schema(value_type = WebhookStatus, required = false)]
    status: Option<WebhookStatus>,
}

impl From<WebhookChanges> for WebhookSettings {
    fn from(changes: WebhookChanges) -> Self {
        Self {
            url: changes.url,
            events: changes.events,
            description: changes.description,
            enabled: changes
                .status
                .map(|status| status == WebhookStatus::Enabled),
        }
    }
}

/// Whether the gateway posts events to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum WebhookStatus {
    Enabled,
    Disabled,
}

fn events_schema() -> utoipa::openapi::schema::Array {
    let words = EventType::subscribable().map(EventType::as_str);
    let event = ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(words.chain(["*"])));
    ArrayBuilder::new()
        .items(event)
        .min_items(Some(1))
        .description(Some(
            "The types of the events that the webhook receives, or `[\"*\"]` for all.",
        ))
        .build()
}

/// A webhook endpoint.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Webhook {
    #[schema(example = "whk_01jq2xv1cde8sbw7mv9v6a5kzq")]
    id: String,
    #[schema(example = "https://shop.example/wxgate")]
    url: String,
    #[schema(schema_with = events_schema)]
    events: Vec<&'static str>,
    #[schema(required = true)]
    description: Option<String>,
    status: WebhookStatus,
    /// Why the gateway disabled the endpoint; null: the gateway did not.
    #[schema(required = true)]
    disabled_reason: Option<String>,
    /// Since when every attempt has failed; null: the last attempt succeeded, or none was made.
    #[schema(required = true)]
    failing_since: Option<Timestamp>,
    /// How many attempts have failed in a row.
    failures: u64,
    /// The time until which the secret before the last rotation signs too; null: no rotation.
    #[schema(required = true)]
    previous_secret_until: Option<Timestamp>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl From<store::Webhook> for Webhook {
    fn from(webhook: store::Webhook) -> Self {
        Self {
            id: webhook.id.to_string(),
            url: webhook.url,
            events: webhook.events.words(),
            description: webhook.description,
            status: if webhook.enabled {
                WebhookStatus::Enabled
            } else {
                WebhookStatus::Disabled
            },
            disabled_reason: webhook.disabled_reason,
            failing_since: webhook.failing_since.map(Into::into),
            failures: webhook.failures,
            previous_secret_until: webhook.previous_secret_until.map(Into::into),
            created_at: webhook.created_at.into(),
            updated_at: webhook.updated_at.into(),
        }
    }
}

/// A webhook endpoint with its secret: no other answer shows the secret.
#[derive(Serialize, ToSchema)]
pub(crate) struct CreatedWebhook {
    #[serde(flatten)]
    webhook: Webhook,
    /// The secret that signs the events, by the rules of Standard Webhooks.
    #[schema(example = "whsec_…")]
    secret: String,
}

impl From<&(store::Webhook, WebhookSecret)> for CreatedWebhook {
    fn from((webhook, secret): &(store::Webhook, WebhookSecret)) -> Self {
        Self {
            webhook: webhook.clone().into(),
            secret: secret.expose().to_owned(),
        }
    }
}

/// One event for one endpoint.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WebhookDelivery {
    /// The event's id: the `webhook-id` of every post of this event.
    #[schema(example = "evt_01jq2xv1cde8sbw7mv9v6a5kzq")]
    event_id: String,
    #[schema(example = "whk_01jq2xv1cde8sbw7mv9v6a5kzq")]
    webhook_id: String,
    #[serde(rename = "type")]
    #[schema(value_type = EventTypes)]
    kind: &'static str,
    /// The message that the event reports; null: the event is not about a message.
    #[schema(required = true)]
    message_id: Option<String>,
    status: DeliveryWord,
    /// How many times the event was posted since the last request to deliver the event.
    attempts: u32,
    /// When the next post is due; null: the delivery has ended.
    #[schema(required = true)]
    next_attempt_at: Option<Timestamp>,
    /// The HTTP status of the last answer; null: no answer came.
    #[schema(required = true)]
    response_status: Option<u16>,
    /// The beginning of the last answer.
    #[schema(required = true)]
    response_excerpt: Option<String>,
    /// The last error; null: none.
    #[schema(required = true)]
    error: Option<String>,
    /// When the event happened.
    created_at: Timestamp,
    #[schema(required = true)]
    attempted_at: Option<Timestamp>,
    #[schema(required = true)]
    ended_at: Option<Timestamp>,
}

/// The status of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DeliveryWord {
    Pending,
    Delivered,
    Failed,
}

impl From<DeliveryStatus> for DeliveryWord {
    fn from(status: DeliveryStatus) -> Self {
        match status {
            DeliveryStatus::Pending => Self::Pending,
            DeliveryStatus::Delivered => Self::Delivered,
            DeliveryStatus::Failed => Self::Failed,
        }
    }
}

impl From<DeliveryWord> for DeliveryStatus {
    fn from(word: DeliveryWord) -> Self {
        match word {
            DeliveryWord::Pending => Self::Pending,
            DeliveryWord::Delivered => Self::Delivered,
            DeliveryWord::Failed => Self::Failed,
        }
    }
}

impl From<store::WebhookDelivery> for WebhookDelivery {
    fn from(one: store::WebhookDelivery) -> Self {
        Self {
            event_id: one.event.to_string(),
            webhook_id: one.webhook.to_string(),
            kind: one.kind.as_str(),
            message_id: one.message.map(|id| id.to_string()),
            status: one.status.into(),
            attempts: one.attempts,
            next_attempt_at: one.next_attempt_at.map(Into::into),
            response_status: one.response_status,
            response_excerpt: one.response_excerpt,
            error: one.error,
            created_at: one.created_at.into(),
            attempted_at: one.attempted_at.map(Into::into),
            ended_at: one.ended_at.map(Into::into),
        }
    }
}

/// Which deliveries of an endpoint to list, and which page.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct DeliveriesQuery {
    /// Only deliveries with this status.
    #[param(inline)]
    status: Option<DeliveryWord>,
    /// How many items at most.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u64>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

impl DeliveriesQuery {
    /// The store's filter and page for this query.
    pub(crate) fn split(self) -> Result<(Option<DeliveryStatus>, store::Page), Problem> {
        let page = page::page::<WebhookDelivery, _>(self.limit, self.cursor.as_deref())?;
        Ok((self.status.map(Into::into), page))
    }
}

/// A time span: the gateway redelivers its failed events.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Redelivery {
    /// Events that happened at this time or later.
    #[schema(example = "2026-03-01T08:30:00Z")]
    pub(crate) since: DateTime<Utc>,
    /// Events that happened before this time. Default: now.
    pub(crate) until: Option<DateTime<Utc>>,
}

/// How many events the gateway redelivers.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Redelivered {
    /// The number of events.
    #[schema(example = 42)]
    redelivered: u64,
    /// True: more events may remain, so send the request again.
    more: bool,
}

impl From<&Swept> for Redelivered {
    fn from(told: &Swept) -> Self {
        Self {
            redelivered: told.moved,
            more: told.more,
        }
    }
}
