//! Writing a callback: body, envelope and signatures, from WeChat's documentation.

use std::fmt::Write as _;

use aws_lc_rs::{
    cipher::{AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey},
    digest::{SHA1_FOR_LEGACY_USE_ONLY, digest},
    iv::FixedLength,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::{CallbackRequest, PushError, PushEvent, PushFormat, PushMode, PushSettings};

/// The values that differ in every callback.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp {
    /// Seconds since 1970.
    pub(crate) now: i64,
    pub(crate) nonce: u32,
    pub(crate) random: [u8; 16],
}

impl PushSettings {
    /// Writes the callback for `event`.
    pub(crate) fn write(
        &self,
        appid: &str,
        event: &PushEvent,
        stamp: Stamp,
    ) -> Result<CallbackRequest, PushError> {
        let (timestamp, nonce) = (stamp.now.to_string(), stamp.nonce.to_string());
        let plain = fields(appid, event, stamp.now);
        let message = self.render(&plain);
        let sign = |more: Option<&str>| sign(&self.token, &timestamp, &nonce, more);
        let mut query = format!(
            "signature={}&timestamp={timestamp}&nonce={nonce}&openid={}",
            sign(None),
            event.openid()
        );
        let body = if self.mode == PushMode::Plain {
            message
        } else {
            let key = self.aes_key.as_deref().ok_or(PushError::Key)?;
            let encrypt = seal(key, appid, stamp.random, message.as_bytes())?;
            let _ = write!(
                query,
                "&encrypt_type=aes&msg_signature={}",
                sign(Some(&encrypt))
            );
            let mut shown = match self.mode {
                PushMode::Safe => vec![("ToUserName", json!(account(appid)))],
                PushMode::Plain | PushMode::Compatible => plain,
            };
            shown.push(("Encrypt", json!(encrypt)));
            self.render(&shown)
        };
        let content_type = match self.format {
            PushFormat::Json => "application/json",
            PushFormat::Xml => "text/xml",
        };
        Ok(CallbackRequest {
            url: self.url.clone(),
            query,
            content_type,
            body,
        })
    }

