//! Cursors: the position in a list where the next page begins, as an opaque text that contains the name of the list.

use std::{fmt::Display, str::FromStr};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

use crate::problem::Problem;

/// The cursor of the list named `list` that continues after the item with key `key`.
pub(crate) fn encode(list: &str, key: &impl Display) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(format!("{list}:{key}"))
}

/// The key after which a cursor of the list named `list` continues.
pub(crate) fn decode<K: FromStr>(list: &str, cursor: &str) -> Result<K, Problem> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).ok();
    let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    let text = text.filter(|text| !text.contains(char::is_control));
    let key = text.and_then(|text| text.strip_prefix(list)?.strip_prefix(':')?.parse().ok());
    key.ok_or_else(|| {
        Problem::invalid_request(
            "`cursor` is not valid for this list: send `next_cursor` of the previous page unchanged, or leave out \
             `cursor` to start at the first page",
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
        assert_eq!(decode::<Uuid>("keys", &encode("keys", &key)).unwrap(), key);
        let text = decode::<String>("apps", &encode("apps", &"1.a:b"));
        assert_eq!(text.unwrap(), "1.a:b");
        let controlled = encode("apps", &"1.\0");
        assert!(decode::<String>("apps", &controlled).is_err(), "U+0000");
        let bare = BASE64_URL_SAFE_NO_PAD.encode(key.to_string());
        for nonsense in ["", "!", "AAAA", &bare, &encode("keys", &"not a uuid")] {
            assert!(decode::<Uuid>("keys", nonsense).is_err(), "{nonsense:?}");
        }
    }

    #[test]
    fn a_cursor_is_of_one_list_alone() {
        let cursor = encode("messages", &Uuid::from_u128(7));
        for other in ["keys", "message", "messages:", ""] {
            assert!(decode::<Uuid>(other, &cursor).is_err(), "{other}");
        }
    }
}
