//! The schemas of a message to send in the document: one for each channel, distinguished by `channel`.
//!
//! The schemas are derived from the one flat schema of [`MessageRequest`], so that each field is described once.

use std::borrow::Cow;

use serde_json::{Value, json};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ObjectBuilder, Ref, RefOr,
        schema::{Discriminator, Object, OneOfBuilder, Schema, SchemaType, Type},
    },
};

use super::message_request::MessageRequest;

/// A message to send, in the fields of its channel.
pub(crate) struct AnyMessage;

/// One channel's part of the flat schema.
struct ChannelSchema {
    /// The schema's name.
    name: &'static str,
    channel: &'static str,
    description: &'static str,
    required: &'static [&'static str],
    /// The fields of this channel that not every channel has.
    own: &'static [&'static str],
    example: fn() -> Value,
}

const SUBSCRIBE: ChannelSchema = ChannelSchema {
    name: "SubscribeMessage",
    channel: "subscribe",
    description: "A mini-program subscribe message. The gateway accepts this message without `channel` too; clients need `channel` to distinguish the kinds of messages.",
    required: &["channel", "touser", "template_id", "data"],
    own: &["page", "miniprogram_state", "lang"],
    example: || {
        json!({
            "channel": "subscribe",
            "touser": "oABC1234567890abcdefghijklmn",
            "template_id": "8-VxnRzHxkMVwBSkPGXFUNkRDfMlAqV0P1nVTW4Zx9k",
            "page": "pages/order?id=1",
            "data": {"thing1": {"value": "保温杯"}, "date2": {"value": "2026年3月1日"}},
            "ttl": 3600,
            "reference": "order-42",
        })
    },
};

const TEMPLATE: ChannelSchema = ChannelSchema {
    name: "TemplateMessage",
    channel: "template",
    description: "A mini-program template message, which a form id permits.",
    required: &["channel", "touser", "template_id"],
    own: &["page", "form_id", "emphasis_keyword"],
    example: || {
        json!({
            "channel": "template",
            "touser": "oABC1234567890abcdefghijklmn",
            "template_id": "AT0002-order-paid",
            "form_id": "1477899234123",
            "data": {"keyword1": {"value": "339208499"}},
            "emphasis_keyword": "keyword1.DATA",
        })
    },
};

const OFFICIAL: ChannelSchema = ChannelSchema {
    name: "OfficialMessage",
    channel: "official",
    description: "An official account's template message.",
    required: &["channel", "touser", "template_id", "data"],
    own: &["url", "miniprogram", "client_msg_id"],
    example: || {
        json!({
            "channel": "official",
            "touser": "oABC1234567890abcdefghijklmn",
            "template_id": "ngqIpbwh8bUfcSsECmogfXcV14J0tQlEpBO27izEYtY",
            "url": "https://shop.example/orders/1",
            "data": {"thing1": {"value": "保温杯"}},
            "client_msg_id": "order-42",
        })
    },
};

const FORMS: [ChannelSchema; 3] = [SUBSCRIBE, TEMPLATE, OFFICIAL];

impl ChannelSchema {
    fn schema(&self) -> Object {
        let mut object = flat();
        let foreign = |field: &str| {
            let mut others = FORMS.iter().filter(|form| form.name != self.name);
            !self.own.contains(&field) && others.any(|form| form.own.contains(&field))
        };
        let fields: Vec<String> = object.properties.keys().cloned().collect();
        for field in fields.iter().filter(|field| foreign(field)) {
            object.properties.remove(field);
        }
        let channel = ObjectBuilder::new()
            .schema_type(Type::String)
            .enum_values(Some([self.channel]))
            .description(Some("The WeChat interface that sends the message."));
        object
            .properties
            .insert("channel".to_owned(), channel.into());
        if self.required.contains(&"data")
            && let Some(RefOr::T(Schema::Object(data))) = object.properties.get_mut("data")
        {
            data.schema_type = SchemaType::Type(Type::Object);
            data.min_properties = Some(1);
            data.max_properties = Some(50);
        }
        object.required = self
            .required
            .iter()
            .map(|&field| field.to_owned())
            .collect();
        object.description = Some(self.description.to_owned());
        object.examples = vec![(self.example)()];
        object
    }
}

/// The schema with the fields of all channels.
fn flat() -> Object {
    match MessageRequest::schema() {
        RefOr::T(Schema::Object(object)) => object,
        _ => Object::new(),
    }
}

impl PartialSchema for AnyMessage {
    fn schema() -> RefOr<Schema> {
        let mapping = FORMS.map(|form| {
            let reference = Ref::from_schema_name(form.name).ref_location;
            (form.channel.to_owned(), reference)
        });
        let forms = FORMS.iter().fold(OneOfBuilder::new(), |forms, form| {
            forms.item(Ref::from_schema_name(form.name))
        });
        forms
            .description(Some("A message to send, with the fields of its channel."))
            .discriminator(Some(Discriminator::with_mapping("channel", mapping)))
            .into()
    }
}

impl ToSchema for AnyMessage {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("MessageRequest")
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        let forms = FORMS.iter().map(|form| {
            (
                form.name.to_owned(),
                RefOr::T(Schema::Object(form.schema())),
            )
        });
        schemas.extend(forms);
        MessageRequest::schemas(schemas);
    }
}

#[cfg(test)]
mod tests {
    use domain::message;

    use super::*;
    use crate::extract::parse_part;

    #[test]
    fn every_field_is_in_the_channels_that_take_it() {
        for field in flat().properties.keys() {
            let takes = FORMS.map(|form| form.schema().properties.contains_key(field));
            let owners = FORMS.map(|form| form.own.contains(&field.as_str()));
            assert!(takes == owners || takes == [true; 3], "{field}: {takes:?}");
        }
    }

    #[test]
    fn the_examples_are_messages_of_their_channel() {
        for form in FORMS {
            let request: MessageRequest = parse_part(&(form.example)()).unwrap();
            let draft = message::Request::from(request)
                .check(chrono::DateTime::UNIX_EPOCH)
                .unwrap();
            let channel = serde_json::to_value(draft.content.channel()).unwrap();
            assert_eq!(channel, form.channel);
        }
    }
}
