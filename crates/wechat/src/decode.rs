//! Parses WeChat's JSON in the form in which WeChat writes JSON.
//!
//! `errcode` is a number or, from some calls, a string, and some successes have none; `msgid` may be missing, a number
//! or a string; strings may contain raw control characters; the content type is unreliable. The parser first tries a
//! strict parse, which suffices for a usual answer.

use domain::secret::AccessToken;
use serde::{Deserialize, Deserializer, de::IgnoredAny};
use serde_json::Value;

use crate::{
    listed::{self, WireTemplate},
    mend,
};

/// The longest `errmsg` that is kept, in bytes.
const MAX_ERRMSG: usize = 1024;

/// An answer to any call. Has no `Debug`, because the answer may contain an access token.
pub(crate) struct Reply {
    /// `errcode`; `None` where WeChat left the field out, for example when WeChat issues a token.
    pub(crate) errcode: Option<i64>,
    /// `errmsg` as received.
    pub(crate) errmsg: Option<String>,
    /// `msgid`, if the value is a valid id.
    pub(crate) msgid: Option<u64>,
    /// `access_token`, if the value is usable in a request.
    pub(crate) access_token: Option<AccessToken>,
    /// `expires_in`, seconds.
    pub(crate) expires_in: Option<u64>,
    /// `quota`: daily limit, used, remaining.
    pub(crate) quota: Option<(u64, u64, u64)>,
    /// The templates, if the answer is a list of templates.
    pub(crate) templates: Option<Vec<WireTemplate>>,
    /// Whether the answer lists addresses (`ip_list`).
    pub(crate) has_addresses: bool,
}

/// Parses a body; `None`: the body is not an answer of WeChat.
pub(crate) fn decode(body: &[u8]) -> Option<Reply> {
    let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    // serde would also accept a JSON array for a struct.
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return None;
    }
    serde_json::from_slice::<Wire>(body)
        .ok()
        .or_else(|| decode_mended(body))
        .and_then(Reply::new)
}

/// Parses the repaired text, with invalid UTF-8 replaced.
fn decode_mended(body: &[u8]) -> Option<Wire> {
    serde_json::from_str(&mend::json(&String::from_utf8_lossy(body))).ok()
}

impl Reply {
    fn new(wire: Wire) -> Option<Self> {
        // With an unreadable code the answer is neither a success nor a refusal.
        let errcode = match wire.errcode {
            Scalar::Missing => None,
            code => Some(code.signed()?),
        };
        let quota = wire.quota.and_then(|quota| {
            Some((
                quota.daily_limit.unsigned()?,
                quota.used.unsigned()?,
                quota.remain.unsigned()?,
            ))
        });
        Some(Self {
            errcode,
            errmsg: wire.errmsg.text(),
            msgid: wire.msgid.unsigned().filter(|&id| id != 0),
            access_token: wire
                .access_token
                .text()
                .filter(|text| is_token(text))
                .map(AccessToken::new),
            expires_in: wire.expires_in.unsigned(),
            quota,
            templates: wire.data,
            has_addresses: wire.ip_list.is_some(),
        })
    }
}

/// The parts of WeChat's error text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ErrorText {
    /// The error text, at most [`MAX_ERRMSG`] bytes.
    pub(crate) errmsg: String,
    /// The request id that WeChat's support asks for: ` rid: …`, or in older answers ` hint: […]`.
    pub(crate) rid: Option<String>,
}

/// Removes the request id from `errmsg`. The text after the id stays: the text may name the invalid field.
pub(crate) fn split_errmsg(errmsg: &str) -> ErrorText {
    let (said, rid) = split_rid(errmsg)
        .or_else(|| split_hint(errmsg, "hint:"))
        .or_else(|| split_hint(errmsg, "hints:"))
        .unwrap_or_else(|| (errmsg.trim().to_owned(), ""));
    ErrorText {
        // No control characters: PostgreSQL does not store NUL, and a log entry should stay one line.
        errmsg: said[..said.floor_char_boundary(MAX_ERRMSG)].replace(char::is_control, " "),
        rid: (!rid.is_empty() && rid.len() <= 128).then(|| rid.to_owned()),
    }
}

