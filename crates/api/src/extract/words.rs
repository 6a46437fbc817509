//! What a field must be, in place of what the libraries that read it say.

/// A time as people write one.
pub(super) const TIME: &str = "a time such as 2026-03-01T08:30:00Z";

/// A sentence about a field for what serde, chrono or the standard library say of it. Others are passed on: they are the
/// gateway's own.
pub(super) fn plain(said: &str) -> String {
    if said.starts_with("missing field `") {
        return "is missing".to_owned();
    }
    if said.starts_with("duplicate field `") {
        return "is there twice: send it once".to_owned();
    }
    if said.starts_with("unknown field `") {
        let list = expected(said).unwrap_or_default();
        let known = names(&list);
        return if known.is_empty() {
            "is not known: nothing is asked here".to_owned()
        } else {
            format!("is not known: there is {}", known.join(", "))
        };
    }
    if said.starts_with("unknown variant `") {
        let list = expected(said).unwrap_or_default();
        let known = names(&list);
        return format!("must be {}", known.join(" or "));
    }
    if ["invalid type: ", "invalid value: ", "invalid length "]
        .iter()
        .any(|kind| said.starts_with(kind))
        && let Some(expected) = expected(said)
    {
        return format!("must be {}", thing(&expected));
    }
    match said {
        "premature end of input"
        | "input contains invalid characters"
        | "trailing input"
        | "input is out of range"
        | "input is not enough for unique date and time" => {
            format!("must be {TIME}")
        }
        "invalid digit found in string" | "cannot parse integer from empty string" => {
            "must be a whole number".to_owned()
        }
        "number too large to fit in target type" => "is too large a number".to_owned(),
        "number too small to fit in target type" => {
            "must be a whole number of 0 or more".to_owned()
        }
        "provided string was not `true` or `false`" => "must be true or false".to_owned(),
        own => own.to_owned(),
    }
}

/// What stands behind the last `expected`: words that a caller has written stand before it.
fn expected(said: &str) -> Option<String> {
    let (_, expected) = said.rsplit_once(", expected ")?;
    Some(expected.to_owned())
}

/// The names between backticks.
fn names(list: &str) -> Vec<&str> {
    list.split('`').skip(1).step_by(2).collect()
}

fn thing(expected: &str) -> String {
    let thing = match expected {
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number of 0 or more",
        "i8" | "i16" | "i32" | "i64" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a map" => "an object",
        "a sequence" | "a list" => "an array",
        "an RFC 3339 formatted date and time string" | "a formatted date and time string" => TIME,
        struct_or_enum if struct_or_enum.starts_with("struct ") => "an object",
        struct_or_enum if struct_or_enum.starts_with("variant identifier") => "a string",
        other => other,
    };
    thing.to_owned()
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Utc};
    use serde::{Deserialize, de::DeserializeOwned};

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only read")]
    struct One {
        count: u32,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Word {
        High,
        Low,
    }

    /// What is said of a JSON text that is no `T`.
    fn said<T: DeserializeOwned>(text: &str) -> String {
        let error = serde_json::from_str::<T>(text)
            .err()
            .expect("an error")
            .to_string();
        plain(error.split(" at line ").next().unwrap_or_default())
    }

    #[test]
    fn no_word_is_a_librarys() {
        assert_eq!(said::<One>("{}"), "is missing");
        assert_eq!(
            said::<One>(r#"{"counts": 1}"#),
            "is not known: there is count"
        );
        assert_eq!(
            said::<One>(r#"{"count": "one, expected two"}"#),
            "must be a whole number from 0 to 4294967295"
        );
        assert_eq!(
            said::<One>(r#"{"count": -1}"#),
            "must be a whole number from 0 to 4294967295"
        );
        assert_eq!(
            said::<One>(r#"{"count": 1.5}"#),
            "must be a whole number from 0 to 4294967295"
        );
        assert_eq!(said::<u64>("-1"), "must be a whole number of 0 or more");
        assert_eq!(said::<One>("7"), "must be an object");
        assert_eq!(said::<Word>(r#""middle""#), "must be high or low");
        assert_eq!(said::<bool>("\"true\""), "must be true or false");
        assert_eq!(said::<Vec<u8>>("{}"), "must be an array");
        for text in [
            "\"\"",
            "\"2026-03-01\"",
            "\"2026-03-01 08:30:00 08:00\"",
            "\"noon\"",
            "7",
        ] {
            let told = said::<DateTime<Utc>>(text);
            assert!(
                told.starts_with("must be a time such as 2026-03-01T08:30:00Z"),
                "{text}: {told}"
            );
        }
    }
}
