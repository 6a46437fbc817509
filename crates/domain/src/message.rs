//! Messages: what a tenant asks for, checked once.
//!
//! A [`Draft`] can only be made by [`Request::check`]; everything behind it may rely on its fields.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    template_value,
    violation::{Violation, pointer_token},
};

/// The ttl of a message that names none.
pub const DEFAULT_TTL: Duration = Duration::from_hours(24);
/// The longest ttl.
pub const MAX_TTL: Duration = Duration::from_hours(7 * 24);
/// How far ahead a message may be scheduled.
pub const MAX_SCHEDULE: Duration = Duration::from_hours(30 * 24);

const MAX_ID: usize = 128;
const MAX_PAGE: usize = 1024;
const MAX_REFERENCE: usize = 255;
const MAX_METADATA_BYTES: usize = 4096;
const MAX_DATA_KEYS: usize = 50;

/// Which of WeChat's three ways a message takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    /// Mini-program subscribe message.
    #[default]
    Subscribe,
    /// Mini-program template message with a form id: the way of the origin, since replaced by `Subscribe`.
    Template,
    /// Official-account template message.
    Official,
}

/// Who goes first within an app, and how much of the day's quota may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Before all others.
    High,
    /// The default.
    #[default]
    Normal,
    /// Bulk.
    Low,
}

/// What to do when nobody knows whether WeChat got a send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnUncertain {
    /// End as `uncertain`: never repeat somebody's message.
    #[default]
    Hold,
    /// Send again: a second copy is better than none.
    Retry,
}

/// Which release of the mini-program the card opens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MiniprogramState {
    /// The development build.
    Developer,
    /// The trial build.
    Trial,
    /// The released one.
    #[default]
    Formal,
}

/// The language of the fixed words on the card.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lang {
    /// Simplified Chinese.
    #[default]
    #[serde(rename = "zh_CN")]
    ZhCn,
    /// English.
    #[serde(rename = "en_US")]
    EnUs,
    /// Traditional Chinese, Hong Kong.
    #[serde(rename = "zh_HK")]
    ZhHk,
    /// Traditional Chinese, Taiwan.
    #[serde(rename = "zh_TW")]
    ZhTw,
}

/// The mini-program that an official account's message opens; wins over its `url`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MiniprogramLink {
    /// The mini-program's appid.
    pub appid: String,
    /// The page in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pagepath: Option<String>,
}

/// What is sent, in the fields of its channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "channel", rename_all = "snake_case")]
pub enum Content {
    /// See [`Channel::Subscribe`].
    Subscribe {
        /// The template's data: `{"thing1": {"value": "…"}}`.
        data: Map<String, Value>,
        /// The page that the card opens.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        page: Option<String>,
        /// The release that the card opens.
        miniprogram_state: MiniprogramState,
        /// The card's language.
        lang: Lang,
    },
    /// See [`Channel::Template`].
    Template {
        /// The template's data: `{"keyword1": {"value": "…"}}`.
        data: Map<String, Value>,
        /// The page that the card opens.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        page: Option<String>,
        /// The form id or prepay id that permits the send.
        form_id: String,
        /// The keyword to show large, such as `keyword1.DATA`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        emphasis_keyword: Option<String>,
    },
    /// See [`Channel::Official`].
    Official {
        /// The template's data: `{"thing1": {"value": "…"}}`.
        data: Map<String, Value>,
        /// The web page that the card opens.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        url: Option<String>,
        /// The mini-program that the card opens.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        miniprogram: Option<MiniprogramLink>,
        /// WeChat sends the same openid the same id once within ten minutes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        client_msg_id: Option<String>,
    },
}

impl Content {
    /// The channel this content is for.
    pub fn channel(&self) -> Channel {
        match self {
            Self::Subscribe { .. } => Channel::Subscribe,
            Self::Template { .. } => Channel::Template,
            Self::Official { .. } => Channel::Official,
        }
    }