/// `… rid: ID`, optionally with more words.
fn split_rid(errmsg: &str) -> Option<(String, &str)> {
    let (before, tail) = split_at_mark(errmsg, "rid:")?;
    let tail = tail.trim_start();
    let (rid, after) = tail.split_once(char::is_whitespace).unwrap_or((tail, ""));
    Some((joined(before, after), rid))
}

/// `… hint: [ID]`, optionally with more words.
fn split_hint<'a>(errmsg: &'a str, mark: &str) -> Option<(String, &'a str)> {
    let (before, tail) = split_at_mark(errmsg, mark)?;
    let inside = tail.trim_start().strip_prefix('[')?;
    let (rid, after) = inside.split_once(']').unwrap_or((inside, ""));
    Some((joined(before, after), rid.trim()))
}

fn joined(before: &str, after: &str) -> String {
    format!("{} {}", before.trim(), after.trim())
        .trim()
        .to_owned()
}

/// Splits at the last `mark` that begins a word.
fn split_at_mark<'a>(text: &'a str, mark: &str) -> Option<(&'a str, &'a str)> {
    let (before, after) = text.rsplit_once(mark)?;
    (before.is_empty() || before.ends_with(char::is_whitespace)).then_some((before, after))
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Wire {
    errcode: Scalar,
    errmsg: Scalar,
    msgid: Scalar,
    access_token: Scalar,
    expires_in: Scalar,
    quota: Option<WireQuota>,
    ip_list: Option<IgnoredAny>,
    #[serde(
        alias = "list",
        alias = "template_list",
        deserialize_with = "listed::lenient"
    )]
    data: Option<Vec<WireTemplate>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireQuota {
    daily_limit: Scalar,
    used: Scalar,
    remain: Scalar,
}

/// A value for which WeChat uses varying types.
#[derive(Default)]
pub(crate) enum Scalar {
    /// Absent or null.
    #[default]
    Missing,
    Signed(i64),
    Unsigned(u64),
    Text(String),
    /// Anything else.
    Other,
}

impl Scalar {
    fn signed(&self) -> Option<i64> {
        match self {
            Self::Signed(number) => Some(*number),
            Self::Unsigned(number) => i64::try_from(*number).ok(),
            Self::Text(text) => text.trim().parse().ok(),
            Self::Missing | Self::Other => None,
        }
    }

    pub(crate) fn unsigned(&self) -> Option<u64> {
        match self {
            Self::Signed(number) => u64::try_from(*number).ok(),
            Self::Unsigned(number) => Some(*number),
            Self::Text(text) => text.trim().parse().ok(),
            Self::Missing | Self::Other => None,
        }
    }

    pub(crate) fn text(self) -> Option<String> {
        if let Self::Text(text) = self {
            Some(text)
        } else {
            None
        }
    }

