//! Pages of a list: keyset pagination, so that a page costs the same wherever it is.

use uuid::Uuid;

/// Which part of a list to read: at most `limit` items after the item with key `after`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page<K = Uuid> {
    /// How many items at most.
    pub limit: u64,
    /// The key of the last item already seen; none: from the start.
    pub after: Option<K>,
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing<T, K = Uuid> {
    /// The items, newest first.
    pub items: Vec<T>,
    /// The key to go on after; none: this was the last page.
    pub next: Option<K>,
}

impl<T, K> Listing<T, K> {
    /// A page of `rows`, which were read with a limit one higher than the page's to see whether more follow.
    pub(crate) fn of(mut rows: Vec<T>, page: &Page<K>, key: impl Fn(&T) -> K) -> Self {
        let limit = usize::try_from(page.limit).unwrap_or(usize::MAX);
        let more = rows.len() > limit;
        rows.truncate(limit);
        Self {
            next: if more { rows.last().map(key) } else { None },
            items: rows,
        }
    }

    /// The page with each item turned into another.
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