    /// Whether WeChat itself refuses a second copy, so that repeating a send of unknown outcome is harmless.
    pub fn repeatable(&self) -> bool {
        matches!(
            self,
            Self::Official {
                client_msg_id: Some(_),
                ..
            }
        )
    }
}

/// A message as asked for, not checked yet. Absent fields take their defaults in [`Request::check`].
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(
    missing_docs,
    reason = "the fields are those of the public API, described there and on `Draft` and `Content`"
)]
pub struct Request {
    pub channel: Channel,
    pub touser: String,
    pub template_id: String,
    pub data: Option<Map<String, Value>>,
    pub page: Option<String>,
    pub miniprogram_state: Option<MiniprogramState>,
    pub lang: Option<Lang>,
    pub form_id: Option<String>,
    pub emphasis_keyword: Option<String>,
    pub url: Option<String>,
    pub miniprogram: Option<MiniprogramLink>,
    pub client_msg_id: Option<String>,
    pub priority: Priority,
    pub send_at: Option<DateTime<Utc>>,
    pub ttl: Option<u64>,
    pub reference: Option<String>,
    pub metadata: Option<Map<String, Value>>,
    pub on_uncertain: OnUncertain,
    pub dry_run: bool,
}

/// A checked message: every field obeys its rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    /// The receiver's openid under the app.
    pub touser: String,
    /// The template's id in the account.
    pub template_id: String,
    /// What is sent.
    pub content: Content,
    /// Who goes first.
    pub priority: Priority,
    /// When to send; none: now.
    pub send_at: Option<DateTime<Utc>>,
    /// How long the message is worth sending, counted from `send_at` or from now.
    pub ttl: Duration,
    /// The tenant's own id for it.
    pub reference: Option<String>,
    /// Whatever the tenant wants back with it.
    pub metadata: Option<Map<String, Value>>,
    /// What to do when the outcome of a send is unknown.
    pub on_uncertain: OnUncertain,
    /// Check everything, send nothing.
    pub dry_run: bool,
}

impl Draft {
    /// From when the message may be sent.
    pub fn due_at(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        self.send_at.map_or(now, |send_at| send_at.max(now))
    }

    /// Until when the message may be sent.
    pub fn expires_at(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        self.due_at(now) + self.ttl
    }
}

impl Request {
    /// Checks every field and says everything that is wrong at once.
    pub fn check(self, now: DateTime<Utc>) -> Result<Draft, Vec<Violation>> {
        let mut found = Vec::new();
        required_id(&self.touser, "/touser", "the receiver's openid", &mut found);
        required_id(
            &self.template_id,
            "/template_id",
            "the template's id in the account",
            &mut found,
        );
        check_foreign_fields(&self, &mut found);
        check_data(self.channel, self.data.as_ref(), &mut found);
        check_lengths(&self, &mut found);
        check_times(&self, now, &mut found);
        if self.channel == Channel::Template && self.form_id.is_none() {
            found.push(Violation::new(
                "/form_id",
                "required on channel `template`: the form id or prepay id that permits the send",
            ));
        }
        if !found.is_empty() {
            return Err(found);
        }
        let data = self.data.unwrap_or_default();
        let content = match self.channel {
            Channel::Subscribe => Content::Subscribe {
                data,
                page: self.page,
                miniprogram_state: self.miniprogram_state.unwrap_or_default(),
                lang: self.lang.unwrap_or_default(),
            },
            Channel::Template => Content::Template {
                data,
                page: self.page,
                form_id: self.form_id.unwrap_or_default(),
                emphasis_keyword: self.emphasis_keyword,
            },
            Channel::Official => Content::Official {
                data,
                url: self.url,
                miniprogram: self.miniprogram,
                client_msg_id: self.client_msg_id,
            },
        };
        Ok(Draft {
            touser: self.touser,
            template_id: self.template_id,
            content,
            priority: self.priority,
            send_at: self.send_at,
            ttl: self.ttl.map_or(DEFAULT_TTL, Duration::from_secs),
            reference: self.reference,
            metadata: self.metadata,
            on_uncertain: self.on_uncertain,
            dry_run: self.dry_run,
        })
    }
}

