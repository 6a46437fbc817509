//! Removes a secret from WeChat's answers, in every form in which programs echo request parameters.

use std::ops::Range;

use base64::{
    Engine,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use memchr::memmem;

use super::rules::undo_escapes;

/// The replacement for the secret in an answer.
const MASK: &[u8] = b"***";
/// The length in bytes of a part of a secret that cannot match by accident.
const PART: usize = 12;

/// The body with every copy of `secret` masked: unchanged, in upper or lower case, percent-encoded, as text of JSON or
/// HTML, in hex and in base64.
pub(super) fn mask(body: Vec<u8>, secret: &str) -> Bytes {
    let mut found: Vec<Range<usize>> = Vec::new();
    for form in forms(secret) {
        let copies = memmem::find_iter(&body, &form);
        found.extend(copies.map(|at| at..at + form.len()));
    }
    if found.is_empty() {
        return body.into();
    }
    found.sort_unstable_by_key(|copy| copy.start);
    let (mut clean, mut from) = (Vec::with_capacity(body.len()), 0);
    for copy in found {
        if copy.start >= from {
            clean.extend_from_slice(&body[from..copy.start]);
            clean.extend_from_slice(MASK);
        }
        from = from.max(copy.end);
    }
    clean.extend_from_slice(&body[from..]);
    clean.into()
}

/// Whether a short text contains a part of `secret` that cannot match by accident.
pub(super) fn contains_part(text: &str, secret: &str) -> bool {
    let mut text = text.as_bytes().to_vec();
    while let Some(next) = undo_escapes(&text) {
        text = next;
    }
    let text = text.to_ascii_lowercase();
    let secret = secret.to_ascii_lowercase();
    let mut parts = secret.as_bytes().windows(PART.min(secret.len().max(1)));
    parts.any(|part| memmem::find(&text, part).is_some())
}

/// Every form of the secret to mask, each once.
fn forms(secret: &str) -> Vec<Vec<u8>> {
    if secret.is_empty() {
        return Vec::new();
    }
    let each = |escape: &dyn Fn(char) -> String| secret.chars().map(escape).collect::<String>();
    let unless = |keep: fn(char) -> bool, escape: fn(u32) -> String| {
        each(&|c| {
            if keep(c) {
                c.to_string()
            } else {
                escape(u32::from(c))
            }
        })
    };
    let unreserved = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~');
    let alphanumeric = |c: char| c.is_ascii_alphanumeric();
    let none = |_: char| false;
    let mut texts = vec![
        secret.to_owned(),
        secret.to_lowercase(),
        secret.to_uppercase(),
    ];
    for keep in [unreserved, alphanumeric, none] {
        texts.push(unless(keep, |code| format!("%{code:02x}")));
        texts.push(unless(keep, |code| format!("%{code:02X}")));
        texts.push(unless(keep, |code| format!("%25{code:02X}")));
        texts.push(unless(keep, |code| format!("\\u{code:04x}")));
        texts.push(unless(keep, |code| format!("\\u{code:04X}")));
        texts.push(unless(keep, |code| format!("&#{code};")));
        texts.push(unless(keep, |code| format!("&#x{code:x};")));
    }
    texts.push(unless(none, |code| format!("{code:02x}")));
    texts.push(unless(none, |code| format!("{code:02X}")));
    texts.push(secret.replace('/', "\\/"));
    texts.push(secret.replace('&', "&amp;"));
    for shift in 0..3 {
        texts.extend(in_base64(secret.as_bytes(), shift));
    }
    texts.sort_unstable();
    texts.dedup();
    texts.into_iter().map(String::into_bytes).collect()
}

/// The base64 characters that depend only on the secret, where the secret starts `shift` bytes after the start of a
/// three-byte group.
fn in_base64(secret: &[u8], shift: usize) -> Vec<String> {
    let padded = [&vec![0; shift], secret].concat();
    let first = (shift * 8).div_ceil(6);
    let last = padded.len() * 8 / 6;
    let middle = |text: String| text.get(first..last).map(str::to_owned);
    [
        STANDARD_NO_PAD.encode(&padded),
        URL_SAFE_NO_PAD.encode(&padded),
    ]
    .into_iter()
    .filter_map(middle)
    .filter(|text| text.len() >= PART)
    .collect()
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    const TOKEN: &str = "76_pZt0Qm3vXkYwR8LhN2cBfSg7UeJd5aVoKxI/t+q=";

    fn masked(body: &str) -> String {
        String::from_utf8(mask(body.into(), TOKEN).into()).unwrap()
    }

    #[test]
    fn every_copy_is_masked() {
        let body = |text: &str| format!("a {text} b {text}{text}");
        assert_eq!(masked(&body(TOKEN)), body("***"));
        assert_eq!(
            masked(&TOKEN[..20]),
            TOKEN[..20],
            "a part alone is not looked for"
        );
        assert_eq!(&mask(b"any".to_vec(), "")[..], b"any");
    }

    #[test]
    fn every_form_that_programs_write_is_masked() {
        let json = serde_json::to_string(TOKEN).unwrap();
        let all = |escape: fn(u8) -> String| TOKEN.bytes().map(escape).collect::<String>();
        for form in [
            TOKEN
                .replace('/', "%2F")
                .replace('+', "%2B")
                .replace('=', "%3D"),
            TOKEN
                .replace('/', "%2f")
                .replace('+', "%2b")
                .replace('=', "%3d"),
            TOKEN
                .replace('/', "%252F")
                .replace('+', "%252B")
                .replace('=', "%253D"),
            TOKEN.replace('/', "\\/"),
            TOKEN
                .replace('+', "\\u002b")
                .replace('/', "\\u002f")
                .replace('=', "\\u003d"),
            json[1..json.len() - 1].to_owned(),
            all(|byte| format!("%{byte:02X}")),
            all(|byte| format!("\\u{byte:04x}")),
            all(|byte| format!("&#{byte};")),
            all(|byte| format!("{byte:02x}")),
            TOKEN.to_uppercase(),
        ] {
            assert_eq!(masked(&format!("<{form}>")), "<***>", "{form}");
        }
        for before in ["", "x", "xy", "xyz"] {
            let encoded = STANDARD.encode(format!("{before}{TOKEN}{before}"));
            let clean = masked(&encoded);
            assert!(clean.contains("***") && clean.len() < 20, "{clean}");
        }
    }

    #[test]
    fn a_part_of_a_secret_is_told_from_an_accident() {
        assert!(contains_part(&format!("{}.jpg", &TOKEN[8..24]), TOKEN));
        assert!(contains_part(&TOKEN[8..24].to_uppercase(), TOKEN));
        let escaped: Vec<_> = TOKEN.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let escaped = escaped.concat();
        assert!(contains_part(&escaped, TOKEN));
        assert!(!contains_part("76_pZt0Qm3.jpg", TOKEN));
        assert!(!contains_part("media.jpg", ""));
        assert!(contains_part("a short one", "short"));
    }
}
