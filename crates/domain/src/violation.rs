//! Violations: what is wrong with a request, one entry for each field.

/// The most bytes of a request's own text that a violation repeats.
const MOST_POINTER: usize = 300;
const MOST_DETAIL: usize = 1000;

/// One invalid field: the position and the broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// JSON pointer (RFC 6901) into the request body, such as `/data/thing1/value`. A very long pointer is cut at its
    /// end.
    pub pointer: String,
    /// The rule, as a sentence that names a valid value. A sentence that repeats a long value is cut in the middle.
    pub detail: String,
}

impl Violation {
    /// A violation of the field at `pointer`.
    pub fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            pointer: cut(pointer.into(), MOST_POINTER, 0),
            detail: cut(detail.into(), MOST_DETAIL / 3, MOST_DETAIL * 2 / 3),
        }
    }
}

/// The first `most` violations. The last entry states how many more violations there are.
pub fn first(mut found: Vec<Violation>, most: usize) -> Vec<Violation> {
    let more = found.len().saturating_sub(most);
    found.truncate(most);
    if let (Some(last), 1..) = (found.last_mut(), more) {
        last.detail = format!("{} (and {more} more rules are broken)", last.detail);
    }
    found
}

/// Escapes one object key for use in a JSON pointer.
pub fn pointer_token(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// Returns a text that is longer than `head` and `tail` bytes together without its middle.
fn cut(text: String, head: usize, tail: usize) -> String {
    if text.len() <= head + tail {
        return text;
    }
    let head = &text[..text.floor_char_boundary(head)];
    let tail = &text[text.ceil_char_boundary(text.len() - tail)..];
    format!("{head}…{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_words_of_a_request_are_not_repeated_whole() {
        let key = "键".repeat(100_000);
        let long = Violation::new(
            format!("/data/{key}"),
            format!("unknown field `{key}`, expected one of `a`"),
        );
        assert!(long.pointer.len() <= MOST_POINTER + 3 && long.pointer.starts_with("/data/键"));
        assert!(long.detail.len() <= MOST_DETAIL + 3, "{}", long.detail);
        assert!(long.detail.starts_with("unknown field `键"));
        assert!(long.detail.ends_with("键`, expected one of `a`"));
        let short = Violation::new("/name", "must be short");
        assert_eq!(
            (&*short.pointer, &*short.detail),
            ("/name", "must be short")
        );
    }

    #[test]
    fn of_many_the_first_are_told_and_how_many_more_there_are() {
        let found = |count: usize| vec![Violation::new("/a", "is wrong"); count];
        assert_eq!(first(found(3), 3), found(3));
        let told = first(found(10), 3);
        assert_eq!(told.len(), 3);
        assert_eq!(told[2].detail, "is wrong (and 7 more rules are broken)");
    }
}
