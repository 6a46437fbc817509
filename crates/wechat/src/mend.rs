//! Repairs JSON and XML that violate their formats in the ways in which WeChat's JSON and XML do.

use std::borrow::Cow;

use quick_xml::escape::escape;

/// The replacement character as JSON escapes it.
const REPLACED: &str = "\\ufffd";

/// Repairs JSON: raw control characters become blanks, unpaired surrogates become `U+FFFD`, and a backslash that begins
/// no escape becomes an escaped backslash.
pub(crate) fn json(text: &str) -> String {
    let mut mended = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c < ' ' || c == '\\') {
        mended.push_str(&rest[..at]);
        rest = &rest[at..];
        let length = match escaped_unit(rest) {
            Some(0xd800..=0xdbff)
                if matches!(rest.get(6..).and_then(escaped_unit), Some(0xdc00..=0xdfff)) =>
            {
                mended.push_str(&rest[..12]);
                12
            }
            Some(0xd800..=0xdfff) => {
                mended.push_str(REPLACED);
                6
            }
            Some(_) => {
                mended.push_str(&rest[..6]);
                6
            }
            None if is_escape(rest) => {
                mended.push_str(&rest[..2]);
                2
            }
            None if rest.starts_with('\\') => {
                mended.push_str("\\\\");
                1
            }
            None => {
                mended.push(' ');
                1
            }
        };
        rest = &rest[length..];
    }
    mended.push_str(rest);
    mended
}

/// Whether `text` begins with a two-character escape of JSON.
fn is_escape(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next() == Some('\\') && chars.next().is_some_and(|c| "\"\\/bfnrt".contains(c))
}

/// The UTF-16 unit of the `\uXXXX` escape at the start of `text`.
fn escaped_unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex.then(|| u16::from_str_radix(digits, 16).ok())?
}

/// Repairs XML: a CDATA section ends where the surrounding element ends, and an `&` that begins no reference of
/// standard XML is escaped.
///
/// Users write `]]>` and whole CDATA sections into messages, and WeChat escapes neither.
pub(crate) fn xml(text: &str) -> String {
    const BEGIN: &str = "<![CDATA[";
    let mut mended = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, inside)) = rest.split_once(BEGIN) {
        mended.push_str(&escape_stray(before));
        let element = before
            .trim_end()
            .strip_suffix('>')
            .and_then(|before| before.rsplit_once('<'));
        let end = element
            .and_then(|(_, name)| inside.find(&format!("]]></{name}>")))
            .or_else(|| inside.find("]]>"));
        let Some(end) = end else {
            mended.push_str(BEGIN);
            rest = inside;
            break;
        };
        mended.push_str(&escape(&inside[..end]));
        rest = &inside[end + 3..];
    }
    mended.push_str(&escape_stray(rest));
    mended
}

/// The markup with `&amp;` for each `&` that begins no reference of standard XML.
fn escape_stray(markup: &str) -> Cow<'_, str> {
    const KNOWN: [&str; 6] = ["amp;", "lt;", "gt;", "quot;", "apos;", "#"];
    if !markup.contains('&') {
        return Cow::Borrowed(markup);
    }
    let mut parts = markup.split('&');
    let mut escaped = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let is_known = KNOWN.iter().any(|known| part.starts_with(known));
        escaped.push_str(if is_known { "&" } else { "&amp;" });
        escaped.push_str(part);
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn json_keeps_what_is_right() {
        let right = r#"{"a":"\\u d83d \ud83d\ude00 \n \" é","b":[1.0]}"#;
        assert_eq!(json(right), right);
        assert_eq!(json("{\"a\":\"x\ny\u{1}\"}\0"), "{\"a\":\"x y \"} ");
        assert_eq!(json(r"\ud83d!\ude00 \\ud83d"), r"\ufffd!\ufffd \\ud83d");
        assert_eq!(json(r"a\x \u12 b\"), r"a\\x \\u12 b\\");
        assert_eq!(json(r"\ud83d\ud83d\ude00"), r"\ufffd\ud83d\ude00");
    }

    #[test]
    fn xml_ends_a_section_with_its_element() {
        assert_eq!(
            xml("<xml><A><![CDATA[1 ]]> 2 <![CDATA[3]]></A><B>x & y &amp; &b;</B></xml>"),
            "<xml><A>1 ]]&gt; 2 &lt;![CDATA[3</A><B>x &amp; y &amp; &amp;b;</B></xml>"
        );
        assert_eq!(xml("<A><![CDATA[open"), "<A><![CDATA[open");
    }

    proptest! {
        #[test]
        fn mended_json_has_no_control_characters_and_right_json_stays(text in any::<String>(), broken in "(\\\\u[dD][89a-fA-F][0-9a-f]{2}|\\\\|\\\\u|[\\x00-\\x1f]|x){0,12}") {
            let right = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(json(&right), right);
            prop_assert!(!json(&broken).contains(|c: char| c < ' '));
            let _ = xml(&broken);
        }
    }
}
