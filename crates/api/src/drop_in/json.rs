//! JSON bodies as SDKs write JSON.

use axum::{body::Bytes, extract::Request};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::reply::{BODY_TOO_LARGE, EMPTY_BODY, INVALID_ARGUMENT, NOT_JSON, WechatReply};
use crate::extract::{Unread, explain_syntax, read_whole};

/// The body, which must not be empty.
pub(super) async fn body_of(request: Request) -> Result<Bytes, WechatReply> {
    let body = read_whole(request, &()).await.map_err(unread)?;
    if body.is_empty() {
        return Err(WechatReply::refused(EMPTY_BODY, "empty post data"));
    }
    Ok(body)
}

/// The answer for a body that could not be read.
pub(super) fn unread(unread: Unread) -> WechatReply {
    match unread {
        Unread::TooLarge => WechatReply::refused(
            BODY_TOO_LARGE,
            "content size out of limit: the body is too large for this call",
        ),
        Unread::TooSlow => WechatReply::busy("the body did not arrive in time"),
        Unread::UnprovenLimitReached => WechatReply::busy(
            "the gateway cannot accept the request at the moment, try again later",
        ),
        Unread::BrokenOff => WechatReply::busy("the body is incomplete"),
    }
}

/// Parses an object, also behind a byte order mark. Raw control characters count as blanks, as in WeChat's answers.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, WechatReply> {
    let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    // serde would accept a JSON array for a struct, too.
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err(not_json("the body is not a JSON object"));
    }
    match serde_json::from_slice(body) {
        Err(error) if !error.is_data() => {
            let blanked: Vec<u8> = body.iter().map(|byte| (*byte).max(b' ')).collect();
            serde_json::from_slice(&blanked)
        }
        read => read,
    }
    .map_err(|error| {
        if error.is_data() {
            invalid(&error.to_string())
        } else {
            not_json(&explain_syntax(&error))
        }
    })
}

fn not_json(why: &str) -> WechatReply {
    WechatReply::refused(NOT_JSON, format!("data format error: {why}"))
}

/// The answer for a wrong field.
pub(super) fn invalid(why: &str) -> WechatReply {
    WechatReply::refused(INVALID_ARGUMENT, format!("argument invalid! {why}"))
}

/// The text of a field; `None` for an empty text or null. WeChat accepts a number and uses its digits.
pub(super) fn text(field: &str, value: Value) -> Result<Option<String>, WechatReply> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text).filter(|text| !text.is_empty())),
        Value::Number(number) => Ok(Some(number.to_string())),
        Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
            Err(invalid(&format!("{field} must be a string")))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;

    #[test]
    fn a_byte_order_mark_and_raw_control_characters_do_not_matter() {
        let read = |body: &str| read::<Map<String, Value>>(body.as_bytes());
        let body = "\u{feff}\r\n{\"a\": \"x\ty\u{1}\"}\n\0";
        assert_eq!(read(body).unwrap()["a"], "x y ");
        for wrong in ["[]", "\"a\"", "{", "{\"a\": }", "\0"] {
            assert_eq!(read(wrong).unwrap_err().errcode(), NOT_JSON, "{wrong}");
        }
    }
}
