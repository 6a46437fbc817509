//! Callbacks to the URL in an account's message push settings: events, in each of WeChat's modes and formats.

mod pusher;
mod request;

use serde::{Deserialize, Serialize};

pub(crate) use pusher::{Job, run};
pub(crate) use request::Stamp;

/// The message push settings of an account, as in WeChat's console.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PushSettings {
    /// The URL that receives the callbacks.
    pub url: String,
    /// The Token, for signatures.
    pub token: String,
    /// The `EncodingAESKey`, required for the compatible and safe modes.
    #[serde(default)]
    pub aes_key: Option<String>,
    /// Whether bodies are encrypted.
    #[serde(default)]
    pub mode: PushMode,
    /// The format of bodies.
    #[serde(default)]
    pub format: PushFormat,
    /// Whether the simulator sends a receipt for every accepted message. Otherwise only events from
    /// [`Control::push`](crate::Control::push) are sent.
    #[serde(default)]
    pub receipts: bool,
}

/// Whether bodies are encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PushMode {
    /// Plain fields only.
    #[default]
    Plain,
    /// The ciphertext beside the plain fields.
    Compatible,
    /// The ciphertext only.
    Safe,
}

/// The format of bodies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PushFormat {
    /// JSON.
    #[default]
    Json,
    /// XML, the only format of official accounts.
    Xml,
}

/// An event to send as a callback.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
pub enum PushEvent {
    /// `subscribe_msg_sent_event`.
    Sent {
        /// The recipient.
        openid: String,
        /// The receipts of the messages.
        receipts: Vec<PushReceipt>,
    },
    /// `TEMPLATESENDJOBFINISH`.
    JobFinished {
        /// The recipient.
        openid: String,
        /// The message.
        msgid: u64,
        /// `success`, `failed:user block` or `failed: system failed`.
        status: String,
    },
    /// `subscribe_msg_popup_event`.
    Popup {
        /// The user that answered the popup.
        openid: String,
        /// Template ids, and `accept` or `reject`.
        choices: Vec<(String, String)>,
    },
    /// `subscribe_msg_change_event`.
    Change {
        /// The user that changed the settings.
        openid: String,
        /// Template ids, and the new status of each: `reject`.
        choices: Vec<(String, String)>,
    },
    /// Any other event.
    Other {
        /// The user that the event concerns.
        openid: String,
        /// The event's name.
        name: String,
    },
}

/// The receipt of one subscribe message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PushReceipt {
    /// The message's template.
    pub template_id: String,
    /// The message's id, as in the answer to the send.
    pub msgid: u64,
    /// 0 for a delivered message.
    #[serde(default)]
    pub error_code: i64,
    /// `success`, or why the message was not delivered.
    #[serde(default = "success")]
    pub error_status: String,
}

fn success() -> String {
    "success".to_owned()
}

impl PushEvent {
    /// The event for one delivered subscribe message.
    pub fn delivered(openid: &str, template_id: &str, msgid: u64) -> Self {
        Self::Sent {
            openid: openid.to_owned(),
            receipts: vec![PushReceipt {
                template_id: template_id.to_owned(),
                msgid,
                error_code: 0,
                error_status: success(),
            }],
        }
    }

    /// The event for one subscribe message that was not delivered.
    pub fn failed(openid: &str, template_id: &str, msgid: u64, code: i64, status: &str) -> Self {
        Self::Sent {
            openid: openid.to_owned(),
            receipts: vec![PushReceipt {
                template_id: template_id.to_owned(),
                msgid,
                error_code: code,
                error_status: status.to_owned(),
            }],
        }
    }
}

/// A callback, ready to post.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallbackRequest {
    /// The URL of the account's message push settings.
    pub url: String,
    /// The query to append to the URL, without the `?`.
    pub query: String,
    /// The body's `Content-Type`.
    pub content_type: &'static str,
    /// The body.
    pub body: String,
}

/// Why the simulator cannot write a callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// The account has no message push settings.
    #[error("the account has no `push` settings; give it some with PATCH /_sim/apps/{{appid}}")]
    NotSet,
    /// The mode needs an `aes_key`, and the key is missing or malformed.
    #[error(
        "the mode needs an `aes_key` of 43 letters and digits; correct the account's `push` settings"
    )]
    Key,
}
