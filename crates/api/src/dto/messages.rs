//! Messages in answers: the fields of the request, the status and the attempts.

use chrono::{DateTime, Utc};
use domain::{message, verdict};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use store::MessageFilter;
use utoipa::{IntoParams, ToSchema};

use super::{
    message_request::{DataItem, MiniprogramLink},
    open_lists::FailureCodes,
    page,
    time::Timestamp,
    words::{Channel, GrantPolicy, Lang, MiniprogramState, OnUncertain, Outcome, Priority, Status},
};
use crate::problem::Problem;

/// A message with its status and its attempts.
#[derive(Debug, Serialize, ToSchema)]
pub struct Message {
    #[schema(example = "msg_01jq2xv1cde8sbw7mv9v6a5kzq")]
    id: String,
    #[schema(example = "wx0a1b2c3d4e5f6789")]
    appid: String,
    status: Status,
    #[schema(example = "oABC1234567890abcdefghijklmn")]
    touser: String,
    #[schema(example = "8-VxnRzHxkMVwBSkPGXFUNkRDfMlAqV0P1nVTW4Zx9k")]
    template_id: String,
    #[serde(flatten)]
    content: Content,
    priority: Priority,
    /// When the message should be sent; null: at once.
    #[schema(required = true)]
    send_at: Option<Timestamp>,
    /// Seconds within which the message is worth sending.
    #[schema(example = 3600)]
    ttl: u64,
    #[schema(required = true, example = "order-42")]
    reference: Option<String>,
    #[schema(required = true, value_type = Option<BTreeMap<String, Value>>)]
    metadata: Option<Map<String, Value>>,
    on_uncertain: OnUncertain,
    /// What the request asked the subscription ledger to decide; absent: the app's policy applies.
    #[serde(skip_serializing_if = "Option::is_none")]
    grant_policy: Option<GrantPolicy>,
    /// True: the message was checked and will not be sent.
    dry_run: bool,
    /// Only in the answer to the sending request: which values the gateway rewrote into WeChat's form, and for a dry
    /// run which checks were impossible, in sentences.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    warnings: Vec<String>,
    created_at: Timestamp,
    updated_at: Timestamp,
    /// The time after which the message will not be sent.
    expires_at: Timestamp,
    /// WeChat's id of the message: a string, because the id exceeds 2^53.
    #[schema(required = true, example = "3256829574012846080")]
    msgid: Option<String>,
    /// All attempts so far, in order.
    attempts: Vec<Attempt>,
    /// Why the message did not arrive.
    #[schema(required = true)]
    failure: Option<Failure>,
    /// When the gateway dropped the values and metadata to protect personal data; null: the message is complete.
    #[schema(required = true)]
    payload_dropped_at: Option<Timestamp>,
}

/// The content of a message, in the fields of its channel; the fields of other channels are absent.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Content {
    channel: Channel,
    #[schema(value_type = BTreeMap<String, DataItem>, example = json!({"thing1": {"value": "保温杯"}}))]
    data: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "pages/order?id=1")]
    page: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    miniprogram_state: Option<MiniprogramState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lang: Option<Lang>,
    #[serde(skip_serializing_if = "Option::is_none")]
    form_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    emphasis_keyword: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<MiniprogramLink>)]
    miniprogram: Option<message::MiniprogramLink>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_msg_id: Option<String>,
}

impl From<message::Content> for Content {
    fn from(content: message::Content) -> Self {
        let channel = content.channel().into();
        let blank = |data| Self {
            channel,
            data,
            page: None,
            miniprogram_state: None,
            lang: None,
            form_id: None,
            emphasis_keyword: None,
            url: None,
            miniprogram: None,
            client_msg_id: None,
        };
        match content {
            message::Content::Subscribe {
                data,
                page,
                miniprogram_state,
                lang,
            } => Self {
                page,
                miniprogram_state: Some(miniprogram_state.into()),
                lang: Some(lang.into()),
                ..blank(data)
            },
            message::Content::Template {
                data,
                page,
                form_id,
                emphasis_keyword,
            } => Self {
                page,
                form_id,
                emphasis_keyword,
                ..blank(data)
            },
            message::Content::Official {
                data,
                url,
                miniprogram,
                client_msg_id,
            } => Self {
                url,
                miniprogram,
                client_msg_id,
                ..blank(data)
            },
        }
    }
}

/// One attempt to send a message.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Attempt {
    /// 1 for the first.
    #[schema(example = 1)]
    number: u32,
    started_at: Timestamp,
    /// Milliseconds from start to answer.
    #[schema(example = 81)]
    duration_ms: u64,
    outcome: Outcome,
    /// WeChat's error code; null: WeChat did not answer.
    #[schema(required = true, example = 0)]
    errcode: Option<i64>,
    /// WeChat's error message, or a description of the connection error.
    #[schema(required = true, example = "ok")]
    errmsg: Option<String>,
    /// WeChat's request id, for WeChat's support.
    #[schema(required = true)]
    rid: Option<String>,
}

impl From<verdict::Attempt> for Attempt {
    fn from(attempt: verdict::Attempt) -> Self {
        Self {
            number: attempt.number,
            started_at: attempt.started_at.into(),
            duration_ms: attempt.duration_ms,
            outcome: attempt.outcome.into(),
            errcode: attempt.errcode,
            errmsg: attempt.errmsg,
            rid: attempt.rid,
        }
    }
}

