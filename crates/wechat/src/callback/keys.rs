//! The checks of a request: signature, encryption and appid.

use domain::{
    app::AppId,
    secret::{CallbackAesKey, CallbackToken},
};

use super::{
    CallbackCheckError, KeyFormat, Query, WechatEvent, envelope::AesKey, node::Node,
    query::present, signature,
};

/// The message push settings of an app, as configured by the tenant.
#[derive(Clone, Debug)]
pub struct Keys {
    pub(super) token: CallbackToken,
    pub(super) aes_key: Option<AesKey>,
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
    /// [`EventKind::Unreadable`](super::EventKind::Unreadable), because WeChat would repeat a refused callback without effect.
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
