//! Cells: values that replicas show each other until a deadline.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use dashmap::{DashMap, Entry};

use crate::{Clock, CoordError};

/// The number of puts after which cells with a passed deadline are removed.
const PUTS_PER_SWEEP: usize = 1024;

/// A value and its place in the order of the values of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// The value. A caller must seal a secret before putting the secret here.
    pub value: Vec<u8>,
    /// A number that grows with every new value of a key.
    pub generation: u64,
}

/// Values that replicas show each other. A cell saves work, and may be missing at any time.
#[async_trait]
pub trait Cells: Send + Sync {
    /// Returns the cell at `key`, unless the deadline has passed.
    async fn get(&self, key: &str) -> Result<Option<Cell>, CoordError>;

    /// Puts a value that expires at `deadline`. Replaces only an older or equal generation; true if written.
    async fn put(&self, key: &str, cell: Cell, deadline: DateTime<Utc>)
    -> Result<bool, CoordError>;

    /// Removes the cell if the generation is still `generation`; returns whether a cell was removed.
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
