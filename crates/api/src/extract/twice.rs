//! Objects that have a field twice. serde keeps the last of the two where it reads a map, without an error.

use std::{collections::HashSet, fmt};

use domain::violation::{Violation, pointer_token};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The limit of reported fields: more than an answer names. The scan reports no fields beyond this limit.
const MOST: usize = 1000;

/// The fields that occur twice in a JSON text, at every depth.
///
/// The items of a list that is a field of the text itself are left out: each item is parsed and checked alone. The
/// result is empty for a text that is not JSON.
pub(crate) fn repeated_fields(text: &[u8]) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut path = String::new();
    let scan = Scan {
        path: &mut path,
        depth: 0,
        found: &mut found,
    };
    match scan.deserialize(&mut serde_json::Deserializer::from_slice(text)) {
        Ok(()) => found,
        Err(_) => Vec::new(),
    }
}

/// Scans one value and all values in it.
struct Scan<'a> {
    /// The pointer of the value. All depths share one text, so that long names are not copied at each depth.
    path: &'a mut String,
    depth: usize,
    found: &'a mut Vec<Violation>,
}

impl Scan<'_> {
    /// Scans the value under the name or index `step`.
    fn within<E>(
        &mut self,
        step: &str,
        look: impl FnOnce(Scan<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let before = self.path.len();
        self.path.push('/');
        self.path.push_str(step);
        let looked = look(Scan {
            path: self.path,
            depth: self.depth + 1,
            found: self.found,
        });
        self.path.truncate(before);
        looked
    }
}

impl<'de> DeserializeSeed<'de> for Scan<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Scan<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        if self.depth == 1 {
            while list.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(());
        }
        for index in 0.. {
            let mut more = false;
            self.within(&index.to_string(), |scan| {
                more = list.next_element_seed(scan)?.is_some();
                Ok(())
            })?;
            if !more {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut object: A) -> Result<(), A::Error> {
        let mut names = HashSet::new();
        while let Some(name) = object.next_key::<String>()? {
            let step = pointer_token(&name);
            let is_new = names.insert(name);
            self.within(&step, |scan| {
                if !is_new && scan.found.len() < MOST {
                    let rule =
                        "is given twice, with the same value or with two values: send one value";
                    scan.found.push(Violation::new(scan.path.clone(), rule));
                }
                object.next_value_seed(scan)
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointers(text: &str) -> Vec<String> {
        let found = repeated_fields(text.as_bytes()).into_iter();
        found.map(|violation| violation.pointer).collect()
    }

    #[test]
    fn a_field_that_is_there_twice_is_found_at_every_depth() {
        for (text, expected) in [
            (r#"{"a": 1, "b": 1}"#, &[][..]),
            (r#"{"a": 1, "a": 1}"#, &["/a"]),
            (r#"{"a": 1, "\u0061": 2, "a": 3}"#, &["/a", "/a"]),
            (
                r#"{"a": {"x": 1, "x": {"y": 1, "y": 2}}, "b": {"x": 1}}"#,
                &["/a/x", "/a/x/y"],
            ),
            (
                r#"{"m": {"l": [1, {"x~": 1, "x~": null}, [{"/": true, "/": 1.5}]]}}"#,
                &["/m/l/1/x~0", "/m/l/2/0/~1"],
            ),
            (r#"{"items": [{"a": 1, "a": 2}], "items": []}"#, &["/items"]),
            (r#"[1, {"a": 98765432109876543210, "a": -1}]"#, &["/1/a"]),
            (r#"{"a": 1, "a": 2"#, &[]),
            ("", &[]),
        ] {
            assert_eq!(pointers(text), expected, "{text}");
        }
    }

    #[test]
    fn a_text_full_of_them_is_told_in_part() {
        let text = format!("{{{}\"a\": 1}}", "\"a\": 1, ".repeat(5000));
        assert_eq!(pointers(&text).len(), MOST);
    }
}
