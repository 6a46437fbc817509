//! Pages of lists.

use std::{fmt::Display, str::FromStr};

use axum::{
    Extension, Json,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, Uri};
use serde::{Deserialize, Serialize};
use store::Listing;
use utoipa::{IntoParams, ToSchema};

use crate::{cursor, problem::Problem};

const DEFAULT_LIMIT: u64 = 50;
const MAX_LIMIT: u64 = 200;

/// An item of a list that has pages.
pub(crate) trait Listed {
    /// The name of the list. Cursors contain the name, so that a cursor of another list is refused.
    const LIST: &'static str;
}

/// One page of a list, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// The items.
    data: Vec<T>,
    /// Send this text as `cursor` for the next page; null: this is the last page.
    #[schema(required = true)]
    next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// A list with all items on one page.
    pub fn all(data: Vec<T>) -> Self {
        Self {
            data,
            next_cursor: None,
        }
    }

    /// The page for a listing of the store.
    pub(crate) fn of<U, K: Display>(listing: Listing<U, K>) -> Self
    where
        T: From<U> + Listed,
    {
        Self::map(listing, T::from)
    }

    /// The page for a listing of the store, each item converted by `show`.
    pub(crate) fn map<U, K: Display>(listing: Listing<U, K>, show: impl FnMut(U) -> T) -> Self
    where
        T: Listed,
    {
        Self {
            data: listing.items.into_iter().map(show).collect(),
            next_cursor: listing.next.map(|key| cursor::encode(T::LIST, &key)),
        }
    }
}

/// The cursor of the next page, as an extension of the response for the layer that knows the request's URI.
#[derive(Clone, Debug)]
pub(crate) struct NextCursor(String);

impl NextCursor {
    /// The `Link` header with the next page of the list at `uri` (RFC 8288).
    pub(crate) fn link(&self, uri: &Uri) -> Option<HeaderValue> {
        let query = uri.query().unwrap_or_default().split('&');
        let others = query.filter(|pair| !pair.is_empty() && !pair.starts_with("cursor="));
        let cursor = format!("cursor={}", self.0);
        let query = others
            .chain([cursor.as_str()])
            .collect::<Vec<_>>()
            .join("&");
        let link = format!("<{}?{query}>; rel=\"next\"", uri.path());
        HeaderValue::try_from(link).ok()
    }
}

impl<T: Serialize> IntoResponse for Page<T> {
    fn into_response(self) -> Response {
        let next = self.next_cursor.clone().map(NextCursor);
        (next.map(Extension), Json(self)).into_response()
    }
}

/// Which page of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageQuery {
    /// How many items at most.
    #[param(minimum = 1, maximum = 200, default = 50)]
    pub(crate) limit: Option<u64>,
    /// `next_cursor` of the page before.
    pub(crate) cursor: Option<String>,
}

impl PageQuery {
    /// The store's page for this query, in a list of `T`s.
    pub(crate) fn page<T: Listed, K: FromStr>(&self) -> Result<store::Page<K>, Problem> {
        page::<T, K>(self.limit, self.cursor.as_deref())
    }
}

/// The store's page for `limit` and `cursor`, in a list of `T`s.
pub(crate) fn page<T: Listed, K: FromStr>(
    limit: Option<u64>,
    cursor: Option<&str>,
) -> Result<store::Page<K>, Problem> {
    let limit = limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(Problem::invalid_request(format!(
            "`limit` must be 1 to {MAX_LIMIT}"
        )));
    }
    Ok(store::Page {
        limit,
        after: cursor
            .map(|cursor| cursor::decode(T::LIST, cursor))
            .transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_the_same_list_from_another_place() {
        let link = |uri: &str| {
            let next = NextCursor("bmV4dA".to_owned());
            let link = next.link(&uri.parse().unwrap()).unwrap();
            link.to_str().unwrap().to_owned()
        };
        assert_eq!(link("/v1/keys"), "</v1/keys?cursor=bmV4dA>; rel=\"next\"");
        assert_eq!(
            link("/v1/keys?limit=2&cursor=b2xk&status=sent"),
            "</v1/keys?limit=2&status=sent&cursor=bmV4dA>; rel=\"next\""
        );
    }
}
