//! API keys. Authentication reads a key and its tenant in one query.

mod maker;

use chrono::{DateTime, Duration, Utc};
use domain::{
    id::{KeyId, TenantId},
    scope::ScopeSet,
};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, Condition, ConnectionTrait, DbErr, EntityTrait, JoinType,
    QueryFilter, QueryOrder, QuerySelect, Select, SqlErr,
};
use uuid::Uuid;

pub use maker::Descendants;

use crate::{
    Actor, Listing, Page, PlatformStore, Store, StoreError, Tenant, TenantStore,
    entity::{
        api_key::{ActiveModel, Column, Entity, Model},
        tenant as tenant_row,
    },
    error::unknown,
    tenants,
    timestamp::{millis, time},
};

/// An API key, without the secret and the hash of the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The id of the key, and the OAuth `client_id`.
    pub id: KeyId,
    /// The tenant that owns the key, or `None` for an operator's key.
    pub tenant: Option<TenantId>,
    /// The owner's name for the key.
    pub name: String,
    /// The scopes of the key.
    pub scopes: ScopeSet,
    /// When the key was created.
    pub created_at: DateTime<Utc>,
    /// From when on the key is refused, or `None` for never.
    pub expires_at: Option<DateTime<Utc>>,
    /// When the key was last used, to the minute.
    pub last_used_at: Option<DateTime<Utc>>,
    /// When the key was revoked. A revoked key is refused.
    pub revoked_at: Option<DateTime<Utc>>,
    /// The actor that created the key, or `None` for a key from before the gateway recorded the actor.
    pub created_by: Option<Actor>,
}

/// The data of a new key.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// The id of the key.
    pub id: KeyId,
    /// The owner's name for the key.
    pub name: String,
    /// A keyed hash of the secret. The secret itself is never stored.
    pub secret_hash: Vec<u8>,
    /// The scopes of the key.
    pub scopes: ScopeSet,
    /// From when on the key is refused, or `None` for never.
    pub expires_at: Option<DateTime<Utc>>,
    /// The actor that creates the key.
    pub created_by: Actor,
}

/// How many keys of a tenant may be in force at the same time. A key in force is neither revoked nor expired.
pub const MAX_KEYS: u64 = 100;

/// Why a key was not created.
#[derive(Debug, thiserror::Error)]
pub enum NewKeyError {
    /// The tenant has [`MAX_KEYS`] keys in force.
    #[error("the tenant already has {MAX_KEYS} valid keys")]
    Full,
    /// The key with which the caller creates the new key is revoked.
    #[error("the key that creates the new key was revoked")]
    MakerRevoked,
    /// The database returned an error.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<DbErr> for NewKeyError {
    fn from(error: DbErr) -> Self {
        Self::Store(error.into())
    }
}

impl NewKey {
    /// The key that the store creates from this data.
    pub fn made(&self, tenant: Option<TenantId>, now: DateTime<Utc>) -> Key {
        Key {
            id: self.id,
            tenant,
            name: self.name.clone(),
            scopes: self.scopes,
            created_at: time(millis(now)),
            expires_at: self.expires_at.map(|end| time(millis(end))),
            last_used_at: None,
            revoked_at: None,
            created_by: Some(self.created_by),
        }
    }
}

/// A key with the data that authentication needs.
#[derive(Clone, Debug)]
pub struct Credential {
    /// The key.
    pub key: Key,
    /// The keyed hash of the key's secret.
    pub secret_hash: Vec<u8>,
    /// The tenant that owns the key, or `None` for an operator's key.
    pub tenant: Option<Tenant>,
}

/// The maximum age of [`Key::last_used_at`] for a key in use: constant use of a key costs one write a minute.
fn touch_every() -> Duration {
    Duration::minutes(1)
}

impl TenantStore {
    /// Creates a key of the tenant, unless the tenant has [`MAX_KEYS`] keys in force.
    pub async fn create_key(&self, key: NewKey, now: DateTime<Utc>) -> Result<Key, NewKeyError> {
        let transaction = self.begin(now).await?;
        maker::admit(&transaction, self.tenant, now).await?;
        let created = insert(&transaction, Some(self.tenant), key, now).await?;
        transaction.commit().await?;
        Ok(created)
    }

    /// The tenant's keys, newest first, with the revoked ones.
    pub async fn keys(&self, page: &Page) -> Result<Listing<Key>, StoreError> {
        list(&self.store, Some(self.tenant), page).await
    }

    /// Revokes a key of the tenant, and treats the keys made with that key as `descendants` says. Returns all keys that
    /// this call revoked. A second revocation changes nothing.
    pub async fn revoke_key(
        &self,
        id: KeyId,
        descendants: Descendants,
        now: DateTime<Utc>,
    ) -> Result<Vec<KeyId>, StoreError> {
        let (owner, record) = (Some(self.tenant), self.record.clone());
        maker::revoke(self.begin(now).await?, owner, id, descendants, record, now).await
    }
}

impl PlatformStore {
    /// Creates an operator's key.
    pub async fn create_operator_key(
        &self,
        key: NewKey,
        now: DateTime<Utc>,
    ) -> Result<Key, NewKeyError> {
        let transaction = self.begin(now).await?;
        let created = insert(&transaction, None, key, now).await?;
        transaction.commit().await?;
        Ok(created)
    }

