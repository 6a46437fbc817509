//! Cursors: the place of a list where the next page begins, as an opaque text.

use std::{fmt::Display, str::FromStr};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

use crate::problem::Problem;

/// The cursor that goes on after the item with key `key`.
pub(crate) fn encode(key: &impl Display) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(key.to_string())
}

/// The key that a cursor goes on after.
pub(crate) fn decode<K: FromStr>(cursor: &str) -> Result<K, Problem> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).ok();
    let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    let text = text.filter(|text| !text.contains(char::is_control));
    let key = text.and_then(|text| text.parse().ok());
    key.ok_or_else(|| {
        Problem::invalid_request(
            "`cursor` is none of this list: send `next_cursor` of the page before, unchanged",
        )
    })
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn cursors_come_back_and_nonsense_does_not() {
        let key = Uuid::from_u128(7);
        assert_eq!(decode::<Uuid>(&encode(&key)).unwrap(), key);
        assert_eq!(decode::<String>(&encode(&"1.a")).unwrap(), "1.a");
        assert!(decode::<String>("MS4A").is_err(), "U+0000");
        for nonsense in ["", "!", "AAAA", &encode(&"not a uuid")] {
            assert!(decode::<Uuid>(nonsense).is_err(), "{nonsense:?}");
        }
    }
}
