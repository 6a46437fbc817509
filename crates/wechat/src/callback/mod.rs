//! Callbacks: what WeChat pushes to a gateway, checked and read.
//!
//! WeChat signs a push with the Token of the app's message push settings: SHA-1 over the sorted Token, timestamp and
//! nonce. That signature never covers the body. In *safe* mode the body is encrypted with the `EncodingAESKey` and a
//! second signature covers the ciphertext; in *compatible* mode the same ciphertext comes beside plain fields, which
//! are ignored here. So what is read is authentic where there is an `EncodingAESKey`, and [`Keys`] that have one
//! refuse plain pushes: nobody can talk the gateway down to the weaker mode.
//!
//! Source: <https://developers.weixin.qq.com/miniprogram/dev/framework/server-ability/message-push.html>.
//!
//! ```
//! use domain::secret::CallbackToken;
//! use wxgate_wechat::callback::{Keys, Query};
//!
//! let keys = Keys::new(CallbackToken::new("AAAAA"), None)?;
//! let query = Query {
//!     signature: Some("f464b24fc39322e44b38aa78f5edd27bd1441696".into()),
//!     timestamp: Some("1714036504".into()),
//!     nonce: Some("1514711492".into()),
//!     echostr: Some("4375120948345356249".into()),
//!     ..Query::default()
//! };
//! assert_eq!(keys.check_url(&query)?, "4375120948345356249");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod body;
mod envelope;
mod event;
mod reply;
mod signature;
mod stamp;
mod xml;

use domain::{
    app::AppId,
    secret::{CallbackAesKey, CallbackToken},
};
use serde::Deserialize;

pub use envelope::KeyFormat;
pub use event::{Choice, Event, EventKind, Receipt, TemplateChoice};
pub use reply::Reply;
pub use stamp::Stamp;

use self::{body::Node, envelope::AesKey};

/// The query of a request from WeChat.
#[derive(Clone, Debug, Default, Deserialize)]
#[expect(missing_docs, reason = "each field is WeChat's parameter of that name")]
pub struct Query {
    pub signature: Option<String>,
    pub timestamp: Option<String>,
    pub nonce: Option<String>,
    pub echostr: Option<String>,
    pub encrypt_type: Option<String>,
    pub msg_signature: Option<String>,
}

impl Query {
    /// Whether the body is encrypted, as the query says.
    pub fn is_encrypted(&self) -> bool {
        let has_signature = self
            .msg_signature
            .as_deref()
            .is_some_and(|text| !text.is_empty());
        match self.encrypt_type.as_deref() {
            Some("aes") => true,
            Some("raw") => false,
            _ => has_signature,
        }
    }
}

fn present<'a>(value: Option<&'a String>, name: &'static str) -> Result<&'a str, Refusal> {
    value.map(String::as_str).ok_or(Refusal::Missing(name))
}

/// Why a request is not taken. The text is for the gateway's log: a stranger who learnt which check failed could
/// search for a way round it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A parameter that every request of WeChat has.
    #[error("the query has no `{0}`: this is no request of WeChat's")]
    Missing(&'static str),
    /// The timestamp.
    #[error("the timestamp is no number of seconds in ten digits")]
    Timestamp,
    /// The nonce.
    #[error("the nonce is no word of letters and digits")]
    Nonce,
    /// The signature is not that of this Token.
    #[error(
        "the signature does not fit: set the Token of WeChat's console as callback_token, or it is no request of WeChat's"
    )]
    Signature,
    /// A plain push to an app whose key is known.
    #[error(
        "the push is not encrypted, but the app has an EncodingAESKey: choose the safe mode in WeChat's console"
    )]
    Plain,
    /// An encrypted push to an app whose key is not known.
    #[error(
        "the push is encrypted: set the EncodingAESKey of WeChat's console as callback_aes_key"
    )]
    NoKey,
    /// The ciphertext is not what this key made.
    #[error(
        "the push does not decrypt ({0}): set the EncodingAESKey of WeChat's console as callback_aes_key"
    )]
    Cipher(&'static str),
    /// It was encrypted for another app.
    #[error(
        "the push was encrypted for another appid: check the URL in the console of the app that sends it"
    )]
    OtherApp,
    /// The body is not one of WeChat's.
    #[error("the body cannot be read: {0}")]
    Unreadable(&'static str),
    /// The body lists more than WeChat tells of at once: the tenant, who has the Token too, can make such a push.
    #[error("its list is longer than WeChat's")]
    TooLong,
}

impl Refusal {
    /// The kind in one word, for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing(_) | Self::Timestamp | Self::Nonce => "malformed",
            Self::Signature => "signature",
            Self::Plain => "plain",
            Self::NoKey => "no_key",
            Self::Cipher(_) => "cipher",
            Self::OtherApp => "other_app",
            Self::Unreadable(_) | Self::TooLong => "unreadable",
        }
    }
}

/// The message push settings of an app, as far as its tenant has told them.
#[derive(Clone, Debug)]
pub struct Keys {
    token: CallbackToken,
    aes_key: Option<AesKey>,
}

impl Keys {
    /// Keys that check with `token`, and decrypt with `aes_key`. Without one, plain pushes are taken.
    pub fn new(token: CallbackToken, aes_key: Option<&CallbackAesKey>) -> Result<Self, KeyFormat> {
        let aes_key = aes_key.map(AesKey::parse).transpose()?;
        Ok(Self { token, aes_key })
    }

    /// The `echostr` that answers WeChat's check of the URL.
    pub fn check_url<'a>(&self, query: &'a Query) -> Result<&'a str, Refusal> {
        let echo = present(query.echostr.as_ref(), "echostr")?;
        self.check_signature(query)?;
        Ok(echo)
    }

    /// Checks a push to `appid` and reads what happened. A push that proves to be WeChat's and cannot be read is
    /// [`EventKind::Unreadable`]: WeChat would only repeat it.
    pub fn open(&self, appid: &AppId, query: &Query, body: &[u8]) -> Result<Event, Refusal> {
        if !query.is_encrypted() {
            self.check_signature(query)?;
            return if self.aes_key.is_some() {
                Err(Refusal::Plain)
            } else {
                Event::of_authentic(body)
            };
        }
        let outer = Node::read(body)?;
        let ciphertext = outer.text("Encrypt").map(str::trim);
        let ciphertext = ciphertext.ok_or(Refusal::Unreadable(
            "it says that it is encrypted and has no `Encrypt`",
        ))?;
        self.check_msg_signature(query, ciphertext)?;
        let key = self.aes_key.as_ref().ok_or(Refusal::NoKey)?;
        let plain = key.open(appid, ciphertext)?;
        Event::of_authentic(&plain)
    }

    fn check_signature(&self, query: &Query) -> Result<(), Refusal> {
        let claimed = present(query.signature.as_ref(), "signature")?;
        self.check(query, claimed, None)
    }

    fn check_msg_signature(&self, query: &Query, ciphertext: &str) -> Result<(), Refusal> {
        let claimed = present(query.msg_signature.as_ref(), "msg_signature")?;
        self.check(query, claimed, Some(ciphertext))
    }

    fn check(&self, query: &Query, claimed: &str, ciphertext: Option<&str>) -> Result<(), Refusal> {
        let timestamp = present(query.timestamp.as_ref(), "timestamp")?;
        let nonce = present(query.nonce.as_ref(), "nonce")?;
        let right = signature::of(&self.token, timestamp, nonce, ciphertext);
        if signature::equal(&right, claimed) {
            Ok(())
        } else {
            Err(Refusal::Signature)
        }
    }
}

#[cfg(test)]
mod tests;
