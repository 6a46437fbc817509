//! The rules of the pass-through: which paths are forwarded, and which names in a query and a body are refused.
//!
//! Names are compared by their letters and digits only, in lower case and with all escapes decoded, so that no spelling
//! bypasses a rule: `/cgi-bin/Component/API-clear%5FQuota` and `App_Secret` match like the plain forms.

use crate::codes;

/// Words in the paths of calls that return or take tokens, tickets or credentials.
const CREDENTIALS: [&str; 7] = [
    "token",
    "secret",
    "credential",
    "pushticket",
    "preauthcode",
    "queryauth",
    // Returns an authorization code.
    "fastregister",
];

/// Whether a path may be forwarded. The path must consist of plain segments under `/cgi-bin`, `/wxa` or `/wxaapi`, so
/// that the gateway and WeChat interpret the path alike. Calls that the gateway implements itself, calls that return or
/// take tokens, tickets or credentials, and calls that clear quotas are not forwarded.
pub fn is_forwardable(path: &str) -> bool {
    let mut segments = path.split('/');
    let rooted = segments.next() == Some("");
    let home = segments.next().unwrap_or_default();
    let mut rest = segments.peekable();
    let plain = |segment: &str| {
        !segment.is_empty()
            && !segment.starts_with('.')
            && segment
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
    };
    rooted
        && matches!(home, "cgi-bin" | "wxa" | "wxaapi")
        && rest.peek().is_some()
        && rest.all(plain)
        && !is_denied(path)
}

/// Whether a path, in any spelling, is one of the paths that are never forwarded.
fn is_denied(path: &str) -> bool {
    use domain::message::Channel::{Official, Subscribe, Template};
    let segments = segments(path);
    let has = |word: &str| segments.iter().any(|segment| segment == word);
    let contains = |word: &str| segments.iter().any(|segment| segment.contains(word));
    // Web pages sign with the ticket of this call. The ticket permits nothing else, and a new ticket ends no other.
    let is_page_ticket = segments == ["cgibin", "ticket", "getticket"];
    let hands_out = CREDENTIALS.into_iter().any(contains) || has("ticket") && !is_page_ticket;
    // The calls of a third-party platform about its authorizers return refresh tokens of the authorizers.
    let is_platform = has("component") && segments.iter().any(|segment| segment.starts_with("api"));
    let clears = contains("quota") && (contains("clear") || contains("reset"));
    let is_send = [Subscribe, Template, Official]
        .into_iter()
        .any(|channel| segments == self::segments(codes::path(channel)));
    hands_out || is_platform || clears || is_send
}

/// The segments of a path, reduced to letters and digits, as read by a server that decodes escapes and resolves dots.
fn segments(path: &str) -> Vec<String> {
    let mut decoded = path.as_bytes().to_vec();
    // A second server behind the first may decode escapes once more.
    while let Some(next) = undo_escapes(&decoded) {
        decoded = next;
    }
    let text = String::from_utf8_lossy(&decoded).replace('\\', "/");
    let mut segments = Vec::new();
    for segment in text.split(['/', ';', '?', '#']) {
        match segment {
            ".." => drop(segments.pop()),
            other => segments.push(letters(other)),
        }
    }
    segments.retain(|segment| !segment.is_empty());
    segments
}

/// Decodes percent-encodings once; `None`: `bytes` contains no percent-encoding.
pub(super) fn undo_escapes(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, others)) = rest.split_first() {
        let escaped = (first == b'%').then(|| others.get(..2)).flatten();
        let escaped = escaped.and_then(|digits| str::from_utf8(digits).ok());
        // `from_str_radix` would accept a sign.
        let escaped = escaped.filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        if let Some(byte) = escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            plain.push(byte);
            rest = &others[2..];
        } else {
            plain.push(first);
            rest = others;
        }
    }
    (plain.len() < bytes.len()).then_some(plain)
}

/// The letters and digits of a name, in lower case.
fn letters(name: &str) -> String {
    let letters = name.chars().filter(|c| c.is_alphanumeric());
    letters.flat_map(char::to_lowercase).collect()
}

/// Whether a query contains a secret, or an access token in addition to the gateway's token.
pub fn query_carries_secret(query: &str) -> bool {
    // Some servers treat a semicolon as an ampersand.
    query.split(['&', ';']).any(|pair| {
        let name = pair.split('=').next().unwrap_or_default().replace('+', " ");
        let mut name = name.into_bytes();
        while let Some(next) = undo_escapes(&name) {
            name = next;
        }
        let name = String::from_utf8_lossy(&name);
        is_secret(&name) || letters(&name) == "accesstoken"
    })
}

/// Whether a body has a member, a field or a form part with the name of a secret.
pub(super) fn body_carries_secret(content_type: Option<&str>, body: &[u8]) -> bool {
    let content_type = content_type.unwrap_or_default().to_ascii_lowercase();
    let text = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    let first = text.iter().find(|byte| !byte.is_ascii_whitespace());
    if matches!(first, Some(b'{' | b'[')) {
        has_secret_member(text)
    } else if content_type.contains("multipart") {
        has_secret_part(text)
    } else if content_type.is_empty() || content_type.contains("urlencoded") {
        query_carries_secret(&String::from_utf8_lossy(text))
    } else {
        false
    }
}

fn is_secret(name: &str) -> bool {
    letters(name).contains("secret")
}

/// Whether JSON has a member, at any depth, with the name of a secret. The scan looks at JSON strings only and ignores
/// all other rules of JSON, because WeChat's parser may be lenient.
fn has_secret_member(json: &[u8]) -> bool {
    let mut rest = json;
    while let Some(start) = rest.iter().position(|&byte| byte == b'"') {
        let text = &rest[start + 1..];
        let length = text_length(text);
        let after = text.get(length + 1..).unwrap_or_default();
        let next = after.iter().find(|byte| !byte.is_ascii_whitespace());
        if next == Some(&b':') && is_secret(&unescaped(&text[..length])) {
            return true;
        }
        rest = after;
    }
    false
}

/// The number of bytes up to the quote that ends a JSON string.
fn text_length(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'"' => return at,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    text.len()
}

/// A JSON string with the `\u` escapes decoded. Other escapes stay: no name needs other escapes, and the comparison
/// ignores backslashes.
fn unescaped(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let mut plain = String::with_capacity(text.len());
    let mut parts = text.split("\\u");
    plain.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let code = part
            .get(..4)
            .and_then(|digits| u32::from_str_radix(digits, 16).ok());
        match code.and_then(char::from_u32) {
            Some(letter) => {
                plain.push(letter);
                plain.push_str(&part[4..]);
            }
            None => plain.push_str(part),
        }
    }
    plain
}

/// Whether a form has a part with the name of a secret.
fn has_secret_part(body: &[u8]) -> bool {
    const HEAD: &[u8] = b"content-disposition:";
    body.split(|&byte| byte == b'\n').any(|line| {
        let is_head = line
            .get(..HEAD.len())
            .is_some_and(|head| head.eq_ignore_ascii_case(HEAD));
        let named = |line: &[u8]| {
            let line = String::from_utf8_lossy(line).to_lowercase();
            let mut parameters = line.split(';').map(str::trim);
            parameters.any(|parameter| {
                parameter.starts_with("name")
                    && parameter
                        .split_once('=')
                        .is_some_and(|(_, name)| is_secret(name))
            })
        };
        is_head && named(line)
    })
}

#[cfg(test)]
mod tests;
