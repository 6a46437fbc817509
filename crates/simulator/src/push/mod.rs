//! What the platform pushes to the URL in an account's console: events, in each of WeChat's modes and formats.

mod letter;
mod pusher;

use serde::{Deserialize, Serialize};

pub(crate) use letter::Stamp;
pub(crate) use pusher::{Job, run};

/// The message push settings in an account's console.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Push {
    /// Where events go.
    pub url: String,
    /// The Token.
    pub token: String,
    /// The `EncodingAESKey`; compatible and safe mode need it.
    #[serde(default)]
    pub aes_key: Option<String>,
    /// Whether bodies are encrypted.
    #[serde(default)]
    pub mode: PushMode,
    /// How bodies are written.
    #[serde(default)]
    pub format: PushFormat,
    /// Whether every accepted message is told of. Otherwise only what control asks for is pushed.
    #[serde(default)]
    pub receipts: bool,
}

/// Whether bodies are encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PushMode {
    /// They are not.
    #[default]
    Plain,
    /// The ciphertext stands beside the plain fields.
    Compatible,
    /// There is nothing but the ciphertext.
    Safe,
}

/// How bodies are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PushFormat {
    /// JSON.
    #[default]
    Json,
    /// XML: the only one of official accounts.
    Xml,
}

/// Something to push.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
pub enum PushEvent {
    /// `subscribe_msg_sent_event`.
    Sent {
        /// The receiver.
        openid: String,
        /// What became of which messages.
        receipts: Vec<PushReceipt>,
    },
    /// `TEMPLATESENDJOBFINISH`.
    JobFinished {
        /// The receiver.
        openid: String,
        /// The message.
        msgid: u64,
        /// `success`, `failed:user block` or `failed: system failed`.
        status: String,
    },
    /// `subscribe_msg_popup_event`.
    Popup {
        /// Who answered.
        openid: String,
        /// Template ids, and `accept` or `reject`.
        choices: Vec<(String, String)>,
    },
    /// `subscribe_msg_change_event`.
    Change {
        /// Who changed the settings.
        openid: String,
        /// Template ids, and what is pushed of them: `reject`.
        choices: Vec<(String, String)>,
    },
    /// Any other event.
    Other {
        /// Whom it concerns.
        openid: String,
        /// Its name.
        name: String,
    },
}

/// What became of one subscribe message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PushReceipt {
    /// Its template.
    pub template_id: String,
    /// Its id, as the send was answered.
    pub msgid: u64,
    /// 0 where it arrived.
    #[serde(default)]
    pub error_code: i64,
    /// `success`, or why it did not arrive.
    #[serde(default = "success")]
    pub error_status: String,
}

fn success() -> String {
    "success".to_owned()
}

impl PushEvent {
    /// The event of one subscribe message that arrived.
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

    /// The event of one subscribe message that did not arrive.
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

/// A push as it goes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Where to.
    pub url: String,
    /// What is added to the URL, without the `?`.
    pub query: String,
    /// The body's `Content-Type`.
    pub content_type: &'static str,
    /// The body.
    pub body: String,
}

/// Why there is no letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// The account has no message push settings.
    #[error("the account has no `push` settings; give it some with PATCH /_sim/apps/{{appid}}")]
    NotSet,
    /// The key is needed and is none.
    #[error(
        "the mode needs an `aes_key` of 43 letters and digits; correct the account's `push` settings"
    )]
    Key,
}
