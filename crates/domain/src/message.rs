//! Messages: what a tenant asks for, checked once.
//!
//! A [`Draft`] can only be made by [`Request::check`]; everything behind it may rely on its fields.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::grant::{GrantPolicy, IdKind};

mod request;

pub use request::{DATA_MEMBERS, Request, Unfit};

/// The ttl of a message that names none.
pub const DEFAULT_TTL: Duration = Duration::from_hours(24);
/// The longest ttl.
pub const MAX_TTL: Duration = Duration::from_hours(7 * 24);
/// How far ahead a message may be scheduled.
pub const MAX_SCHEDULE: Duration = Duration::from_hours(30 * 24);

/// WeChat remembers a `client_msg_id` for ten minutes; the last of them is left for clocks and connections.
const CLIENT_MSG_ID_WINDOW: Duration = Duration::from_mins(9);

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

/// What to do with a value that is too long for its type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnTooLong {
    /// Refuse the message.
    #[default]
    Reject,
    /// Cut a `thing` to 20 characters, the last of them `…`. Other types cannot be cut: half an order number is another one.
    Truncate,
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
        /// The form id or prepay id that permits the send; none: one is taken from the pool.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        form_id: Option<String>,
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

    /// The same without anything that was said to the user: what is left when payloads are dropped.
    #[must_use]
    pub fn emptied(&self) -> Self {
        let data = Map::new();
        match self {
            Self::Subscribe {
                miniprogram_state,
                lang,
                ..
            } => Self::Subscribe {
                data,
                page: None,
                miniprogram_state: *miniprogram_state,
                lang: *lang,
            },
            Self::Template { .. } => Self::Template {
                data,
                page: None,
                form_id: None,
                emphasis_keyword: None,
            },
            Self::Official { .. } => Self::Official {
                data,
                url: None,
                miniprogram: None,
                client_msg_id: None,
            },
        }
    }

    /// Whether what permits it is used up by one message: a form id of its own that has not the shape of a prepay id,
    /// which is good for three and may have been used up by others.
    pub fn is_good_once(&self) -> bool {
        match self {
            Self::Template {
                form_id: Some(id), ..
            } => IdKind::of_shape(id).uses() == 1,
            _ => false,
        }
    }

    /// For how long after a send WeChat itself refuses a second copy, so that repeating one of unknown outcome is
    /// harmless; none: it never does.
    pub fn repeatable_for(&self) -> Option<Duration> {
        match self {
            Self::Official {
                client_msg_id: Some(_),
                ..
            } => Some(CLIENT_MSG_ID_WINDOW),
            _ => None,
        }
    }
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
    /// What the ledger decides about it; none: what its app says.
    pub grant_policy: Option<GrantPolicy>,
    /// Check everything, send nothing.
    pub dry_run: bool,
    /// What was rewritten into WeChat's form, in sentences: for the answer to the request, and kept nowhere.
    pub warnings: Vec<String>,
}

impl Draft {
    /// From when the message may be sent.
    pub fn due_at(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        self.send_at.map_or(now, |send_at| send_at.max(now))
    }

    /// Until when the message may be sent. One whose `send_at` has passed may be over before it has begun.
    pub fn expires_at(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        self.send_at.unwrap_or(now) + self.ttl
    }
}
