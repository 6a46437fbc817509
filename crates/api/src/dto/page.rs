//! Lists.

use std::{fmt::Display, str::FromStr};

use serde::{Deserialize, Serialize};
use store::Listing;
use utoipa::{IntoParams, ToSchema};

use crate::{cursor, problem::Problem};

const DEFAULT_LIMIT: u64 = 50;
const MAX_LIMIT: u64 = 200;

/// One page of a list, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// The items.
    data: Vec<T>,
    /// Send it as `cursor` for the next page; null: this was the last one.
    #[schema(required = true)]
    next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// A list with everything on one page.
    pub fn all(data: Vec<T>) -> Self {
        Self {
            data,
            next_cursor: None,
        }
    }

    /// The page of what the store listed.
    pub(crate) fn of<U, K: Display>(listing: Listing<U, K>) -> Self
    where
        T: From<U>,
    {
        Self::map(listing, T::from)
    }

    /// The page of what the store listed, each item shown by `show`.
    pub(crate) fn map<U, K: Display>(listing: Listing<U, K>, show: impl FnMut(U) -> T) -> Self {
        Self {
            data: listing.items.into_iter().map(show).collect(),
            next_cursor: listing.next.map(|key| cursor::encode(&key)),
        }
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
    /// The page of the store that is asked for.
    pub(crate) fn page<K: FromStr>(&self) -> Result<store::Page<K>, Problem> {
        page(self.limit, self.cursor.as_deref())
    }
}

/// The page of the store that `limit` and `cursor` ask for.
pub(crate) fn page<K: FromStr>(
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
        after: cursor.map(cursor::decode).transpose()?,
    })
}
