//! Query strings.

use axum::extract::{FromRequestParts, Query};
use http::request::Parts;
use serde::de::DeserializeOwned;

use crate::problem::Problem;

/// The query as a `T`. Whatever is wrong with it, an unknown parameter included, is 400.
#[derive(Debug)]
pub(crate) struct ApiQuery<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for ApiQuery<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        match Query::<T>::try_from_uri(&parts.uri) {
            Ok(Query(query)) => Ok(Self(query)),
            Err(rejection) => {
                let words = rejection.body_text();
                let words = words
                    .strip_prefix("Failed to deserialize query string: ")
                    .unwrap_or(&words);
                Err(Problem::invalid_request(format!(
                    "the query cannot be read: {words}; see /docs for its parameters"
                )))
            }
        }
    }
}
