//! Messages in requests: one flat object for all channels.

use chrono::{DateTime, Utc};
use domain::{message, violation::Violation};
use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};
use utoipa::{
    ToSchema,
    openapi::{
        ObjectBuilder,
        schema::{Object, SchemaType, Type},
    },
};

use crate::extract::{optional_object, parse_part};

use super::{
    items, not_null,
    words::{Channel, GrantPolicy, Lang, MiniprogramState, OnTooLong, OnUncertain, Priority},
};

/// A message to send, of any channel. The gateway refuses a field of another channel. The document has one schema for
/// each channel: [`AnyMessage`](super::message_schema::AnyMessage).
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MessageRequest {
    /// The WeChat interface that sends the message. Default: `subscribe`.
    #[serde(default, deserialize_with = "not_null")]
    channel: Option<Channel>,
    /// The recipient's openid under the app.
    #[schema(min_length = 1, max_length = 128, pattern = r"^\S+$")]
    touser: String,
    /// The template's id in the account.
    #[schema(min_length = 1, max_length = 128, pattern = r"^\S+$")]
    template_id: String,
    /// The template's values by key, such as `{"thing1": {"value": "…"}}`. The type in a key's name sets the value's rule.
    #[schema(value_type = Option<BTreeMap<String, DataItem>>)]
    data: Option<Map<String, Value>>,
    /// The page that the card opens.
    #[schema(min_length = 1, max_length = 1024)]
    page: Option<String>,
    /// Default: `formal`.
    miniprogram_state: Option<MiniprogramState>,
    /// Default: `zh_CN`.
    lang: Option<Lang>,
    /// The form id or prepay id that permits the send. Default: the recipient's id in the pool that expires first.
    #[schema(min_length = 1, max_length = 128)]
    form_id: Option<String>,
    /// The keyword to show large, such as `keyword1.DATA`.
    #[schema(min_length = 1, max_length = 128)]
    emphasis_keyword: Option<String>,
    /// The web page that the card opens.
    #[schema(min_length = 1, max_length = 1024)]
    url: Option<String>,
    /// The mini-program that the card opens; takes precedence over `url`.
    #[serde(default, deserialize_with = "optional_object")]
    #[schema(value_type = Option<MiniprogramLink>)]
    miniprogram: Option<message::MiniprogramLink>,
    /// WeChat sends only one message with the same id to the same openid within ten minutes.
    #[schema(min_length = 1, max_length = 32)]
    client_msg_id: Option<String>,
    /// Default: `normal`.
    priority: Option<Priority>,
    /// When to send, within the next 30 days; a time in the past means at once. Default: at once.
    send_at: Option<DateTime<Utc>>,
    /// Seconds within which the message is worth sending, from `send_at` (also a past one), or else from now: at most
    /// 604800. Default: 86400.
    #[schema(minimum = 1, maximum = 604_800)]
    ttl: Option<i64>,
    /// Your own id for the message.
    #[schema(min_length = 1, max_length = 255)]
    reference: Option<String>,
    /// Any data that you want back with the message: at most 4096 bytes.
    #[schema(value_type = Option<BTreeMap<String, Value>>)]
    metadata: Option<Map<String, Value>>,
    /// Default: `hold`.
    on_uncertain: Option<OnUncertain>,
    /// Default: `reject`.
    on_too_long: Option<OnTooLong>,
    /// `subscribe`: what the subscription ledger decides about the message. Default: the app's `grant_policy`.
    grant_policy: Option<GrantPolicy>,
    /// True: the gateway checks the message and does not send the message.
    #[serde(default)]
    dry_run: bool,
}

/// One value of a template.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "the shape is documented here and checked in `domain`"
)]
pub(crate) struct DataItem {
    /// A text or a number, by the rule of its key's type.
    #[schema(schema_with = text_or_number)]
    value: Value,
    /// The colour of the value, in channels with colours.
    #[schema(value_type = String, required = false, example = "#173177")]
    color: Option<String>,
}

fn text_or_number() -> Object {
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::String, Type::Number]))
        .description(Some(
            "A string or a number that follows the rule of the key's type.",
        ))
        .examples(["保温杯"])
        .build()
}

/// The mini-program that an official account's message opens.
#[derive(Debug, ToSchema)]
#[expect(
    dead_code,
    reason = "the shape is documented here and parsed in `domain`"
)]
pub(crate) struct MiniprogramLink {
    /// The mini-program's appid.
    #[schema(example = "wx0a1b2c3d4e5f6789")]
    appid: String,
    /// The page in the mini-program.
    pagepath: Option<String>,
}

