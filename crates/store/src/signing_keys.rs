//! The keys that sign access tokens. The private keys are sealed before the store gets them.

use chrono::{DateTime, Utc};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, Condition, ConnectionTrait, DbBackend, EntityTrait, QueryFilter,
    QueryOrder, sea_query::Expr,
};

use crate::{
    PlatformStore, StoreError,
    entity::signing_key::{ActiveModel, Column, Entity, Model},
    timestamp::{millis, time},
};

/// A key that signs access tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningKey {
    /// The key id (`kid`) in the header of a token.
    pub kid: String,
    /// The private key, sealed with the master key.
    pub private_sealed: Vec<u8>,
    /// The public key: the JWK member `x`, base64url of 32 bytes.
    pub public_key: String,
    /// When the key was created.
    pub created_at: DateTime<Utc>,
    /// From when on the key signs: some time after the creation, so that all replicas know the key by then.
    pub signs_from: DateTime<Utc>,
    /// From when on the tokens of the key are refused, or `None` where the key has no successor.
    pub retired_at: Option<DateTime<Utc>>,
}

impl PlatformStore {
    /// The keys with valid tokens at `now`, newest first.
    pub async fn signing_keys(&self, now: DateTime<Utc>) -> Result<Vec<SigningKey>, StoreError> {
        let in_force = Condition::any()
            .add(Column::RetiredAt.is_null())
            .add(Column::RetiredAt.gt(millis(now)));
        let rows = Entity::find()
            .filter(in_force)
            .order_by_desc(Column::CreatedAt)
            .order_by_desc(Column::Kid)
            .all(self.store.read())
            .await?;
        Ok(rows.into_iter().map(signing_key).collect())
    }

    /// The key that has no successor yet.
    pub async fn newest_signing_key(&self) -> Result<SigningKey, StoreError> {
        let row = Entity::find()
            .filter(Column::RetiredAt.is_null())
            .order_by_desc(Column::CreatedAt)
            .order_by_desc(Column::Kid)
            .one(self.store.read())
            .await?;
        row.map(signing_key)
            .ok_or(StoreError::NotFound("signing key"))
    }

    /// Adds the first key. Returns false and changes nothing where a key without a successor exists. Of replicas that
    /// start at the same moment, one adds a key.
    pub async fn create_signing_key(&self, key: &SigningKey) -> Result<bool, StoreError> {
        let transaction = self.begin(key.created_at).await?;
        if transaction.get_database_backend() == DbBackend::Postgres {
            // Without a row there is no row lock to wait for: the table lock orders concurrent transactions.
            transaction
                .execute_unprepared("LOCK TABLE signing_key IN SHARE ROW EXCLUSIVE MODE")
                .await?;
        }
        let newest = Entity::find().filter(Column::RetiredAt.is_null());
        if newest.one(&transaction).await?.is_some() {
            return Ok(false);
        }
        insert(&transaction, key).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Adds `next` as the successor of the key named `before`, whose tokens end at `retire_at`. Returns false and
    /// changes nothing where `before` has a successor already.
    pub async fn succeed_signing_key(
        &self,
        before: &str,
        next: &SigningKey,
        retire_at: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let transaction = self.begin(next.created_at).await?;
        // A concurrent transaction waits for this row lock, and then matches no row.
        let retired = Entity::update_many()
            .set(ActiveModel {
                retired_at: Set(Some(millis(retire_at))),
                ..ActiveModel::default()
            })
            .filter(Column::RetiredAt.is_null())
            .filter(Column::Kid.eq(before))
            .exec(&transaction)
            .await?;
        if retired.rows_affected == 0 {
            return Ok(false);
        }
        insert(&transaction, next).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Replaces all keys by `next`. The tokens of the previous keys become invalid at once, also where a replica's clock
    /// is wrong.
    pub async fn replace_signing_keys(&self, next: &SigningKey) -> Result<(), StoreError> {
        let transaction = self.begin(next.created_at).await?;
        let in_force = Condition::any()
            .add(Column::RetiredAt.is_null())
            .add(Column::RetiredAt.gt(millis(next.created_at)));
        let end = Entity::update_many()
            .col_expr(Column::RetiredAt, Expr::col(Column::CreatedAt))
            .filter(in_force);
        // The second update ends a successor that another replica added while the first update waited for the lock.
        for _ in 0..2 {
            end.clone().exec(&transaction).await?;
        }
        insert(&transaction, next).await?;
        transaction.commit().await
    }
}

async fn insert(place: &impl ConnectionTrait, key: &SigningKey) -> Result<(), StoreError> {
    let row = Model {
        kid: key.kid.clone(),
        private_sealed: key.private_sealed.clone(),
        public_key: key.public_key.clone(),
        created_at: millis(key.created_at),
        signs_from: millis(key.signs_from),
        retired_at: key.retired_at.map(millis),
    };
    Entity::insert(ActiveModel::from(row))
        .exec_without_returning(place)
        .await?;
    Ok(())
}

fn signing_key(row: Model) -> SigningKey {
    SigningKey {
        kid: row.kid,
        private_sealed: row.private_sealed,
        public_key: row.public_key,
        created_at: time(row.created_at),
        signs_from: time(row.signs_from),
        retired_at: row.retired_at.map(time),
    }
}
