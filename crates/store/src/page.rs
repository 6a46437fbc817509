//! Pages of a list: keyset pagination, so that every page costs the same at any position in the list.

use uuid::Uuid;

/// The part of a list to read: at most `limit` items after the item with key `after`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page<K = Uuid> {
    /// The maximum number of items.
    pub limit: u64,
    /// The key of the last item of the page before, or `None` for the first page.
    pub after: Option<K>,
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing<T, K = Uuid> {
    /// The items, newest first.
    pub items: Vec<T>,
    /// The key for the next page, or `None` on the last page.
    pub next: Option<K>,
}

impl<T, K> Listing<T, K> {
    /// Makes a page of `rows`, which were read with a limit of one more than the page's, to find out whether more rows
    /// follow.
    pub(crate) fn of(mut rows: Vec<T>, page: &Page<K>, key: impl Fn(&T) -> K) -> Self {
        let limit = usize::try_from(page.limit).unwrap_or(usize::MAX);
        let more = rows.len() > limit;
        rows.truncate(limit);
        Self {
            next: if more { rows.last().map(key) } else { None },
            items: rows,
        }
    }

    /// Converts each item of the page.
    pub(crate) fn try_map<U, E>(
        self,
        turn: impl FnMut(T) -> Result<U, E>,
    ) -> Result<Listing<U, K>, E> {
        Ok(Listing {
            items: self.items.into_iter().map(turn).collect::<Result<_, E>>()?,
            next: self.next,
        })
    }
}
