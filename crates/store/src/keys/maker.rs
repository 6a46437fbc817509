//! The makers of keys: limits the number of a tenant's keys, and revokes the descendants of a key.
//!
//! **Locks.** The key that makes another key is locked `FOR SHARE` until the new key commits. A revocation locks each
//! key before the search for the keys made with that key. So no new key escapes: either the new key's transaction sees
//! the maker as revoked, or the revocation waits and finds the new key.

use chrono::{DateTime, Utc};
use domain::id::{KeyId, TenantId};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, Condition, ConnectionTrait, EntityTrait, PaginatorTrait,
    QueryFilter, QueryOrder, QuerySelect, sea_query::LockType,
};
use uuid::Uuid;

use super::{MAX_KEYS, NewKeyError, owned, owner_is};
use crate::{
    Actor, NewAuditLine, StoreError,
    entity::{
        api_key::{ActiveModel, Column, Entity},
        tenant,
    },
    store::UnitOfWork,
    timestamp::millis,
};

/// What happens to the direct and indirect descendants of a revoked key: the keys made with that key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Descendants {
    /// The descendants are revoked too: the thief of a key may have made other keys with that key.
    #[default]
    Revoke,
    /// The descendants stay in force, and the maker of the revoked key becomes their maker. For the exchange of a key
    /// that was not stolen for a key made with the old one.
    Keep,
}

/// Refuses a new key where the tenant has [`MAX_KEYS`] keys in force. Concurrent transactions of one tenant wait for
/// each other.
pub(super) async fn admit(
    transaction: &impl ConnectionTrait,
    tenant: TenantId,
    now: DateTime<Utc>,
) -> Result<(), NewKeyError> {
    // No row means that the tenant does not exist. The insert refuses the key in that case.
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
    if in_force < MAX_KEYS {
        Ok(())
    } else {
        Err(NewKeyError::Full)
    }
}

/// Locks the maker of a new key, so that no revocation of the maker commits before the new key exists.
pub(super) async fn hold(
    transaction: &impl ConnectionTrait,
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

/// Revokes a key of `owner` and treats the descendants as `descendants` says, each change with an audit line.
pub(super) async fn revoke(
    mut transaction: UnitOfWork,
    owner: Option<TenantId>,
    id: KeyId,
    descendants: Descendants,
    record: Option<NewAuditLine>,
    now: DateTime<Utc>,
) -> Result<Vec<KeyId>, StoreError> {
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
    let mut all = vec![id];
    match descendants {
        Descendants::Revoke => {
            all.extend(revoke_descendants(&mut transaction, id, record, now).await?);
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

/// Revokes the keys made with `root`, the keys made with those, and so on, one generation after the other.
async fn revoke_descendants(
    transaction: &mut UnitOfWork,
    root: KeyId,
    record: Option<NewAuditLine>,
    now: DateTime<Utc>,
) -> Result<Vec<KeyId>, StoreError> {
    let mut all = Vec::new();
    let mut makers = vec![root.uuid()];
    while !makers.is_empty() {
        // Keys that are revoked already are included, because other keys may have been made with a revoked key.
        let made = Entity::find()
            .filter(made_by(&makers))
            .order_by_asc(Column::Id)
            .lock_exclusive()
            .all(&*transaction)
            .await?;
        makers = made.iter().map(|key| key.id).collect();
        for key in made.into_iter().filter(|key| key.revoked_at.is_none()) {
            Entity::update_many()
                .set(revoked_at(now))
                .filter(Column::Id.eq(key.id))
                .exec(&*transaction)
                .await?;
            let id = KeyId::from(key.id);
            if let Some(line) = record.clone() {
                let why = format!("{root} and the keys made with this key were revoked");
                let line = NewAuditLine {
                    target: id.to_string(),
                    ..line
                };
                let tenant = key.tenant_id.map(TenantId::from);
                transaction.add_line(tenant, line.saying(why), now);
            }
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

/// The condition for the keys made with one of `makers`, by a tenant or by an operator.
fn made_by(makers: &[Uuid]) -> Condition {
    let texts = makers.iter().flat_map(|maker| {
        let key = KeyId::from(*maker);
        [Actor::Key(key), Actor::Operator(key)].map(|actor| actor.to_string())
    });
    Condition::all().add(Column::CreatedBy.is_in(texts))
}
