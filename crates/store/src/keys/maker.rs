//! Who made which key: how many a tenant may have, and what a revoked key takes along.
//!
//! **Locks.** A key that makes another is held `FOR SHARE` until the new key commits, and a revocation locks each key
//! before it looks for what that key has made. So no key slips in between: its maker is either seen as revoked, or the
//! revocation waits and finds the new key.

use chrono::{DateTime, Utc};
use domain::id::{KeyId, TenantId};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, Condition, DatabaseTransaction, EntityTrait, PaginatorTrait,
    QueryFilter, QueryOrder, QuerySelect, sea_query::LockType,
};
use uuid::Uuid;

use super::{MOST_KEYS, NewKeyError, owned, owner_is};
use crate::{
    Actor, NewAuditLine, Store, StoreError, audit,
    entity::{
        api_key::{ActiveModel, Column, Entity},
        tenant,
    },
    millis,
};

/// What becomes of the keys that were made with a key that is revoked, and of those that were made with them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Descendants {
    /// They are revoked as well: whoever stole a key may have made others with it.
    #[default]
    Revoke,
    /// They stay in force, as if whoever made the revoked key had made them: for the exchange of a key that was not
    /// stolen for one that it has made.
    Keep,
}

/// Refuses one key more where the tenant has as many as it may have. Two that are made at the same time wait for each
/// other.
pub(super) async fn admit(
    transaction: &DatabaseTransaction,
    tenant: TenantId,
    now: DateTime<Utc>,
) -> Result<(), NewKeyError> {
    // One that is not there is refused by the insert.
    tenant::Entity::find_by_id(tenant.uuid())
        .lock(LockType::NoKeyUpdate)
        .one(transaction)
        .await?;
    let expires_later = Condition::any()
        .add(Column::ExpiresAt.is_null())
        .add(Column::ExpiresAt.gt(millis(now)));
    let in_force = owned(Some(tenant))
        .filter(Column::RevokedAt.is_null())
        .filter(expires_later)
        .count(transaction)
        .await?;
    if in_force < MOST_KEYS {
        Ok(())
    } else {
        Err(NewKeyError::Full)
    }
}

/// Holds the key that makes another, so that it is not revoked before the other is there.
pub(super) async fn hold(
    transaction: &DatabaseTransaction,
    maker: Actor,
) -> Result<(), NewKeyError> {
    let (Actor::Key(id) | Actor::Operator(id)) = maker else {
        return Ok(());
    };
    let maker = Entity::find_by_id(id.uuid())
        .lock_shared()
        .one(transaction)
        .await?;
    match maker {
        Some(maker) if maker.revoked_at.is_none() => Ok(()),
        _ => Err(NewKeyError::MakerRevoked),
    }
}

/// Revokes a key of `owner` and settles its descendants, each on record.
pub(super) async fn revoke(
    store: &Store,
    owner: Option<TenantId>,
    id: KeyId,
    descendants: Descendants,
    record: Option<NewAuditLine>,
    now: DateTime<Utc>,
) -> Result<Vec<KeyId>, StoreError> {
    let transaction = store.begin().await?;
    let revoked = Entity::update_many()
        .set(revoked_at(now))
        .filter(Column::Id.eq(id.uuid()))
        .filter(owner_is(owner))
        .filter(Column::RevokedAt.is_null())
        .exec(&transaction)
        .await?;
    let key = owned(owner)
        .filter(Column::Id.eq(id.uuid()))
        .one(&transaction)
        .await?
        .ok_or(StoreError::NotFound("key"))?;
    if revoked.rows_affected == 0 {
        transaction.rollback().await?;
        return Ok(Vec::new());
    }
    audit::note(store, &transaction, owner, record.clone(), now).await?;
    let mut all = vec![id];
    match descendants {
        Descendants::Revoke => {
            all.extend(revoke_descendants(store, &transaction, id, record, now).await?);
        }
        Descendants::Keep => {
            let heirs = ActiveModel {
                created_by: Set(key.created_by),
                ..ActiveModel::default()
            };
            Entity::update_many()
                .set(heirs)
                .filter(made_by(&[id.uuid()]))
                .exec(&transaction)
                .await?;
        }
    }
    transaction.commit().await?;
    Ok(all)
}

/// Revokes what `root` has made, what that has made, and so on, one generation after the other.
async fn revoke_descendants(
    store: &Store,
    transaction: &DatabaseTransaction,
    root: KeyId,
    record: Option<NewAuditLine>,
    now: DateTime<Utc>,
) -> Result<Vec<KeyId>, StoreError> {
    let mut all = Vec::new();
    let mut makers = vec![root.uuid()];
    while !makers.is_empty() {
        // Those that are revoked already may have made others.
        let made = Entity::find()
            .filter(made_by(&makers))
            .order_by_asc(Column::Id)
            .lock_exclusive()
            .all(transaction)
            .await?;
        makers = made.iter().map(|key| key.id).collect();
        for key in made.into_iter().filter(|key| key.revoked_at.is_none()) {
            Entity::update_many()
                .set(revoked_at(now))
                .filter(Column::Id.eq(key.id))
                .exec(transaction)
                .await?;
            let id = KeyId::from(key.id);
            let line = record.clone().map(|line| {
                let why = format!("{root} was revoked, and with it the keys made with it");
                NewAuditLine {
                    target: id.to_string(),
                    ..line
                }
                .saying(why)
            });
            let tenant = key.tenant_id.map(TenantId::from);
            audit::note(store, transaction, tenant, line, now).await?;
            all.push(id);
        }
    }
    Ok(all)
}

fn revoked_at(now: DateTime<Utc>) -> ActiveModel {
    ActiveModel {
        revoked_at: Set(Some(millis(now))),
        ..ActiveModel::default()
    }
}

/// The keys that these have made, for a tenant or for the operators.
fn made_by(makers: &[Uuid]) -> Condition {
    let texts = makers.iter().flat_map(|maker| {
        let key = KeyId::from(*maker);
        [Actor::Key(key), Actor::Operator(key)].map(|actor| actor.to_string())
    });
    Condition::all().add(Column::CreatedBy.is_in(texts))
}