    /// A text, or a number as text.
    pub(crate) fn word(self) -> Option<String> {
        match self {
            Self::Signed(number) => Some(number.to_string()),
            Self::Unsigned(number) => Some(number.to_string()),
            Self::Text(text) => Some(text),
            Self::Missing | Self::Other => None,
        }
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Value::deserialize(deserializer)? {
            Value::Null => Self::Missing,
            Value::String(text) => Self::Text(text),
            Value::Number(number) => number
                .as_u64()
                .map(Self::Unsigned)
                .or_else(|| number.as_i64().map(Self::Signed))
                .unwrap_or(Self::Other),
            Value::Bool(_) | Value::Array(_) | Value::Object(_) => Self::Other,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn codes(body: &str) -> Option<(Option<i64>, Option<u64>)> {
        decode(body.as_bytes()).map(|reply| (reply.errcode, reply.msgid))
    }

    #[test]
    fn codes_and_ids_come_in_every_type() {
        assert_eq!(
            codes(r#"{"errcode":0,"errmsg":"ok","msgid":4103297716205551617}"#),
            Some((Some(0), Some(4_103_297_716_205_551_617)))
        );
        assert_eq!(
            codes(r#"{"errcode":"0","msgid":"18446744073709551615"}"#),
            Some((Some(0), Some(u64::MAX)))
        );
        assert_eq!(
            codes(r#"{"errcode":"200014"}"#),
            Some((Some(200_014), None))
        );
        assert_eq!(
            codes(r#"{"errcode":" -1 ","msgid":0}"#),
            Some((Some(-1), None))
        );
        assert_eq!(
            codes(r#"{"errcode":0,"msgid":-5,"errmsg":7}"#),
            Some((Some(0), None))
        );
        for no_id in ["1.0", "1e3", "98765432109876543210", "1e400"] {
            assert_eq!(
                codes(&format!(r#"{{"errcode":0,"msgid":{no_id}}}"#)),
                Some((Some(0), None)),
                "{no_id}"
            );
        }
        assert_eq!(
            codes(r#"{"errcode":null,"msgid":{"a":[1]}}"#),
            Some((None, None))
        );
    }

    #[test]
    fn what_is_no_answer_is_none() {
        for body in [
            "",
            "<html>",
            "[0]",
            "0",
            "null",
            "\"ok\"",
            "{",
            r#"{"errcode":"zero"}"#,
            r#"{"errcode":true}"#,
            r#"{"errcode":0.5}"#,
        ] {
            assert_eq!(codes(body), None, "{body}");
        }
    }

    #[test]
    fn bom_control_characters_and_broken_utf8_do_not_matter() {
        assert_eq!(codes("\u{feff}\n{\"errcode\":0}\n"), Some((Some(0), None)));
        let reply = decode(b"{\"errcode\":47003,\"errmsg\":\"a\x01\nb\xff\"}\0").unwrap();
        assert_eq!(
            (reply.errcode, reply.errmsg.as_deref()),
            (Some(47003), Some("a  b\u{fffd}"))
        );
    }

    #[test]
    fn a_token_that_cannot_be_sent_back_is_none() {
        assert!(
            decode(br#"{"access_token":"76_abc-DEF","expires_in":"7200"}"#)
                .unwrap()
                .access_token
                .is_some()
        );
        assert!(
            decode(br#"{"access_token":"76 abc","expires_in":7200}"#)
                .unwrap()
                .access_token
                .is_none()
        );
        assert!(
            decode(br#"{"access_token":"","expires_in":7200}"#)
                .unwrap()
                .access_token
                .is_none()
        );
    }

    #[test]
    fn the_request_id_is_split_off() {
        let split = |text| {
            let words = split_errmsg(text);
            (words.errmsg, words.rid)
        };
        assert_eq!(
            split("invalid openid rid: 68c1f0a2-2b9d47e1-5f03ab9c"),
            (
                "invalid openid".into(),
                Some("68c1f0a2-2b9d47e1-5f03ab9c".into())
            )
        );
        assert_eq!(
            split("invalid form id hint: [ab0d12e3]"),
            ("invalid form id".into(), Some("ab0d12e3".into()))
        );
        assert_eq!(
            split("api limit hints: [ req_id: x ]"),
            ("api limit".into(), Some("req_id: x".into()))
        );
        assert_eq!(
            split("argument invalid! hint: [abc] data.name4.value invalid"),
            (
                "argument invalid! data.name4.value invalid".into(),
                Some("abc".into())
            )
        );
        assert_eq!(
            split("argument invalid! hint: [abc] data.name4.value invalid rid: 68c1f0a2-2b9d47e1"),
            (
                "argument invalid! hint: [abc] data.name4.value invalid".into(),
                Some("68c1f0a2-2b9d47e1".into())
            )
        );
        assert_eq!(
            split("too fast rid: 68c1f0a2 , retry next minute"),
            (
                "too fast , retry next minute".into(),
                Some("68c1f0a2".into())
            )
        );
        assert_eq!(split("no hint: here"), ("no hint: here".into(), None));
        assert_eq!(split("rid: "), (String::new(), None));
        assert_eq!(split("bad grid: 3x3"), ("bad grid: 3x3".into(), None));
        assert_eq!(split("ok"), ("ok".into(), None));
        assert_eq!(split(&"好".repeat(1000)).0, "好".repeat(341));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in proptest::collection::vec(any::<u8>(), 0..256), errmsg in ".{0,64}") {
            let _ = decode(&body);
            let _ = split_errmsg(&errmsg);
        }

        #[test]
        fn no_json_makes_it_panic(tail in r#"[{}\[\]":,0-9a-z\\ \x00-\x1f]{0,64}"#) {
            let _ = decode(format!("{{\"errcode\":{tail}").as_bytes());
            let _ = split_errmsg(&format!("x rid:{tail}"));
            let _ = split_errmsg(&format!("x hint:{tail}"));
        }
    }
}
