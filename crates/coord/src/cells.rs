//! Cells: values that replicas show each other until a deadline.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use dashmap::{DashMap, Entry};

use crate::{Clock, CoordError};

/// How many puts may pass before cells whose deadline is over are swept out.
const PUTS_PER_SWEEP: usize = 1024;

/// A value and its place in the order of values that its key has had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// The value. Whoever puts a secret here seals it first.
    pub value: Vec<u8>,
    /// Grows with every new value of a key.
    pub generation: u64,
}

/// Values that replicas show each other. A cell may be missing at any time: it is a hint that saves work.
#[async_trait]
pub trait Cells: Send + Sync {
    /// The cell at `key`, unless its deadline has passed.
    async fn get(&self, key: &str) -> Result<Option<Cell>, CoordError>;

    /// Puts a value that is gone at `deadline`. Replaces an older or equal generation only; says whether it did.
    async fn put(&self, key: &str, cell: Cell, deadline: DateTime<Utc>)
    -> Result<bool, CoordError>;

    /// Drops the cell if it still has this generation; says whether it did.
    async fn drop_if(&self, key: &str, generation: u64) -> Result<bool, CoordError>;
}

/// Cells in this process's memory.
pub(crate) struct LocalCells {
    clock: Clock,
    cells: DashMap<String, (Cell, DateTime<Utc>)>,
    puts: AtomicUsize,
}

impl LocalCells {
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            clock,
            cells: DashMap::new(),
            puts: AtomicUsize::new(0),
        }
    }
}

#[async_trait]
impl Cells for LocalCells {
    async fn get(&self, key: &str) -> Result<Option<Cell>, CoordError> {
        let now = self.clock.now();
        let found = self.cells.get(key);
        Ok(found.filter(|cell| cell.1 > now).map(|cell| cell.0.clone()))
    }

    async fn put(
        &self,
        key: &str,
        cell: Cell,
        deadline: DateTime<Utc>,
    ) -> Result<bool, CoordError> {
        let now = self.clock.now();
        if self.puts.fetch_add(1, Ordering::Relaxed) % PUTS_PER_SWEEP == PUTS_PER_SWEEP - 1 {
            self.cells.retain(|_, (_, deadline)| *deadline > now);
        }
        if deadline <= now {
            return Ok(false);
        }
        match self.cells.entry(key.to_owned()) {
            Entry::Occupied(there)
                if there.get().1 > now && there.get().0.generation > cell.generation =>
            {
                Ok(false)
            }
            entry => {
                entry.insert((cell, deadline));
                Ok(true)
            }
        }
    }

    async fn drop_if(&self, key: &str, generation: u64) -> Result<bool, CoordError> {
        let now = self.clock.now();
        let dropped = self
            .cells
            .remove_if(key, |_, (cell, _)| cell.generation == generation);
        Ok(dropped.is_some_and(|(_, (_, deadline))| deadline > now))
    }
}