fn required_id(value: &str, pointer: &str, what: &str, found: &mut Vec<Violation>) {
    if value.is_empty()
        || value.len() > MAX_ID
        || value.chars().any(|c| c.is_whitespace() || c.is_control())
    {
        found.push(Violation::new(
            pointer,
            format!("must be {what}: 1 to {MAX_ID} characters without blanks"),
        ));
    }
}

/// A field of another channel would be dropped silently: refuse it instead.
fn check_foreign_fields(request: &Request, found: &mut Vec<Violation>) {
    use Channel::{Official, Subscribe, Template};
    let mut only = |present: bool, channels: &[Channel], pointer: &str, names: &str| {
        if present && !channels.contains(&request.channel) {
            found.push(Violation::new(
                pointer,
                format!("belongs to {names}, not to the channel of this message"),
            ));
        }
    };
    only(
        request.page.is_some(),
        &[Subscribe, Template],
        "/page",
        "channels `subscribe` and `template`",
    );
    only(
        request.miniprogram_state.is_some(),
        &[Subscribe],
        "/miniprogram_state",
        "channel `subscribe`",
    );
    only(
        request.lang.is_some(),
        &[Subscribe],
        "/lang",
        "channel `subscribe`",
    );
    only(
        request.form_id.is_some(),
        &[Template],
        "/form_id",
        "channel `template`",
    );
    only(
        request.emphasis_keyword.is_some(),
        &[Template],
        "/emphasis_keyword",
        "channel `template`",
    );
    only(
        request.url.is_some(),
        &[Official],
        "/url",
        "channel `official`",
    );
    only(
        request.miniprogram.is_some(),
        &[Official],
        "/miniprogram",
        "channel `official`",
    );
    only(
        request.client_msg_id.is_some(),
        &[Official],
        "/client_msg_id",
        "channel `official`",
    );
}

fn check_data(channel: Channel, data: Option<&Map<String, Value>>, found: &mut Vec<Violation>) {
    let data = match data {
        Some(data) => data,
        // The origin's template message may be empty: an empty card is sent.
        None if channel == Channel::Template => return,
        None => {
            found.push(Violation::new(
                "/data",
                "required: the template's values, such as {\"thing1\": {\"value\": \"…\"}}",
            ));
            return;
        }
    };
    if data.is_empty() && channel != Channel::Template {
        found.push(Violation::new(
            "/data",
            "must name at least one key of the template",
        ));
    }
    if data.len() > MAX_DATA_KEYS {
        found.push(Violation::new(
            "/data",
            format!("must have at most {MAX_DATA_KEYS} keys"),
        ));
    }
    for (key, item) in data {
        let pointer = format!("/data/{}", pointer_token(key));
        let Some(value) = item.get("value") else {
            found.push(Violation::new(
                pointer,
                "must be an object with a `value`, such as {\"value\": \"…\"}",
            ));
            continue;
        };
        let value = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => {
                found.push(Violation::new(
                    format!("{pointer}/value"),
                    "must be a string or a number",
                ));
                continue;
            }
        };
        // The values of the origin's templates have no types: their keys are keyword1, keyword2 …
        if channel == Channel::Template {
            continue;
        }
        if let Err(rule) = template_value::check(key, &value) {
            found.push(Violation::new(format!("{pointer}/value"), rule.to_string()));
        }
    }
}