    fn render(&self, fields: &[(&'static str, Value)]) -> String {
        match self.format {
            PushFormat::Json => {
                let flat = fields.iter().flat_map(|(name, value)| match value {
                    // JSON has the list at the top level, and a list of one item is written as the item.
                    Value::Array(items) if items.len() == 1 => vec![("List", items[0].clone())],
                    Value::Array(_) => vec![("List", value.clone())],
                    _ => vec![(*name, value.clone())],
                });
                let object: serde_json::Map<_, _> =
                    flat.map(|(name, value)| (name.to_owned(), value)).collect();
                Value::Object(object).to_string()
            }
            PushFormat::Xml => {
                let mut xml = "<xml>".to_owned();
                for (name, value) in fields {
                    element(&mut xml, name, value);
                }
                xml + "</xml>"
            }
        }
    }
}

/// `<name>…</name>`: numbers bare, texts as CDATA, lists as repeated `List` in the element of the event.
fn element(xml: &mut String, name: &str, value: &Value) {
    let _ = write!(xml, "<{name}>");
    match value {
        Value::Array(items) => items.iter().for_each(|item| element(xml, "List", item)),
        Value::Object(fields) => {
            for (name, value) in fields {
                element(xml, name, value);
            }
        }
        Value::String(text) => {
            let _ = write!(xml, "<![CDATA[{text}]]>");
        }
        other => {
            let _ = write!(xml, "{other}");
        }
    }
    let _ = write!(xml, "</{name}>");
}

/// The fields of an event; a list has the name of the XML element.
fn fields(appid: &str, event: &PushEvent, now: i64) -> Vec<(&'static str, Value)> {
    let chosen = |choices: &[(String, String)], scene: Option<&str>| -> Value {
        let item = |(template_id, choice): &(String, String)| {
            let mut item = json!({"TemplateId": template_id, "SubscribeStatusString": choice});
            if let Some(scene) = scene {
                item["PopupScene"] = json!(scene);
            }
            item
        };
        choices.iter().map(item).collect()
    };
    let (name, more) = match event {
        PushEvent::Sent { receipts, .. } => {
            let list: Value = receipts
                .iter()
                .map(|receipt| {
                    json!({
                        "TemplateId": receipt.template_id, "MsgID": receipt.msgid.to_string(),
                        "ErrorCode": receipt.error_code.to_string(), "ErrorStatus": receipt.error_status,
                    })
                })
                .collect();
            (
                "subscribe_msg_sent_event",
                vec![("SubscribeMsgSentEvent", list)],
            )
        }
        PushEvent::JobFinished { msgid, status, .. } => (
            "TEMPLATESENDJOBFINISH",
            vec![("MsgID", json!(msgid)), ("Status", json!(status))],
        ),
        PushEvent::Popup { choices, .. } => (
            "subscribe_msg_popup_event",
            vec![("SubscribeMsgPopupEvent", chosen(choices, Some("0")))],
        ),
        PushEvent::Change { choices, .. } => (
            "subscribe_msg_change_event",
            vec![("SubscribeMsgChangeEvent", chosen(choices, None))],
        ),
        PushEvent::Other { name, .. } => (name.as_str(), Vec::new()),
    };
    let mut fields = vec![
        ("ToUserName", json!(account(appid))),
        ("FromUserName", json!(event.openid())),
        ("CreateTime", json!(now)),
        ("MsgType", json!("event")),
        ("Event", json!(name)),
    ];
    fields.extend(more);
    fields
}

impl PushEvent {
    fn openid(&self) -> &str {
        match self {
            Self::Sent { openid, .. }
            | Self::JobFinished { openid, .. }
            | Self::Popup { openid, .. }
            | Self::Change { openid, .. }
            | Self::Other { openid, .. } => openid,
        }
    }
}

/// The account's original id.
fn account(appid: &str) -> String {
    format!("gh_{}", appid.get(6..).unwrap_or_default())
}

/// SHA-1 in hex over the sorted parts.
fn sign(token: &str, timestamp: &str, nonce: &str, more: Option<&str>) -> String {
    let mut parts: Vec<&str> = [token, timestamp, nonce].into_iter().chain(more).collect();
    parts.sort_by_key(|part| part.as_bytes());
    let sum = digest(&SHA1_FOR_LEGACY_USE_ONLY, parts.concat().as_bytes());
    sum.as_ref().iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// The envelope: AES-256-CBC, padded to blocks of 32 bytes.
fn seal(key: &str, appid: &str, random: [u8; 16], message: &[u8]) -> Result<String, PushError> {
    let key = key_bytes(key).ok_or(PushError::Key)?;
    let length = u32::try_from(message.len()).map_err(|_| PushError::Key)?;
    let mut bytes = [
        &random[..],
        &length.to_be_bytes(),
        message,
        appid.as_bytes(),
    ]
    .concat();
    let padding = 32 - u8::try_from(bytes.len() % 32).unwrap_or_default();
    bytes.extend(std::iter::repeat_n(padding, padding.into()));
    let mut iv = [0; 16];
    iv.copy_from_slice(&key[..16]);
    let cipher = UnboundCipherKey::new(&AES_256, &key).and_then(EncryptingKey::cbc);
    let context = EncryptionContext::Iv128(FixedLength::from(iv));
    cipher
        .and_then(|cipher| cipher.less_safe_encrypt(&mut bytes, context))
        .map_err(|_| PushError::Key)?;
    Ok(BASE64_STANDARD.encode(bytes))
}

/// Decodes 43 characters of six bits each: 32 bytes, and two unused bits.
fn key_bytes(key: &str) -> Option<[u8; 32]> {
    if key.len() != 43 {
        return None;
    }
    let mut bits = Vec::with_capacity(258);
    for character in key.bytes() {
        let value = match character {
            b'A'..=b'Z' => character - b'A',
            b'a'..=b'z' => character - b'a' + 26,
            b'0'..=b'9' => character - b'0' + 52,
            _ => return None,
        };
        bits.extend((0..6).rev().map(|place| value >> place & 1));
    }
    let mut bytes = [0; 32];
    for (byte, eight) in bytes.iter_mut().zip(bits.chunks_exact(8)) {
        *byte = eight.iter().fold(0, |byte, bit| byte << 1 | bit);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp {
        now: 1_714_112_445,
        nonce: 415_670_741,
        random: *b"a8eedb185eb2fecf",
    };

    fn push(mode: PushMode, format: PushFormat) -> PushSettings {
        PushSettings {
            url: "http://127.0.0.1:9".into(),
            token: "AAAAA".into(),
            aes_key: Some("A".repeat(43)),
            mode,
            format,
            receipts: false,
        }
    }

    /// The numbers are those of WeChat's message push page.
    #[test]
    fn signatures_and_envelopes_are_those_of_the_documentation() {
        assert_eq!(
            sign("AAAAA", "1714036504", "1514711492", None),
            "f464b24fc39322e44b38aa78f5edd27bd1441696"
        );
        let message = r#"{"ToUserName":"gh_97417a04a28d","FromUserName":"o9AgO5Kd5ggOC-bXrbNODIiE3bGY","CreateTime":1714112445,"MsgType":"event","Event":"debug_demo","debug_str":"hello world"}"#;
        let encrypt = seal(
            &"A".repeat(43),
            "wxba5fad812f8e6fb9",
            STAMP.random,
            message.as_bytes(),
        )
        .unwrap();
        assert!(
            encrypt.starts_with("+qdx1OKCy+5JPCBFWw70tm0fJGb2Jmeia4FCB7kao+/Q5c/ohsOz"),
            "{encrypt}"
        );
        assert_eq!(
            sign("AAAAA", "1714112445", "415670741", Some(&encrypt)),
            "046e02f8204d34f8ba5fa3b1db94908f3df2e9b3"
        );
    }

    #[test]
    fn a_key_may_have_bits_that_nobody_looks_at() {
        let key = "q7Xc2Vn8Lk4Rz1Tb6Ym9Wd3Hs5Jf0Gp7Ua2Ke4Qi8Or";
        let other = "q7Xc2Vn8Lk4Rz1Tb6Ym9Wd3Hs5Jf0Gp7Ua2Ke4Qi8Oo";
        assert_eq!(key_bytes(key), key_bytes(other));
        assert_eq!(key_bytes(key).unwrap()[..4], [0xab, 0xb5, 0xdc, 0xd9]);
        assert!(key_bytes("short").is_none() && key_bytes(&"-".repeat(43)).is_none());
    }

    #[test]
    fn bodies_look_like_those_of_the_documentation() {
        let sent = PushEvent::delivered("o1", "t1", 4_103_297_716_205_551_617);
        let write = |push: &PushSettings, event: &PushEvent| {
            push.write("wx0a1b2c3d4e5f6789", event, STAMP).unwrap().body
        };
        let plain = push(PushMode::Plain, PushFormat::Json);
        let body: Value = serde_json::from_str(&write(&plain, &sent)).unwrap();
        assert_eq!(
            body,
            json!({
                "ToUserName": "gh_2c3d4e5f6789", "FromUserName": "o1", "CreateTime": 1_714_112_445, "MsgType": "event",
                "Event": "subscribe_msg_sent_event",
                "List": {"TemplateId": "t1", "MsgID": "4103297716205551617", "ErrorCode": "0", "ErrorStatus": "success"},
            })
        );
        let choice = |word: &str| (format!("t-{word}"), word.to_owned());
        let popup = PushEvent::Popup {
            openid: "o1".into(),
            choices: vec![choice("accept"), choice("reject")],
        };
        let body: Value = serde_json::from_str(&write(&plain, &popup)).unwrap();
        assert_eq!(body["List"][1]["SubscribeStatusString"], "reject");
        let xml = write(&push(PushMode::Plain, PushFormat::Xml), &popup);
        let list = "<SubscribeMsgPopupEvent><List><PopupScene><![CDATA[0]]></PopupScene>";
        assert!(xml.contains(list) && xml.contains("<CreateTime>1714112445</CreateTime>"));
        assert_eq!(xml.matches("<List>").count(), 2);
    }

    #[test]
    fn modes_differ_in_what_is_shown() {
        let event = PushEvent::Other {
            openid: "o1".into(),
            name: "debug_demo".into(),
        };
        let write = |push: PushSettings| push.write("wx0a1b2c3d4e5f6789", &event, STAMP);
        let safe = write(push(PushMode::Safe, PushFormat::Xml)).unwrap();
        assert!(!safe.body.contains("debug_demo") && safe.body.contains("<Encrypt><![CDATA["));
        assert!(safe.query.contains("&encrypt_type=aes&msg_signature="));
        let compatible = write(push(PushMode::Compatible, PushFormat::Json)).unwrap();
        assert!(compatible.body.contains("debug_demo") && compatible.body.contains("\"Encrypt\""));
        let keyless = PushSettings {
            aes_key: None,
            ..push(PushMode::Safe, PushFormat::Json)
        };
        assert_eq!(write(keyless), Err(PushError::Key));
    }
}
