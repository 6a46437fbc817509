//! Encrypted replies, for apps in safe mode. A gateway answers every callback with `success`, which is never encrypted;
//! this module is for callers with other replies.

use domain::app::AppId;
use serde::Serialize;

use super::{KeyFormat, Keys, signature};

/// A reply in WeChat's format: serialise for JSON, or call [`Reply::to_xml`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Reply {
    /// The encrypted message.
    pub encrypt: String,
    /// The signature over the other fields.
    pub msg_signature: String,
    /// The time of the reply, in seconds since 1970.
    pub time_stamp: i64,
    /// A nonce that the caller chose.
    pub nonce: String,
}

impl Keys {
    /// Encrypts and signs `message` for `appid`, with the time `time_stamp` (seconds since 1970). `random` must be
    /// fresh for each call. Without an `EncodingAESKey` the gateway cannot encrypt.
    pub fn reply(
        &self,
        appid: &AppId,
        message: &[u8],
        time_stamp: i64,
        nonce: &str,
        random: [u8; 16],
    ) -> Result<Reply, KeyFormat> {
        let key = self.aes_key.as_ref().ok_or(KeyFormat)?;
        let encrypt = key.seal(appid, random, message);
        let msg_signature =
            signature::of(&self.token, &time_stamp.to_string(), nonce, Some(&encrypt));
        Ok(Reply {
            encrypt,
            msg_signature,
            time_stamp,
            nonce: nonce.to_owned(),
        })
    }
}

impl Reply {
    /// The XML form.
    pub fn to_xml(&self) -> String {
        let Self {
            encrypt,
            msg_signature,
            time_stamp,
            nonce,
        } = self;
        let nonce = quick_xml::escape::escape(nonce.as_str());
        format!(
            "<xml><Encrypt><![CDATA[{encrypt}]]></Encrypt><MsgSignature><![CDATA[{msg_signature}]]></MsgSignature>\
             <TimeStamp>{time_stamp}</TimeStamp><Nonce>{nonce}</Nonce></xml>"
        )
    }
}