fn check_lengths(request: &Request, found: &mut Vec<Violation>) {
    let mut at_most = |value: Option<&str>, max: usize, pointer: &str| {
        if let Some(value) = value
            && (value.is_empty() || value.len() > max)
        {
            found.push(Violation::new(
                pointer,
                format!("must have 1 to {max} bytes, or be left out"),
            ));
        }
    };
    at_most(request.page.as_deref(), MAX_PAGE, "/page");
    at_most(request.form_id.as_deref(), MAX_ID, "/form_id");
    at_most(
        request.emphasis_keyword.as_deref(),
        MAX_ID,
        "/emphasis_keyword",
    );
    at_most(request.url.as_deref(), MAX_PAGE, "/url");
    at_most(request.client_msg_id.as_deref(), 32, "/client_msg_id");
    at_most(request.reference.as_deref(), MAX_REFERENCE, "/reference");
    let metadata_bytes = request
        .metadata
        .as_ref()
        .and_then(|map| serde_json::to_vec(map).ok())
        .map_or(0, |json| json.len());
    if metadata_bytes > MAX_METADATA_BYTES {
        found.push(Violation::new(
            "/metadata",
            format!("must be at most {MAX_METADATA_BYTES} bytes as JSON"),
        ));
    }
}

fn check_times(request: &Request, now: DateTime<Utc>, found: &mut Vec<Violation>) {
    if request
        .ttl
        .is_some_and(|ttl| ttl == 0 || ttl > MAX_TTL.as_secs())
    {
        found.push(Violation::new(
            "/ttl",
            format!("must be 1 to {} seconds", MAX_TTL.as_secs()),
        ));
    }
    if request
        .send_at
        .is_some_and(|send_at| send_at > now + MAX_SCHEDULE)
    {
        found.push(Violation::new(
            "/send_at",
            "must be within the next 30 days",
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000, 0).unwrap()
    }

    fn request() -> Request {
        let Value::Object(data) = json!({"thing1": {"value": "保温杯"}}) else {
            unreachable!()
        };
        Request {
            touser: "oABC".into(),
            template_id: "tpl".into(),
            data: Some(data),
            ..Request::default()
        }
    }

    fn pointers(request: Request) -> Vec<String> {
        request
            .check(now())
            .unwrap_err()
            .into_iter()
            .map(|violation| violation.pointer)
            .collect()
    }

    #[test]
    fn defaults_are_those_of_the_contract() {
        let draft = request().check(now()).unwrap();
        assert_eq!(draft.expires_at(now()), now() + chrono::Duration::days(1));
        assert!(matches!(
            draft.content,
            Content::Subscribe {
                miniprogram_state: MiniprogramState::Formal,
                lang: Lang::ZhCn,
                ..
            }
        ));
    }

    #[test]
    fn ttl_counts_from_send_at() {
        let send_at = now() + chrono::Duration::hours(1);
        let draft = Request {
            send_at: Some(send_at),
            ttl: Some(120),
            ..request()
        }
        .check(now())
        .unwrap();
        assert_eq!(
            draft.expires_at(now()),
            send_at + chrono::Duration::seconds(120)
        );
    }

    #[test]
    fn a_send_at_in_the_past_means_now() {
        let draft = Request {
            send_at: Some(now() - chrono::Duration::hours(1)),
            ..request()
        }
        .check(now())
        .unwrap();
        assert_eq!(draft.due_at(now()), now());
    }

    #[test]
    fn every_offending_field_is_told_at_once() {
        let Value::Object(data) = json!({"thing1": {"value": "一二三四五六七八九十一二三四五六七八九十零"}, "a/b": "bare"})
        else {
            unreachable!()
        };
        let wrong = Request {
            touser: " ".into(),
            data: Some(data),
            ttl: Some(0),
            form_id: Some("f".into()),
            send_at: Some(now() + chrono::Duration::days(31)),
            ..request()
        };
        assert_eq!(
            pointers(wrong),
            [
                "/touser",
                "/form_id",
                "/data/a~1b",
                "/data/thing1/value",
                "/ttl",
                "/send_at"
            ]
        );
    }

    #[test]
    fn the_origins_template_message_wants_a_form_id_and_may_be_empty() {
        let template = Request {
            channel: Channel::Template,
            data: None,
            ..request()
        };
        assert_eq!(pointers(template.clone()), ["/form_id"]);
        assert!(
            Request {
                form_id: Some("f1".into()),
                ..template
            }
            .check(now())
            .is_ok()
        );
    }
}
