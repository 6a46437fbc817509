//! The gateway's own sentences about a field, in place of the messages of libraries.

/// The form of a time, with an example.
pub(super) const TIME: &str = "a time such as 2026-03-01T08:30:00Z";

/// The sentence about a field for a message of serde, chrono or the standard library. Other messages come from the
/// gateway and stay unchanged.
pub(super) fn plain(said: &str) -> String {
    if said.starts_with("missing field `") {
        return "is missing".to_owned();
    }
    if said.starts_with("duplicate field `") {
        return "is given twice: send one value".to_owned();
    }
    if said.starts_with("unknown field `") {
        let list = expected(said).unwrap_or_default();
        let known = names(&list);
        return if known.is_empty() {
            "is not known: nothing is allowed here".to_owned()
        } else {
            format!("is not known: the known names are {}", known.join(", "))
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

/// The text behind the last `expected`: the text before it may contain words of the caller.
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

/// Why a text is not JSON, and where.
pub(crate) fn explain_syntax(error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    if error.is_eof() {
        return if (line, column) == (1, 0) {
            "the text is empty".to_owned()
        } else {
            format!(
                "the text ends at line {line} column {column} within a value: the end of the value is missing"
            )
        };
    }
    let said = error.to_string();
    let place = format!(" at line {line} column {column}");
    let why = match said.strip_suffix(&place).unwrap_or(&said) {
        "trailing comma" => "a comma with nothing after the comma",
        "trailing characters" => "there is more text after the end of the value",
        "key must be a string" => "a name without double quotes",
        "recursion limit exceeded" => "nested too deeply",
        "invalid escape" => "a \\ in a string before a letter that is not an escape",
        "invalid unicode code point" => "bytes that are not UTF-8",
        "lone leading surrogate in hex escape" | "unexpected end of hex escape" => {
            "a \\u escape in a string that is only half of a character"
        }
        control if control.starts_with("control character ") => {
            "a line break or another control character in a string: write an escape such as \\n or \\u000a"
        }
        own => own,
    };
    format!("{why}{place}")
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

    /// The sentence about a JSON text that is not a `T`.
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
            "is not known: the known names are count"
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

    #[test]
    fn a_text_that_is_no_json_says_why_and_where() {
        for (text, told) in [
            ("", "the text is empty"),
            (
                "{\"a\": [1",
                "the text ends at line 1 column 8 within a value: the end of the value is missing",
            ),
            (
                "{\"a\": \"b",
                "the text ends at line 1 column 8 within a value: the end of the value is missing",
            ),
            ("{a: 1}", "a name without double quotes at line 1 column 2"),
            (
                "[1,]",
                "a comma with nothing after the comma at line 1 column 4",
            ),
            (
                "{} {}",
                "there is more text after the end of the value at line 1 column 4",
            ),
            ("{\"a\" 1}", "expected `:` at line 1 column 6"),
            (
                "nul",
                "the text ends at line 1 column 3 within a value: the end of the value is missing",
            ),
            ("<xml>", "expected value at line 1 column 1"),
            (
                r#"["\q"]"#,
                "a \\ in a string before a letter that is not an escape at line 1 column 4",
            ),
            (
                r#"["\ud800"]"#,
                "a \\u escape in a string that is only half of a character at line 1 column 9",
            ),
            (
                "[\"a\nb\"]",
                "a line break or another control character in a string: write an escape such as \\n or \\u000a at line 2 column 0",
            ),
        ] {
            let error = serde_json::from_str::<serde_json::Value>(text).unwrap_err();
            assert_eq!(explain_syntax(&error), told, "{text}");
        }
        let error = serde_json::from_slice::<serde_json::Value>(b"[\"\xC4\xE3\"]").unwrap_err();
        assert!(explain_syntax(&error).starts_with("bytes that are not UTF-8 at line 1"));
        let deep = serde_json::from_str::<serde_json::Value>(&"[".repeat(1000)).unwrap_err();
        assert!(explain_syntax(&deep).starts_with("nested too deeply at line 1"));
    }
}
