//! Query strings.

use std::borrow::Cow;

/// The percent-decoded value of a parameter; empty for a missing parameter.
pub(crate) fn value<'a>(query: &'a str, name: &str) -> Cow<'a, str> {
    let raw = query
        .split('&')
        .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
        .unwrap_or("");
    if raw.contains(['%', '+']) {
        Cow::Owned(decode(raw))
    } else {
        Cow::Borrowed(raw)
    }
}

fn decode(raw: &str) -> String {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        let decoded = match first {
            b'+' => b' ',
            b'%' => match after
                .get(..2)
                .and_then(|hex| std::str::from_utf8(hex).ok())
                .and_then(|hex| u8::from_str_radix(hex, 16).ok())
            {
                Some(byte) => {
                    rest = &after[2..];
                    byte
                }
                None => b'%',
            },
            plain => plain,
        };
        bytes.push(decoded);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_by_their_whole_name() {
        let query = "xappid=1&appid=wx%31%2&secret=a+b";
        assert_eq!(value(query, "appid"), "wx1%2");
        assert_eq!(value(query, "secret"), "a b");
        assert_eq!(value(query, "app"), "");
    }
}
