//! Answers to requests under an idempotency key, sealed, written down in the transaction of what was asked for.
//!
//! They share the keys of [`Submission`](crate::Submission)s, which keep less: what a message was can be made again
//! from its row.

use std::fmt;

use chrono::{DateTime, Utc};
use domain::id::TenantId;
use sea_orm::{ConnectionTrait, DatabaseTransaction, Statement};
use uuid::Uuid;

use crate::{
    IdempotencyKey, PlatformStore, SealedValue, Store, StoreError, TenantStore, millis,
    queue::{SEALED_ANSWER, UNLESS_KEPT},
    reseal::Place,
};

/// An answer on its way into the transaction of what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptAnswer {
    /// Whose key it is; none: the operators'.
    pub tenant: Option<TenantId>,
    /// The key.
    pub key: IdempotencyKey,
    /// The answer, sealed.
    pub sealed: Vec<u8>,
}

/// What a key stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recalled {
    /// Nothing yet.
    Nothing,
    /// This request: its answer, sealed.
    Answer(Vec<u8>),
    /// Another request.
    OtherRequest,
}

/// How the answer to a request will be put down, once it is known what came of it.
pub struct Keep<T>(Option<Put<T>>);

type Put<T> = Box<dyn FnOnce(&T) -> KeptAnswer + Send>;

impl<T> Keep<T> {
    /// The request has no key.
    pub fn nothing() -> Self {
        Self(None)
    }

    /// The request has a key: `put` makes its answer.
    pub fn with(put: impl FnOnce(&T) -> KeptAnswer + Send + 'static) -> Self {
        Self(Some(Box::new(put)))
    }

    /// The answer of a request that came to `outcome`.
    pub fn answer(self, outcome: &T) -> Option<KeptAnswer> {
        self.0.map(|put| put(outcome))
    }
}

impl<T> fmt::Debug for Keep<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keep").field(&self.0.is_some()).finish()
    }
}

impl Store {
    /// What a key of the tenant, or of the operators, stands for at `now`.
    pub async fn recall(
        &self,
        tenant: Option<TenantId>,
        key: &IdempotencyKey,
        now: DateTime<Utc>,
    ) -> Result<Recalled, StoreError> {
        const SQL: &str = "SELECT fingerprint, answer_sealed FROM idempotency \
                           WHERE tenant_id = $1 AND key = $2 AND expires_at >= $3";
        let values = [
            owner(tenant).into(),
            key.key.as_str().into(),
            millis(now).into(),
        ];
        // Where it is written: a replica of the database may be behind.
        let statement =
            Statement::from_sql_and_values(self.write.get_database_backend(), SQL, values);
        let Some(row) = self.write.query_one_raw(statement).await? else {
            return Ok(Recalled::Nothing);
        };
        let fingerprint: Vec<u8> = row.try_get("", "fingerprint")?;
        let sealed: Option<Vec<u8>> = row.try_get("", "answer_sealed")?;
        Ok(match sealed {
            Some(sealed) if fingerprint == key.fingerprint => Recalled::Answer(sealed),
            _ => Recalled::OtherRequest,
        })
    }
}

impl TenantStore {
    /// The same door; what it changes next is answered like this, or does not happen: [`StoreError::Answered`].
    #[must_use]
    pub fn answering(mut self, kept: Option<KeptAnswer>) -> Self {
        self.kept = kept;
        self
    }
}

impl PlatformStore {
    /// The same door; what it changes next is answered like this, or does not happen: [`StoreError::Answered`].
    #[must_use]
    pub fn answering(mut self, kept: Option<KeptAnswer>) -> Self {
        self.kept = kept;
        self
    }

    /// Up to `limit` answers that do not begin with `mark`.
    pub(crate) async fn answers_sealed_otherwise(
        &self,
        mark: Vec<u8>,
        limit: u64,
    ) -> Result<Vec<SealedValue>, StoreError> {
        const SQL: &str = "SELECT tenant_id, key, answer_sealed FROM idempotency \
                           WHERE answer_sealed IS NOT NULL AND substr(answer_sealed, 1, 5) <> $1 LIMIT $2";
        let read = &self.store.read;
        let values = [mark.into(), limit.cast_signed().into()];
        let statement = Statement::from_sql_and_values(read.get_database_backend(), SQL, values);
        let rows = read.query_all_raw(statement).await?;
        let values = rows.iter().map(|row| {
            let tenant: Uuid = row.try_get("", "tenant_id")?;
            let key: String = row.try_get("", "key")?;
            Ok(SealedValue {
                place: Place::KeptAnswer,
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

    /// Seals an answer anew. False: it is another one by now, or gone.
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
        let write = &self.store.write;
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

/// Puts an answer down; a key that another request claimed meanwhile is [`StoreError::Answered`].
pub(crate) async fn keep(
    tx: &DatabaseTransaction,
    kept: Option<&KeptAnswer>,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    const SQL: &str = "INSERT INTO idempotency (tenant_id, key, fingerprint, answer, answer_sealed, created_at, expires_at) \
                       VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let Some(kept) = kept else { return Ok(()) };
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

/// Operators' keys stand where no tenant's can: no tenant has the nil id.
fn owner(tenant: Option<TenantId>) -> Uuid {
    tenant.map_or(Uuid::nil(), |tenant| tenant.uuid())
}