/// Why a message did not arrive.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Failure {
    #[schema(value_type = FailureCodes)]
    code: &'static str,
    /// What happened and what to do.
    #[schema(
        example = "the user has not accepted this template, or the accepted messages are used up: ask the user again \
            in the mini-program"
    )]
    detail: String,
}

impl Message {
    /// The message of a dry run: checked, and never sent.
    pub(crate) fn dry(message: store::Message, warnings: Vec<String>) -> Self {
        Self {
            dry_run: true,
            ..Self::with_warnings(message, warnings)
        }
    }

    /// The message as accepted, with warnings about rewritten values.
    pub fn with_warnings(message: store::Message, warnings: Vec<String>) -> Self {
        Self {
            warnings,
            ..Self::from(message)
        }
    }
}

impl From<store::Message> for Message {
    fn from(message: store::Message) -> Self {
        Self {
            id: message.id.to_string(),
            appid: message.appid.to_string(),
            status: message.status.into(),
            touser: message.touser,
            template_id: message.template_id,
            content: message.content.into(),
            priority: message.priority.into(),
            send_at: message.send_at.map(Into::into),
            ttl: message.ttl.as_secs(),
            reference: message.reference,
            metadata: message.metadata,
            on_uncertain: message.on_uncertain.into(),
            grant_policy: message.grant_policy.map(Into::into),
            dry_run: false,
            warnings: Vec::new(),
            created_at: message.created_at.into(),
            updated_at: message.updated_at.into(),
            expires_at: message.expires_at.into(),
            msgid: message.msgid,
            attempts: message.attempts.into_iter().map(Into::into).collect(),
            failure: message.failure.map(|failure| Failure {
                code: failure.code.as_str(),
                detail: failure.detail,
            }),
            payload_dropped_at: message.payload_dropped_at.map(Into::into),
        }
    }
}

/// Which messages of an app to list, and which page.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct MessagesQuery {
    /// Only messages with this status.
    #[param(inline)]
    status: Option<Status>,
    /// Only messages to this openid.
    touser: Option<String>,
    /// Only messages of this template.
    template_id: Option<String>,
    /// Only messages with this `reference`.
    reference: Option<String>,
    /// Only messages accepted at this time or later (RFC 3339; write `+` as `%2B`).
    created_after: Option<DateTime<Utc>>,
    /// Only messages accepted before this time (RFC 3339; write `+` as `%2B`).
    created_before: Option<DateTime<Utc>>,
    /// How many items at most.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u64>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

impl MessagesQuery {
    /// The store's filter and page for this query.
    pub(crate) fn split(self) -> Result<(MessageFilter, store::Page), Problem> {
        let page = page::page::<Message, _>(self.limit, self.cursor.as_deref())?;
        let filter = MessageFilter {
            status: self.status.map(Into::into),
            touser: self.touser,
            template_id: self.template_id,
            reference: self.reference,
            created_after: self.created_after,
            created_before: self.created_before,
        };
        Ok((filter, page))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn time(millis: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(1_700_000_000_000 + millis).unwrap()
    }

    #[test]
    fn a_message_reads_as_the_contract_says() {
        let draft = message::Request {
            touser: "oABC".into(),
            template_id: "tpl".into(),
            data: json!({"thing1": {"value": "x"}}).as_object().cloned(),
            ..message::Request::default()
        };
        let draft = draft.check(time(0)).unwrap();
        let message = store::Message {
            grant_policy: None,
            id: domain::id::new(time(0), 0, 7),
            tenant: domain::id::new(time(0), 0, 7),
            appid: domain::app::AppId::parse("wx0a1b2c3d4e5f6789").unwrap(),
            status: domain::lifecycle::Status::Sent,
            priority: draft.priority,
            touser: draft.touser,
            template_id: draft.template_id,
            content: draft.content,
            metadata: None,
            reference: None,
            on_uncertain: draft.on_uncertain,
            send_at: None,
            ttl: Duration::from_mins(2),
            due_at: time(0),
            expires_at: time(120_000),
            attempts: vec![verdict::Attempt {
                number: 1,
                started_at: time(5),
                duration_ms: 81,
                outcome: verdict::Outcome::Accepted,
                errcode: Some(0),
                errmsg: Some("ok".into()),
                rid: None,
            }],
            msgid: Some("3256829574012846080".into()),
            failure: None,
            payload_dropped_at: None,
            created_at: time(0),
            updated_at: time(90),
        };
        let id = message.id.to_string();
        let expected = json!({
            "id": id, "appid": "wx0a1b2c3d4e5f6789", "status": "sent", "channel": "subscribe", "touser": "oABC",
            "template_id": "tpl", "data": {"thing1": {"value": "x"}}, "miniprogram_state": "formal", "lang": "zh_CN",
            "priority": "normal", "send_at": null, "ttl": 120, "reference": null, "metadata": null,
            "on_uncertain": "hold", "dry_run": false, "created_at": "2023-11-14T22:13:20.000Z",
            "updated_at": "2023-11-14T22:13:20.090Z", "expires_at": "2023-11-14T22:15:20.000Z",
            "msgid": "3256829574012846080", "failure": null, "payload_dropped_at": null,
            "attempts": [{
                "number": 1, "started_at": "2023-11-14T22:13:20.005Z", "duration_ms": 81, "outcome": "accepted",
                "errcode": 0, "errmsg": "ok", "rid": null,
            }],
        });
        assert_eq!(
            serde_json::to_value(Message::from(message)).unwrap(),
            expected
        );
    }
}
