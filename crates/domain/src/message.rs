//! Messages: the request of a tenant, checked once.
//!
//! Only [`Request::check`] makes a [`Draft`], so all later code may rely on the fields of a draft.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::grant::{GrantPolicy, IdKind};

mod request;

pub use request::{DATA_MEMBERS, Request, Unfit};

/// The ttl of a message whose request names no ttl.
pub const DEFAULT_TTL: Duration = Duration::from_hours(24);
/// The longest ttl that a request may name.
pub const MAX_TTL: Duration = Duration::from_hours(7 * 24);
/// How far in the future `send_at` may be.
pub const MAX_SCHEDULE: Duration = Duration::from_hours(30 * 24);

/// WeChat remembers a `client_msg_id` for ten minutes. The gateway uses nine of these minutes; the last minute is a
/// margin for clock differences and slow connections.
const CLIENT_MSG_ID_WINDOW: Duration = Duration::from_mins(9);

/// The WeChat interface that sends a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    /// Mini-program subscribe message.
    #[default]
    Subscribe,
    /// Mini-program template message with a form id. WeChat has replaced this interface by `Subscribe`.
    Template,
    /// Official-account template message.
    Official,
}

/// The order of messages within an app, and the share of the daily quota that a message may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Sent before all other messages.
    High,
    /// The default.
    #[default]
    Normal,
    /// For bulk messages.
    Low,
}

/// What to do when the outcome of a send is unknown: WeChat may or may not have the message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnUncertain {
    /// End the message as `uncertain`: the recipient never gets a second copy.
    #[default]
    Hold,
    /// Send again: the tenant prefers a second copy to a lost message.
    Retry,
}

/// What to do with a value that is too long for its type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnTooLong {
    /// Refuse the message.
    #[default]
    Reject,
    /// Cut a `thing` to 20 characters, the last of which is `…`. Values of other types are not cut: half an order
    /// number is a different order number.
    Truncate,
}

/// The release of the mini-program that the card opens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MiniprogramState {
    /// The development build.
    Developer,
    /// The trial build.
    Trial,
    /// The released version.
    #[default]
    Formal,
}

/// The language of the fixed texts on the card.
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

/// The mini-program that the message of an official account opens. The mini-program takes precedence over `url`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MiniprogramLink {
    /// The mini-program's appid.
    pub appid: String,
    /// The page in the mini-program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pagepath: Option<String>,
}

/// The content of a message, in the fields of its channel.
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
        /// The form id or prepay id that permits the send. Without an id the gateway takes an id from the form-id pool.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        form_id: Option<String>,
        /// The keyword that the card shows in large type, such as `keyword1.DATA`.
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
        /// WeChat sends a message with the same id to the same openid only once within ten minutes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        client_msg_id: Option<String>,
    },
}

impl Content {
    /// The channel that sends this content.
    pub fn channel(&self) -> Channel {
        match self {
            Self::Subscribe { .. } => Channel::Subscribe,
            Self::Template { .. } => Channel::Template,
            Self::Official { .. } => Channel::Official,
        }
    }

    /// A copy without data, page, links and ids: the content that remains when the gateway deletes payloads.
    #[must_use]
    pub fn without_content(&self) -> Self {
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

    /// Whether one message uses up the grant of this content. This is so for an own form id that does not have the
    /// shape of a prepay id. A prepay id permits three messages, and other messages may have used the prepay id up.
    pub fn is_single_use(&self) -> bool {
        match self {
            Self::Template {
                form_id: Some(id), ..
            } => IdKind::of_shape(id).uses() == 1,
            _ => false,
        }
    }

    /// The time after a send during which WeChat itself refuses a second copy, so that a repeat of a send with unknown
    /// outcome is harmless. `None`: WeChat does not refuse second copies.
    pub fn dedup_window(&self) -> Option<Duration> {
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
    /// The recipient's openid under the app.
    pub touser: String,
    /// The template's id in the account.
    pub template_id: String,
    /// The content to send.
    pub content: Content,
    /// The order within the app.
    pub priority: Priority,
    /// The time at which to send; `None`: now.
    pub send_at: Option<DateTime<Utc>>,
    /// How long the message may be sent, counted from `send_at` or, without `send_at`, from now.
    pub ttl: Duration,
    /// The tenant's own id for the message.
    pub reference: Option<String>,
    /// Data of the tenant that the gateway returns with the message.
    pub metadata: Option<Map<String, Value>>,
    /// What to do when the outcome of a send is unknown.
    pub on_uncertain: OnUncertain,
    /// The policy of the subscription ledger for this message; `None`: the policy of the app.
    pub grant_policy: Option<GrantPolicy>,
    /// Check everything, send nothing.
    pub dry_run: bool,
    /// Sentences that describe which values the gateway rewrote into WeChat's form. The answer to the request contains
    /// these sentences; the gateway does not store them.
    pub warnings: Vec<String>,
}

impl Draft {
    /// The earliest time at which the message may be sent.
    pub fn due_at(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        self.send_at.map_or(now, |send_at| send_at.max(now))
    }

    /// The time at which the message expires. With a `send_at` in the past, this time may already be over.
    pub fn expires_at(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        self.send_at.unwrap_or(now) + self.ttl
    }
}
