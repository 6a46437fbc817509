//! A new master key: everything that the database seals is sealed anew.

use store::Place;

use crate::{Tenancy, TenancyError};

/// How many values are read at once.
const BATCH: u64 = 100;

/// How many values of each kind were sealed anew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resealed(pub Vec<(Place, u64)>);

impl Resealed {
    /// All together.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|(_, count)| count).sum()
    }
}

impl Tenancy {
    /// Seals everything under the master key that is sealed under the other one which it opens too. What is done is
    /// done: broken off and begun again, it goes on where it was. A value that somebody changes meanwhile keeps the
    /// change.
    pub async fn reseal(&self) -> Result<Resealed, TenancyError> {
        let mut done = Resealed::default();
        for place in Place::ALL {
            done.0.push((place, self.reseal_place(place).await?));
        }
        let inner = &*self.0;
        let key = inner.master_key.id();
        let words = format!("{} secrets were sealed anew", done.total());
        let line = self.1.did("master_key.rotate", &key).saying(words);
        let now = inner.coord.clock().now();
        inner.store.platform().append_audit(line, now).await?;
        Ok(done)
    }

    async fn reseal_place(&self, place: Place) -> Result<u64, TenancyError> {
        let inner = &*self.0;
        let (platform, key) = (inner.store.platform(), &inner.master_key);
        let mut done = 0;
        loop {
            let values = platform.sealed_otherwise(place, key.id(), BATCH).await?;
            if values.is_empty() {
                return Ok(done);
            }
            for value in values {
                let plain = key.open(&value.owner, &value.sealed)?;
                let anew = key.seal(&value.owner, rand::random(), &plain);
                done += u64::from(platform.replace_sealed(&value, anew).await?);
            }
        }
    }
}
