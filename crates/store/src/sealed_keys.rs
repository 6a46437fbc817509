//! The gateway's own keys, which outlive a master key: made once for each database, and sealed before the store gets
//! them.

use chrono::{DateTime, Utc};
use sea_orm::{EntityTrait, sea_query::OnConflict};

use crate::{
    PlatformStore, StoreError,
    entity::sealed_key::{ActiveModel, Column, Entity, Model},
    timestamp::millis,
};

impl PlatformStore {
    /// The sealed key with this name.
    pub async fn sealed_key(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let row = Entity::find_by_id(name).one(self.store.read()).await?;
        Ok(row.map(|row| row.sealed))
    }

    /// Stores a key under this name unless one exists, and returns the stored key. Replicas that start together agree on
    /// one key.
    pub async fn keep_sealed_key(
        &self,
        name: &str,
        sealed: Vec<u8>,
        now: DateTime<Utc>,
    ) -> Result<Vec<u8>, StoreError> {
        let row = Model {
            name: name.to_owned(),
            sealed,
            created_at: millis(now),
        };
        Entity::insert(ActiveModel::from(row))
            .on_conflict(OnConflict::column(Column::Name).do_nothing().to_owned())
            .exec_without_returning(self.store.write())
            .await?;
        let kept = Entity::find_by_id(name).one(self.store.write()).await?;
        kept.map(|row| row.sealed)
            .ok_or(StoreError::NotFound("sealed key"))
    }
}
