//! The unit of work: the transaction of a change, with the audit lines and the stored answer that commit with the
//! change.
//!
//! **Invariant.** No other module commits a transaction, so no verb can commit a change without the audit line and the
//! answer of the request.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use domain::id::TenantId;
use sea_orm::{
    ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, ExecResult, QueryResult,
    SqliteTransactionMode, Statement, TransactionOptions, TransactionTrait,
};

use crate::{
    NewAuditLine, PlatformStore, Store, StoreError, StoredAnswer, TenantStore, answers, audit,
};

/// A transaction that may write. Dropping a unit of work rolls the transaction back.
#[derive(Debug)]
pub(crate) struct UnitOfWork {
    transaction: DatabaseTransaction,
    store: Store,
    lines: Vec<PendingLine>,
    answer: Option<(StoredAnswer, DateTime<Utc>)>,
}

/// An audit line that the commit appends.
#[derive(Debug)]
struct PendingLine {
    /// The tenant with the log, or `None` for the log of the platform.
    tenant: Option<TenantId>,
    line: NewAuditLine,
    at: DateTime<Utc>,
}

impl TenantStore {
    /// Begins a change of the tenant's data, with the line of [`TenantStore::with_audit_line`] and the answer of
    /// [`TenantStore::with_answer`].
    pub(crate) async fn begin(&self, now: DateTime<Utc>) -> Result<UnitOfWork, StoreError> {
        let mut work = self.store.begin_batch().await?;
        work.request(
            Some(self.tenant),
            self.record.clone(),
            self.kept.clone(),
            now,
        );
        Ok(work)
    }
}

impl PlatformStore {
    /// Begins a change of the platform's data, with the line of [`PlatformStore::with_audit_line`] and the answer of
    /// [`PlatformStore::with_answer`].
    pub(crate) async fn begin(&self, now: DateTime<Utc>) -> Result<UnitOfWork, StoreError> {
        let mut work = self.store.begin_batch().await?;
        work.request(None, self.record.clone(), self.kept.clone(), now);
        Ok(work)
    }

    /// Begins a change as [`PlatformStore::begin`] does, with the audit line in the log of `tenant`.
    pub(crate) async fn begin_for(
        &self,
        tenant: TenantId,
        now: DateTime<Utc>,
    ) -> Result<UnitOfWork, StoreError> {
        let mut work = self.store.begin_batch().await?;
        work.request(Some(tenant), self.record.clone(), self.kept.clone(), now);
        Ok(work)
    }
}

impl Store {
    /// Begins a change that the gateway makes without a request: the change starts with no audit line and no answer.
    ///
    /// On SQLite the transaction takes the write lock at once, because SQLite cannot upgrade a transaction that began
    /// with a read when another process has written in the meantime.
    pub(crate) async fn begin_batch(&self) -> Result<UnitOfWork, StoreError> {
        let options = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        let begun = self.write.begin_with_options(options).await;
        // The driver does not report a failed BEGIN to the metric callback of `FailureWatch::watch`.
        let transaction = begun.inspect_err(|_| self.doubt.raise())?;
        Ok(UnitOfWork {
            transaction,
            store: self.clone(),
            lines: Vec::new(),
            answer: None,
        })
    }
}

impl UnitOfWork {
    fn request(
        &mut self,
        tenant: Option<TenantId>,
        line: Option<NewAuditLine>,
        answer: Option<StoredAnswer>,
        at: DateTime<Utc>,
    ) {
        let line = line.map(|line| PendingLine { tenant, line, at });
        self.lines.extend(line);
        self.set_answer(answer, at);
    }

    /// Adds an audit line of `tenant`, or of the platform for `None`. The commit appends the lines in this order.
    pub(crate) fn add_line(
        &mut self,
        tenant: Option<TenantId>,
        line: NewAuditLine,
        at: DateTime<Utc>,
    ) {
        self.lines.push(PendingLine { tenant, line, at });
    }

    /// Removes the audit lines: the work has changed nothing.
    pub(crate) fn drop_lines(&mut self) {
        self.lines.clear();
    }

    /// Gives the audit lines this detail.
    pub(crate) fn describe(&mut self, detail: &str) {
        for pending in &mut self.lines {
            pending.line.detail = Some(detail.to_owned());
        }
    }

    /// Sets the answer of a request that depends on the outcome of the work.
    pub(crate) fn set_answer(&mut self, answer: Option<StoredAnswer>, at: DateTime<Utc>) {
        self.answer = answer.map(|answer| (answer, at));
    }

    /// Appends the audit lines, stores the answer and commits. Fails with [`StoreError::Answered`], and changes nothing,
    /// where another request has claimed the idempotency key.
    pub(crate) async fn commit(self) -> Result<(), StoreError> {
        for PendingLine { tenant, line, at } in self.lines {
            audit::append(&self.store, &self.transaction, tenant, line, at).await?;
        }
        if let Some((answer, at)) = self.answer {
            answers::keep(&self.transaction, &answer, at).await?;
        }
        Ok(self.transaction.commit().await?)
    }

    /// Rolls back and waits for the database to confirm.
    pub(crate) async fn rollback(self) -> Result<(), StoreError> {
        Ok(self.transaction.rollback().await?)
    }
}

/// The statements of the work.
#[async_trait]
impl ConnectionTrait for UnitOfWork {
    fn get_database_backend(&self) -> DbBackend {
        self.transaction.get_database_backend()
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.transaction.execute_raw(statement).await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.transaction.execute_unprepared(sql).await
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        self.transaction.query_one_raw(statement).await
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.transaction.query_all_raw(statement).await
    }
}
