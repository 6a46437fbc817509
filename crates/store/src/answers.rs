//! Sealed answers to requests under an idempotency key, written in the transaction of the requested change.
//!
//! These answers share their keys with [`Submission`](crate::Submission)s. The record of a submission stores less,
//! because the answer to a submission can be built again from the message's row.

mod stored;

use std::fmt;

use chrono::{DateTime, Utc};
use domain::id::TenantId;
use sea_orm::{ConnectionTrait, Statement};
use uuid::Uuid;

use crate::{
    IdempotencyKey, PlatformStore, SealedValue, Store, StoreError, TenantStore,
    queue::{SEALED_ANSWER, UNLESS_KEPT},
    reseal::SealedColumn,
    timestamp::millis,
};

pub use stored::StoredAnswer;

/// What the database has stored under an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdempotencyLookup {
    /// The key is unused.
    Nothing,
    /// The key belongs to this request. Contains the sealed answer.
    Answer(Vec<u8>),
    /// The key belongs to another request.
    OtherRequest,
}

/// Builds the answer to a request once the outcome of the request is known.
pub struct Keep<T>(Option<Put<T>>);

type Put<T> = Box<dyn FnOnce(&T) -> StoredAnswer + Send>;

impl<T> Keep<T> {
    /// For a request without an idempotency key: no answer is stored.
    pub fn nothing() -> Self {
        Self(None)
    }

    /// For a request with an idempotency key: `put` builds the answer from the outcome.
    pub fn with(put: impl FnOnce(&T) -> StoredAnswer + Send + 'static) -> Self {
        Self(Some(Box::new(put)))
    }

    /// The answer for `outcome`, or `None` for a request without a key.
    pub fn answer(self, outcome: &T) -> Option<StoredAnswer> {
        self.0.map(|put| put(outcome))
    }
}

impl<T> fmt::Debug for Keep<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keep").field(&self.0.is_some()).finish()
    }
}

impl Store {
    /// What is stored at `now` under a key of the tenant, or of the operators where `tenant` is `None`.
    pub async fn recall(
        &self,
        tenant: Option<TenantId>,
        key: &IdempotencyKey,
        now: DateTime<Utc>,
    ) -> Result<IdempotencyLookup, StoreError> {
        const SQL: &str = "SELECT fingerprint, answer_sealed FROM idempotency \
                           WHERE tenant_id = $1 AND key = $2 AND expires_at >= $3";
        let values = [
            owner(tenant).into(),
            key.key.as_str().into(),
            millis(now).into(),
        ];
        // Read from the write connection: a read replica of the database may lag behind.
        let statement =
            Statement::from_sql_and_values(self.write().get_database_backend(), SQL, values);
        let Some(row) = self.write().query_one_raw(statement).await? else {
            return Ok(IdempotencyLookup::Nothing);
        };
        let fingerprint: Vec<u8> = row.try_get("", "fingerprint")?;
        let sealed: Option<Vec<u8>> = row.try_get("", "answer_sealed")?;
        Ok(match sealed {
            Some(sealed) if fingerprint == key.fingerprint => IdempotencyLookup::Answer(sealed),
            _ => IdempotencyLookup::OtherRequest,
        })
    }
}

impl TenantStore {
    /// This store, with `kept` as the answer to the next change. Where another request has claimed the key, that change
    /// does not happen and fails with [`StoreError::Answered`].
    #[must_use]
    pub fn with_answer(mut self, kept: Option<StoredAnswer>) -> Self {
        self.kept = kept;
        self
    }
}

impl PlatformStore {
    /// This store, with `kept` as the answer to the next change. Where another request has claimed the key, that change
    /// does not happen and fails with [`StoreError::Answered`].
    #[must_use]
    pub fn with_answer(mut self, kept: Option<StoredAnswer>) -> Self {
        self.kept = kept;
        self
    }

    /// Up to `limit` sealed answers that do not begin with `mark`, the mark of a master key.
    pub(crate) async fn answers_sealed_otherwise(
        &self,
        mark: Vec<u8>,
        limit: u64,
    ) -> Result<Vec<SealedValue>, StoreError> {
        const SQL: &str = "SELECT tenant_id, key, answer_sealed FROM idempotency \
                           WHERE answer_sealed IS NOT NULL AND substr(answer_sealed, 1, 5) <> $1 LIMIT $2";
        let read = self.store.read();
        let values = [mark.into(), limit.cast_signed().into()];
        let statement = Statement::from_sql_and_values(read.get_database_backend(), SQL, values);
        let rows = read.query_all_raw(statement).await?;
        let values = rows.iter().map(|row| {
            let tenant: Uuid = row.try_get("", "tenant_id")?;
            let key: String = row.try_get("", "key")?;
            Ok(SealedValue {
                place: SealedColumn::StoredAnswer,
                owner: domain::seal::SealOwner::kept_answer(
                    (!tenant.is_nil()).then(|| tenant.into()),
                    &key,
                ),
                row: format!("{tenant} {key}"),
                sealed: row.try_get("", "answer_sealed")?,
            })
        });
        values.collect()
    }

    /// Replaces a sealed answer by `sealed`. Returns false where the stored answer has changed or is gone.
    pub(crate) async fn replace_answer(
        &self,
        value: &SealedValue,
        sealed: Vec<u8>,
    ) -> Result<bool, StoreError> {
        const SQL: &str = "UPDATE idempotency SET answer_sealed = $1 WHERE tenant_id = $2 AND key = $3 AND answer_sealed = $4";
        let (tenant, key) = value
            .row
            .split_once(' ')
            .and_then(|(tenant, key)| Some((Uuid::parse_str(tenant).ok()?, key)))
            .ok_or_else(|| crate::error::unknown("idempotency", &value.row))?;
        let write = self.store.write();
        let values = [
            sealed.into(),
            tenant.into(),
            key.into(),
            value.sealed.clone().into(),
        ];
        let statement = Statement::from_sql_and_values(write.get_database_backend(), SQL, values);
        Ok(write.execute_raw(statement).await?.rows_affected() == 1)
    }
}

/// Stores an answer. Fails with [`StoreError::Answered`] where another request has claimed the key in the meantime.
pub(crate) async fn keep(
    tx: &impl ConnectionTrait,
    kept: &StoredAnswer,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    const SQL: &str = "INSERT INTO idempotency (tenant_id, key, fingerprint, answer, answer_sealed, created_at, expires_at) \
                       VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let values = [
        owner(kept.tenant).into(),
        kept.key.key.as_str().into(),
        kept.key.fingerprint.to_vec().into(),
        SEALED_ANSWER.into(),
        kept.sealed.clone().into(),
        millis(now).into(),
        millis(now + kept.key.kept_for).into(),
    ];
    let sql = format!("{SQL}{UNLESS_KEPT}");
    let statement = Statement::from_sql_and_values(tx.get_database_backend(), sql, values);
    match tx.execute_raw(statement).await?.rows_affected() {
        0 => Err(StoreError::Answered),
        _ => Ok(()),
    }
}

/// The owner in the database: the tenant's id, or the nil UUID for operators. No tenant has the nil UUID.
fn owner(tenant: Option<TenantId>) -> Uuid {
    tenant.map_or(Uuid::nil(), |tenant| tenant.uuid())
}
