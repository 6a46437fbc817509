//! Query strings.

use axum::extract::{FromRequestParts, Query};
use http::{Uri, request::Parts};
use serde::de::DeserializeOwned;

use super::words::{TIME, plain};
use crate::problem::Problem;

/// The query as a `T`. Every error, also an unknown parameter or a control character, is 400.
#[derive(Debug)]
pub(crate) struct ApiQuery<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for ApiQuery<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        read(&parts.uri).map(Self)
    }
}

/// Parses the query of `uri`.
pub(crate) fn read<T: DeserializeOwned>(uri: &Uri) -> Result<T, Problem> {
    // No searched value has a control character, and PostgreSQL takes no text with U+0000.
    if let Some(name) = controlled(uri) {
        return Err(Problem::invalid_request(format!(
            "the query cannot be read: `{}` has a control character; remove this character",
            name.escape_debug()
        )));
    }
    match Query::<T>::try_from_uri(uri) {
        Ok(Query(query)) => Ok(query),
        Err(rejection) => {
            let words = rejection.body_text();
            let words = words
                .strip_prefix("Failed to deserialize query string: ")
                .unwrap_or(&words);
            let words = explain(words);
            Err(Problem::invalid_request(format!(
                "the query cannot be read: {words}; see /docs for the parameters"
            )))
        }
    }
}

/// Names the parameter and its rule. serde quotes the name of a missing or an unknown parameter, and puts the name of a
/// parameter with a wrong value in front of the message.
fn explain(said: &str) -> String {
    let is_quoted = ["missing field `", "unknown field `", "duplicate field `"]
        .iter()
        .any(|kind| said.starts_with(kind));
    let (name, said) = if is_quoted {
        (said.split('`').nth(1), said)
    } else {
        said.split_once(": ")
            .map_or((None, said), |(name, said)| (Some(name), said))
    };
    let mut rule = plain(said);
    if rule.ends_with(TIME) {
        rule.push_str(", with + written as %2B");
    }
    name.map_or(rule.clone(), |name| format!("`{name}` {rule}"))
}

/// The name of a parameter that contains a control character.
fn controlled(uri: &Uri) -> Option<String> {
    // A control character can occur in encoded form only.
    uri.query().filter(|query| query.contains('%'))?;
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri).ok()?;
    let mut pairs = pairs.into_iter();
    let pair = pairs
        .find(|(name, value)| name.contains(char::is_control) || value.contains(char::is_control));
    pair.map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_parameter_is_named_with_its_rule() {
        for (said, told) in [
            (
                "limit: invalid digit found in string",
                "`limit` must be a whole number",
            ),
            ("missing field `touser`", "`touser` is missing"),
            (
                "unknown field `a: b`, expected `limit`",
                "`a: b` is not known: the known names are limit",
            ),
            (
                "created_after: input contains invalid characters",
                "`created_after` must be a time such as 2026-03-01T08:30:00Z, with + written as %2B",
            ),
        ] {
            assert_eq!(explain(said), told);
        }
    }

    #[test]
    fn control_characters_are_refused_wherever_they_are() {
        let read = |uri: &str| read::<Vec<(String, String)>>(&uri.parse().unwrap());
        for fine in ["/", "/?a=b", "/?a=%E4%BD%A0+%2B"] {
            assert!(read(fine).is_ok(), "{fine}");
        }
        for wrong in ["/?a=%00", "/?a=x&b=y%0Az", "/?%7F=1", "/?a=%C2%85"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
