//! Query strings.

use axum::extract::{FromRequestParts, Query};
use http::{Uri, request::Parts};
use serde::de::DeserializeOwned;

use super::words::plain;
use crate::problem::Problem;

/// The query as a `T`. Whatever is wrong with it, an unknown parameter or a control character included, is 400.
#[derive(Debug)]
pub(crate) struct ApiQuery<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for ApiQuery<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        read(&parts.uri).map(Self)
    }
}

/// Reads the query of `uri`.
pub(crate) fn read<T: DeserializeOwned>(uri: &Uri) -> Result<T, Problem> {
    // Nothing that is looked for has one, and PostgreSQL takes no text with U+0000.
    if let Some(name) = controlled(uri) {
        return Err(Problem::invalid_request(format!(
            "the query cannot be read: `{}` has a control character; leave it out",
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
            // The name of the parameter stands before what is said of its value.
            let words = match words.split_once(": ") {
                Some((name, said)) => format!("`{name}` {}", plain(said)),
                None => unnamed(words),
            };
            Err(Problem::invalid_request(format!(
                "the query cannot be read: {words}; see /docs for its parameters"
            )))
        }
    }
}

/// What is said of a query as a whole names the parameter itself.
fn unnamed(said: &str) -> String {
    match said.split('`').nth(1) {
        Some(name) => format!("`{name}` {}", plain(said)),
        None => plain(said),
    }
}

/// The name of a parameter with a control character in it.
fn controlled(uri: &Uri) -> Option<String> {
    // One can be there encoded alone.
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
