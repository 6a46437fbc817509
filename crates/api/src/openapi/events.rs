//! The events that the gateway posts to a tenant's endpoints, as the document's `webhooks`.

use domain::webhook::EventType;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        Content, HttpMethod, OpenApi, PathItem, Paths, Ref, RefOr, Required, ResponseBuilder,
        path::{OperationBuilder, ParameterBuilder, ParameterIn},
        request_body::RequestBodyBuilder,
        schema::{ObjectBuilder, Schema, Type},
    },
};

use crate::dto::{messages::Message, open_lists::EventTypes, time::Timestamp};

/// The body of a post. `data` depends on the type of the event: [`describe`] makes a schema for each form of `data`.
#[derive(Serialize, ToSchema)]
struct PostedEvent {
    /// The event's id, the same in every post of this event; also in the header `webhook-id`.
    #[schema(example = "evt_01jq2xv1cde8sbw7mv9v6a5kzq")]
    id: String,
    #[serde(rename = "type")]
    #[schema(value_type = EventTypes)]
    kind: &'static str,
    /// The version of this shape.
    #[schema(example = 1)]
    version: u8,
    /// When the event happened.
    timestamp: Timestamp,
    /// The subject of the event: `appid`, and fields that depend on the type of the event.
    #[schema(value_type = Object)]
    data: Value,
}

/// The schema of an event about a message: its `data` is the message as `GET /v1/messages/{id}` shows the message at
/// that time.
fn message_event() -> RefOr<Schema> {
    let mut event = PostedEvent::schema();
    if let RefOr::T(Schema::Object(event)) = &mut event {
        event.description = Some("An event about a message.".to_owned());
        let message = Ref::from_schema_name(Message::name());
        event.properties.insert("data".to_owned(), message.into());
    }
    event
}

/// The schema of an event about an app, a template or an endpoint.
fn other_event() -> RefOr<Schema> {
    let mut event = PostedEvent::schema();
    if let RefOr::T(Schema::Object(event)) = &mut event {
        event.description = Some("An event about an app, a template or an endpoint.".to_owned());
    }
    event
}

/// The meaning of an event.
fn meaning(kind: EventType) -> &'static str {
    match kind {
        EventType::MessageSent => "WeChat has accepted a message",
        EventType::MessageDelivered => "WeChat says that a message was delivered",
        EventType::MessageUndelivered => "WeChat says that a message was not delivered",
        EventType::MessageFailed => "WeChat refuses a message for good",
        EventType::MessageExpired => "A message could not be sent in time",
        EventType::MessageUncertain => "Whether WeChat has a message is unknown",
        EventType::AppBreakerOpened => {
            "An app is paused because WeChat refuses all of its messages"
        }
        EventType::AppQuotaWarning => "Most of an app's quota of the day is used",
        EventType::AppForeignRefresh => "Another system has replaced an app's access token",
        EventType::TemplateChanged => "WeChat lists a template differently than before",
        EventType::WebhookTest => "A test of the endpoint",
    }
}

/// Adds an operation for each type of event: the gateway's post and the endpoint's answer.
pub(super) fn describe(document: &mut OpenApi) {
    let mut webhooks = Paths::new();
    for kind in EventType::ALL {
        let item = PathItem::new(HttpMethod::Post, operation(kind));
        webhooks.paths.insert(kind.as_str().to_owned(), item);
    }
    document.webhooks = Some(webhooks);
    let components = document.components.get_or_insert_default();
    let mut schemas = Vec::new();
    PostedEvent::schemas(&mut schemas);
    schemas.push(("MessageEvent".to_owned(), message_event()));
    schemas.push(("OtherEvent".to_owned(), other_event()));
    schemas.push(("EventType".to_owned(), EventTypes::schema()));
    for (name, schema) in schemas {
        components.schemas.entry(name).or_insert(schema);
    }
}

fn operation(kind: EventType) -> OperationBuilder {
    let word = kind.as_str();
    let is_about_a_message = word.starts_with("message.");
    let schema = if is_about_a_message {
        "MessageEvent"
    } else {
        "OtherEvent"
    };
    let mut content = Content::new(Some(Ref::from_schema_name(schema)));
    if !is_about_a_message {
        content.example = Some(json!({
            "id": "evt_01jq2xv1cde8sbw7mv9v6a5kzq", "type": word, "version": 1, "timestamp": "2026-03-01T08:30:00.000Z",
            "data": {"appid": "wx0a1b2c3d4e5f6789"},
        }));
    }
    let body = RequestBodyBuilder::new()
        .content("application/json", content)
        .required(Some(Required::True));
    let taken = ResponseBuilder::new().description(
        "Any 2xx status within 15 seconds: the event is delivered. After any other result the gateway retries for 24 hours.",
    );
    OperationBuilder::new()
        .tag("webhooks")
        .operation_id(Some(format!("on_{}", word.replace('.', "_"))))
        .summary(Some(meaning(kind)))
        .description(Some(
            "The gateway posts the event to every endpoint that has chosen the event's type, signed according to \
             Standard Webhooks: verify `webhook-signature` with the endpoint's secret, and treat a repeated \
             `webhook-id` as the same event.",
        ))
        .parameters(Some(signed_by()))
        .request_body(Some(body.build()))
        .response("2XX", taken.build())
}

/// The headers of Standard Webhooks.
fn signed_by() -> [ParameterBuilder; 3] {
    [
        ("webhook-id", "The event's id."),
        ("webhook-timestamp", "The time of the post, in seconds since 1970."),
        ("webhook-signature", "`v1,` and the signature in base64; after a rotation of the secret, two of these with a blank in between."),
    ]
    .map(|(name, about)| {
        ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Header)
            .required(Required::True)
            .description(Some(about))
            .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_in_the_document() {
        let document = serde_json::to_value(crate::openapi()).unwrap();
        for kind in EventType::ALL {
            let webhook = &document["webhooks"][kind.as_str()]["post"];
            let schema = &webhook["requestBody"]["content"]["application/json"]["schema"]["$ref"];
            let name = schema.as_str().unwrap();
            assert!(document.pointer(&name[1..]).is_some(), "{kind}: {name}");
        }
        let all = document["webhooks"].as_object().unwrap();
        assert_eq!(all.len(), EventType::ALL.len());
        let old: Value = serde_json::from_str(&crate::Part::Api.json_3_0()).unwrap();
        assert!(old["webhooks"].is_null(), "3.0 has no webhooks");
        assert!(old["components"]["schemas"]["MessageEvent"].is_object());
    }
}
