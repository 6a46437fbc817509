//! Requests with many items, each with a result of its own.

use std::fmt;

use domain::violation::{self, Violation};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, IgnoredAny, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{
    extract::parse,
    problem::{MOST_ERRORS, Problem, ProblemKind},
};

/// How many items a request may have.
const MOST: usize = 1000;
/// The longest item, in bytes: several times the limit of all fields together, in any encoding of JSON.
const LONGEST: usize = 128 * 1024;

/// Items as the client sent them; each is parsed alone. A list that is too long is cut to one item above the limit.
#[derive(Debug)]
pub(super) struct Items(Vec<Box<RawValue>>);

impl Items {
    /// The items of the field `name`. Fails if the list is empty or too long.
    pub(super) fn each(self, name: &str) -> Result<Vec<Box<RawValue>>, Problem> {
        if (1..=MOST).contains(&self.0.len()) {
            return Ok(self.0);
        }
        let rule = format!("must have 1 to {MOST} {name}: send more in several requests");
        Err(Problem::field(format!("/{name}"), rule))
    }
}

impl<'de> Deserialize<'de> for Items {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ItemsVisitor)
    }
}

struct ItemsVisitor;

impl<'de> Visitor<'de> for ItemsVisitor {
    type Value = Items;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Items, A::Error> {
        let mut items = Vec::new();
        while items.len() <= MOST
            && let Some(item) = list.next_element()?
        {
            items.push(item);
        }
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Items(items))
    }
}

/// Parses an item as a `T`; pointers count from the item.
pub(super) fn read<T: DeserializeOwned>(item: &RawValue) -> Result<T, Vec<Violation>> {
    let text = item.get();
    if text.len() > LONGEST {
        let rule = format!("must have at most {LONGEST} bytes");
        return Err(vec![Violation::new("", rule)]);
    }
    parse(text.as_bytes()).map_err(|problem| match problem.kind() {
        ProblemKind::ValidationFailed => problem.into_errors(),
        _ => vec![Violation::new(
            "",
            "cannot be read: the value is nested too deeply, or has a number or a character that JSON cannot express",
        )],
    })
}

/// How many violations an answer names beside the first violation of each item.
const MOST_MORE: usize = 1000;

/// The space in an answer for the violations of items, so that the answer is not much larger than the request.
#[derive(Debug)]
pub(super) struct ErrorSpace(usize);

impl Default for ErrorSpace {
    fn default() -> Self {
        Self(MOST_MORE)
    }
}

impl ErrorSpace {
    /// The violations of an item, as [`words`]: the first violation, and of the rest as many as the space allows.
    pub(super) fn words(&mut self, found: Vec<Violation>) -> String {
        let told = violation::first(found, MOST_ERRORS.min(1 + self.0));
        self.0 -= told.len().saturating_sub(1);
        words(&told.into())
    }
}

/// The problem as JSON text, in the form of the answer and of its replays.
pub(super) fn words(problem: &Problem) -> String {
    serde_json::to_string(&problem.body(None)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn items(body: &str) -> Result<Items, Problem> {
        #[derive(Deserialize)]
        struct Body {
            items: Items,
        }
        parse::<Body>(body.as_bytes()).map(|body| body.items)
    }

    #[test]
    fn items_are_1_to_1000() {
        for (count, taken) in [
            (0, false),
            (1, true),
            (1000, true),
            (1001, false),
            (5000, false),
        ] {
            let body = json!({"items": vec![0; count]}).to_string();
            assert_eq!(
                items(&body).unwrap().each("items").is_ok(),
                taken,
                "{count}"
            );
        }
        assert!(items(r#"{"items": "none"}"#).is_err());
        assert!(items(r#"{"items": [1, }"#).is_err());
    }

    #[test]
    fn an_item_is_read_as_it_would_be_alone() {
        #[derive(Debug, Deserialize)]
        struct Item {
            #[expect(dead_code, reason = "only parsed")]
            name: String,
        }
        let deep = format!("{{\"name\": {}", "[".repeat(200) + &"]".repeat(200) + "}");
        let long = json!({"name": "x".repeat(LONGEST)}).to_string();
        for (item, pointer) in [
            (r#"{"name": "a", "name": "b"}"#, "/name"),
            (r#"{"name": 1}"#, "/name"),
            (r#"{"name": "\ud800"}"#, ""),
            ("[]", ""),
            (&*deep, "/name"),
            (&*long, ""),
        ] {
            let list = items(&format!("{{\"items\": [{item}]}}")).unwrap();
            let found = read::<Item>(&list.0[0]).unwrap_err();
            assert_eq!(found[0].pointer, pointer, "{item:.40} {found:?}");
        }
        let list = items(r#"{"items": [{"name": "a"}]}"#).unwrap();
        assert!(read::<Item>(&list.0[0]).is_ok());
    }

    #[test]
    fn an_answer_has_room_for_the_first_fault_of_each_item_and_for_some_more() {
        let mut room = ErrorSpace::default();
        let mut told = || {
            let found = vec![Violation::new("/data", "is wrong"); 150];
            let problem: Value = serde_json::from_str(&room.words(found)).unwrap();
            let errors = problem["errors"].as_array().unwrap().clone();
            let last = errors.last().unwrap()["detail"].as_str().unwrap();
            (errors.len(), last.to_owned())
        };
        for _ in 0..10 {
            assert_eq!(
                told(),
                (100, "is wrong (and 50 more rules are broken)".to_owned())
            );
        }
        assert_eq!(told().0, 11);
        assert_eq!(
            told(),
            (1, "is wrong (and 149 more rules are broken)".to_owned())
        );
    }
}