    /// The operators' keys, newest first, with the revoked ones.
    pub async fn operator_keys(&self, page: &Page) -> Result<Listing<Key>, StoreError> {
        list(&self.store, None, page).await
    }

    /// Revokes an operator's key, and treats the keys made with that key as `descendants` says, also the keys of
    /// tenants. Returns all keys that this call revoked. A second revocation changes nothing.
    pub async fn revoke_operator_key(
        &self,
        id: KeyId,
        descendants: Descendants,
        now: DateTime<Utc>,
    ) -> Result<Vec<KeyId>, StoreError> {
        let record = self.record.clone();
        maker::revoke(self.begin(now).await?, None, id, descendants, record, now).await
    }

    /// A key with the hash and the tenant, in one query.
    pub async fn credential(&self, id: KeyId) -> Result<Credential, StoreError> {
        let owner = Entity::belongs_to(tenant_row::Entity)
            .from(Column::TenantId)
            .to(tenant_row::Column::Id)
            .into();
        let found = Entity::find_by_id(id.uuid())
            .join(JoinType::LeftJoin, owner)
            .select_also(tenant_row::Entity)
            .one(self.store.read())
            .await?;
        let (mut row, tenant) = found.ok_or(StoreError::NotFound("key"))?;
        let secret_hash = std::mem::take(&mut row.secret_hash);
        Ok(Credential {
            key: key(row)?,
            secret_hash,
            tenant: tenant.map(tenants::tenant).transpose()?,
        })
    }

    /// Records that a key was used. Writes at most once a minute for each key.
    pub async fn touch_key(&self, id: KeyId, now: DateTime<Utc>) -> Result<(), StoreError> {
        let stale = Condition::any()
            .add(Column::LastUsedAt.is_null())
            .add(Column::LastUsedAt.lt(millis(now - touch_every())));
        Entity::update_many()
            .set(ActiveModel {
                last_used_at: Set(Some(millis(now))),
                ..ActiveModel::default()
            })
            .filter(Column::Id.eq(id.uuid()))
            .filter(stale)
            .exec(self.store.write())
            .await?;
        Ok(())
    }
}

impl Key {
    /// Whether [`PlatformStore::touch_key`] at `now` would write.
    pub fn wants_touch(&self, now: DateTime<Utc>) -> bool {
        self.last_used_at
            .is_none_or(|last| last < now - touch_every())
    }
}

async fn insert(
    transaction: &impl ConnectionTrait,
    tenant: Option<TenantId>,
    new: NewKey,
    now: DateTime<Utc>,
) -> Result<Key, NewKeyError> {
    maker::hold(transaction, new.created_by).await?;
    let created = new.made(tenant, now);
    let row = Model {
        id: new.id.uuid(),
        tenant_id: tenant.map(|tenant| tenant.uuid()),
        name: new.name,
        secret_hash: new.secret_hash,
        scopes: new.scopes.to_string(),
        created_at: millis(now),
        expires_at: new.expires_at.map(millis),
        last_used_at: None,
        revoked_at: None,
        created_by: Some(new.created_by.to_string()),
    };
    let inserted = Entity::insert(ActiveModel::from(row))
        .exec_without_returning(transaction)
        .await;
    inserted.map_err(|error| match error.sql_err() {
        Some(SqlErr::ForeignKeyConstraintViolation(_)) => StoreError::NotFound("tenant"),
        Some(SqlErr::UniqueConstraintViolation(_)) => StoreError::Taken("this key"),
        _ => StoreError::from(error),
    })?;
    Ok(created)
}

async fn list(
    store: &Store,
    tenant: Option<TenantId>,
    page: &Page,
) -> Result<Listing<Key>, StoreError> {
    let mut query = owned(tenant)
        .order_by_desc(Column::Id)
        .limit(page.limit + 1);
    if let Some(after) = page.after {
        query = query.filter(Column::Id.lt(after));
    }
    let rows = query.all(store.read()).await?;
    Listing::of(rows, page, |row| row.id).try_map(key)
}

fn owned(tenant: Option<TenantId>) -> Select<Entity> {
    Entity::find().filter(owner_is(tenant))
}

fn owner_is(tenant: Option<TenantId>) -> Condition {
    Condition::all().add(match tenant {
        Some(tenant) => Column::TenantId.eq(tenant.uuid()),
        None => Column::TenantId.is_null(),
    })
}

fn key(row: Model) -> Result<Key, StoreError> {
    Ok(Key {
        id: row.id.into(),
        tenant: row.tenant_id.map(|tenant: Uuid| tenant.into()),
        scopes: row
            .scopes
            .parse()
            .map_err(|_| unknown("api_key.scopes", &row.scopes))?,
        name: row.name,
        created_at: time(row.created_at),
        expires_at: row.expires_at.map(time),
        last_used_at: row.last_used_at.map(time),
        revoked_at: row.revoked_at.map(time),
        created_by: row
            .created_by
            .map(|text| {
                text.parse()
                    .map_err(|_| unknown("api_key.created_by", &text))
            })
            .transpose()?,
    })
}