impl From<MessageRequest> for message::Request {
    fn from(request: MessageRequest) -> Self {
        Self {
            channel: request.channel.map(Into::into).unwrap_or_default(),
            touser: request.touser,
            template_id: request.template_id,
            data: request.data,
            page: request.page,
            miniprogram_state: request.miniprogram_state.map(Into::into),
            lang: request.lang.map(Into::into),
            form_id: request.form_id,
            emphasis_keyword: request.emphasis_keyword,
            url: request.url,
            miniprogram: request.miniprogram,
            client_msg_id: request.client_msg_id,
            priority: request.priority.map(Into::into).unwrap_or_default(),
            send_at: request.send_at,
            // A negative ttl is as wrong as 0, and gets the same error with the same bounds.
            ttl: request.ttl.map(|ttl| ttl.try_into().unwrap_or(0)),
            reference: request.reference,
            metadata: request.metadata,
            on_uncertain: request.on_uncertain.map(Into::into).unwrap_or_default(),
            on_too_long: request.on_too_long.map(Into::into).unwrap_or_default(),
            grant_policy: request.grant_policy.map(Into::into),
            dry_run: request.dry_run,
        }
    }
}

/// Reads a message to send. Each error says what is missing or superfluous, with its place.
pub fn message(value: &Value) -> Result<message::Request, Vec<Violation>> {
    match parse_part::<MessageRequest>(value) {
        Ok(request) => Ok(request.into()),
        Err(problem) => Err(problem.into_errors()),
    }
}

/// Reads a message of a batch.
pub(super) fn item(item: &RawValue) -> Result<message::Request, Vec<Violation>> {
    items::read::<MessageRequest>(item).map(Into::into)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(body: Value) -> message::Request {
        serde_json::from_value::<MessageRequest>(body)
            .unwrap()
            .into()
    }

    #[test]
    fn every_field_arrives() {
        let all = request(json!({
            "channel": "official", "touser": "o", "template_id": "t", "data": {"thing1": {"value": "x"}}, "page": "p",
            "miniprogram_state": "trial", "lang": "en_US", "form_id": "f", "emphasis_keyword": "k", "url": "u",
            "miniprogram": {"appid": "a", "pagepath": "b"}, "client_msg_id": "c", "priority": "high",
            "send_at": "2026-03-01T16:30:00+08:00", "ttl": 120, "reference": "r", "metadata": {"any": "thing"},
            "on_uncertain": "retry", "on_too_long": "truncate", "grant_policy": "strict", "dry_run": true,
        }));
        let Value::Object(data) = json!({"thing1": {"value": "x"}}) else {
            unreachable!()
        };
        let Value::Object(metadata) = json!({"any": "thing"}) else {
            unreachable!()
        };
        let expected = message::Request {
            channel: message::Channel::Official,
            touser: "o".into(),
            template_id: "t".into(),
            data: Some(data),
            page: Some("p".into()),
            miniprogram_state: Some(message::MiniprogramState::Trial),
            lang: Some(message::Lang::EnUs),
            form_id: Some("f".into()),
            emphasis_keyword: Some("k".into()),
            url: Some("u".into()),
            miniprogram: Some(message::MiniprogramLink {
                appid: "a".into(),
                pagepath: Some("b".into()),
            }),
            client_msg_id: Some("c".into()),
            priority: message::Priority::High,
            send_at: Some("2026-03-01T08:30:00Z".parse().unwrap()),
            ttl: Some(120),
            reference: Some("r".into()),
            metadata: Some(metadata),
            on_uncertain: message::OnUncertain::Retry,
            on_too_long: message::OnTooLong::Truncate,
            grant_policy: Some(domain::grant::GrantPolicy::Strict),
            dry_run: true,
        };
        assert_eq!(all, expected);
    }

    #[test]
    fn nulls_and_absent_fields_take_their_defaults() {
        let bare = request(json!({"touser": "o", "template_id": "t"}));
        let nulls = request(
            json!({"touser": "o", "template_id": "t", "send_at": null, "ttl": null, "priority": null}),
        );
        assert_eq!(bare, nulls);
        assert_eq!(
            bare,
            message::Request {
                touser: "o".into(),
                template_id: "t".into(),
                ..message::Request::default()
            }
        );
    }
}
