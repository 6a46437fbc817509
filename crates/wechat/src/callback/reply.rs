//! Encrypted replies, for apps in safe mode. A gateway answers `success` to every push, which is never encrypted; this
//! is for whoever has more to say.

use domain::app::AppId;
use serde::Serialize;

use super::{KeyFormat, Keys, signature};

/// A reply as WeChat reads it: serialise it for JSON, or ask for [`Reply::to_xml`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Reply {
    /// The message in its envelope.
    pub encrypt: String,
    /// The signature over the other fields.
    pub msg_signature: String,
    /// When it was made, in seconds since 1970.
    pub time_stamp: i64,
    /// Whatever the maker chose.
    pub nonce: String,
}

impl Keys {
    /// Encrypts and signs `message` for `appid`, as of `time_stamp` (seconds since 1970). `random` is fresh for each.
    /// Without an `EncodingAESKey` there is nothing to encrypt with.
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
