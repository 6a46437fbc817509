//! Callbacks: verifies and reads WeChat's requests to the gateway.
//!
//! WeChat signs a callback with the Token of the app's message push settings: SHA-1 over the sorted Token, timestamp and
//! nonce. This signature never covers the body. In *safe* mode the body is encrypted with the `EncodingAESKey`, and a
//! second signature covers the ciphertext. In *compatible* mode the same ciphertext comes beside plain fields, which this
//! module ignores. With an `EncodingAESKey` the content is therefore authentic, and [`Keys`] with an `EncodingAESKey` refuse
//! plain callbacks: no attacker can downgrade the gateway to the weaker mode.
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
pub use event::{Choice, EventKind, Receipt, TemplateChoice, WechatEvent};
pub use reply::Reply;
pub use stamp::SigningStamp;

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

fn present<'a>(
    value: Option<&'a String>,
    name: &'static str,
) -> Result<&'a str, CallbackCheckError> {
    value
        .map(String::as_str)
        .ok_or(CallbackCheckError::Missing(name))
}

/// Why a request is refused. The text is only for the gateway's log: an attacker that learns which check failed could
/// search for a way around the check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallbackCheckError {
    /// A required parameter is missing.
    #[error("the query has no `{0}`: the request is not WeChat's")]
    Missing(&'static str),
    /// The timestamp is invalid.
    #[error("the timestamp is not a number of seconds with ten digits")]
    Timestamp,
    /// The nonce is invalid.
    #[error("the nonce is not a word of letters and digits")]
    Nonce,
    /// The signature was not made with this Token.
    #[error(
        "the signature does not match: set the Token of WeChat's console as callback_token; if the Token is right, the \
        request is not WeChat's"
    )]
    Signature,
    /// A plain callback to an app with a known `EncodingAESKey`.
    #[error(
        "the callback is not encrypted, but the app has an EncodingAESKey: choose the safe mode in WeChat's console"
    )]
    Plain,
    /// An encrypted callback to an app without a known `EncodingAESKey`.
    #[error(
        "the callback is encrypted: set the EncodingAESKey of WeChat's console as callback_aes_key"
    )]
    NoKey,
    /// The ciphertext was not made with this key.
    #[error(
        "the callback cannot be decrypted ({0}): set the EncodingAESKey of WeChat's console as callback_aes_key"
    )]
    Cipher(&'static str),
    /// The callback was encrypted for another app.
    #[error(
        "the callback was encrypted for another appid: check the URL in the console of the app that sends the callback"
    )]
    OtherApp,
    /// The body has not the form of WeChat's callbacks.
    #[error("the body cannot be read: {0}")]
    Unreadable(&'static str),
    /// The list in the body is longer than any list of WeChat: the tenant, who also has the Token, can forge such a
    /// callback.
    #[error("the list in the body is longer than WeChat's lists")]
    TooLong,
}

impl CallbackCheckError {
    /// The kind as one word, for metrics.
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

/// The message push settings of an app, as configured by the tenant.
#[derive(Clone, Debug)]
pub struct Keys {
    token: CallbackToken,
    aes_key: Option<AesKey>,
}

impl Keys {
    /// Keys that verify with `token` and decrypt with `aes_key`. Without an `aes_key`, plain callbacks are accepted.
    pub fn new(token: CallbackToken, aes_key: Option<&CallbackAesKey>) -> Result<Self, KeyFormat> {
        let aes_key = aes_key.map(AesKey::parse).transpose()?;
        Ok(Self { token, aes_key })
    }

    /// The `echostr` to answer WeChat's check of the URL.
    pub fn check_url<'a>(&self, query: &'a Query) -> Result<&'a str, CallbackCheckError> {
        let echo = present(query.echostr.as_ref(), "echostr")?;
        self.check_signature(query)?;
        Ok(echo)
    }

    /// Verifies a callback to `appid` and reads the event. An authentic callback that cannot be read becomes
    /// [`EventKind::Unreadable`], because WeChat would repeat a refused callback without effect.
    pub fn open(
        &self,
        appid: &AppId,
        query: &Query,
        body: &[u8],
    ) -> Result<WechatEvent, CallbackCheckError> {
        if !query.is_encrypted() {
            self.check_signature(query)?;
            return if self.aes_key.is_some() {
                Err(CallbackCheckError::Plain)
            } else {
                WechatEvent::of_authentic(body)
            };
        }
        let outer = Node::read(body)?;
        let ciphertext = outer.text("Encrypt").map(str::trim);
        let ciphertext = ciphertext.ok_or(CallbackCheckError::Unreadable(
            "the query says that the body is encrypted, but the body has no `Encrypt`",
        ))?;
        self.check_msg_signature(query, ciphertext)?;
        let key = self.aes_key.as_ref().ok_or(CallbackCheckError::NoKey)?;
        let plain = key.open(appid, ciphertext)?;
        WechatEvent::of_authentic(&plain)
    }

    fn check_signature(&self, query: &Query) -> Result<(), CallbackCheckError> {
        let claimed = present(query.signature.as_ref(), "signature")?;
        self.check(query, claimed, None)
    }

    fn check_msg_signature(
        &self,
        query: &Query,
        ciphertext: &str,
    ) -> Result<(), CallbackCheckError> {
        let claimed = present(query.msg_signature.as_ref(), "msg_signature")?;
        self.check(query, claimed, Some(ciphertext))
    }

    fn check(
        &self,
        query: &Query,
        claimed: &str,
        ciphertext: Option<&str>,
    ) -> Result<(), CallbackCheckError> {
        let timestamp = present(query.timestamp.as_ref(), "timestamp")?;
        let nonce = present(query.nonce.as_ref(), "nonce")?;
        let right = signature::of(&self.token, timestamp, nonce, ciphertext);
        if signature::equal(&right, claimed) {
            Ok(())
        } else {
            Err(CallbackCheckError::Signature)
        }
    }
}

#[cfg(test)]
mod tests;
