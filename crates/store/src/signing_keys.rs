//! The keys that sign access tokens. Their private halves are sealed before they come here.

use chrono::{DateTime, Utc};
use sea_orm::{ColumnTrait, Condition, EntityTrait, QueryFilter, QueryOrder};

use crate::{
    PlatformStore, StoreError,
    entity::signing_key::{ActiveModel, Column, Entity, Model},
    millis, time,
};

/// A key that signs access tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningKey {
    /// Its name in the header of a token.
    pub kid: String,
    /// The private half, sealed under the master key.
    pub private_sealed: Vec<u8>,
    /// The public half: the JWK member `x`, base64url of 32 bytes.
    pub public_key: String,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// From when on its tokens are refused; none: it may sign.
    pub retired_at: Option<DateTime<Utc>>,
}

impl PlatformStore {
    /// The keys whose tokens are good at `now`, newest first.
    pub async fn signing_keys(&self, now: DateTime<Utc>) -> Result<Vec<SigningKey>, StoreError> {
        let in_force = Condition::any()
            .add(Column::RetiredAt.is_null())
            .add(Column::RetiredAt.gt(millis(now)));
        let rows = Entity::find()
            .filter(in_force)
            .order_by_desc(Column::CreatedAt)
            .order_by_desc(Column::Kid)
            .all(&self.store.read)
            .await?;
        Ok(rows.into_iter().map(signing_key).collect())
    }

    /// The key to sign with at present.
    pub async fn newest_signing_key(&self) -> Result<SigningKey, StoreError> {
        let row = Entity::find()
            .filter(Column::RetiredAt.is_null())
            .order_by_desc(Column::CreatedAt)
            .order_by_desc(Column::Kid)
            .one(&self.store.read)
            .await?;
        row.map(signing_key)
            .ok_or(StoreError::NotFound("signing key"))
    }

    /// Adds a key. All replicas verify with it from their next look on.
    pub async fn create_signing_key(&self, key: &SigningKey) -> Result<(), StoreError> {
        let row = Model {
            kid: key.kid.clone(),
            private_sealed: key.private_sealed.clone(),
            public_key: key.public_key.clone(),
            created_at: millis(key.created_at),
            retired_at: key.retired_at.map(millis),
        };
        Entity::insert(ActiveModel::from(row))
            .exec_without_returning(&self.store.write)
            .await?;
        Ok(())
    }
}

fn signing_key(row: Model) -> SigningKey {
    SigningKey {
        kid: row.kid,
        private_sealed: row.private_sealed,
        public_key: row.public_key,
        created_at: time(row.created_at),
        retired_at: row.retired_at.map(time),
    }
}
