//! The database, and the two entry points to the data: the tenant store and the platform store.

mod unit_of_work;

use std::sync::Arc;

use domain::id::{Sequence, TenantId};
use sea_orm::{ConnectionTrait, DatabaseConnection};

pub(crate) use unit_of_work::UnitOfWork;

use crate::{NewAuditLine, StoreError, StoredAnswer, failure_watch::FailureWatch};

/// The database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    write: DatabaseConnection,
    read: DatabaseConnection,
    /// Records whether statements have failed recently.
    pub(crate) doubt: FailureWatch,
    /// Orders the lines that this process appends to the audit log.
    pub(crate) lines: Arc<Sequence>,
}

/// The tenant store: the entry point to one tenant's data.
#[derive(Clone, Debug)]
pub struct TenantStore {
    pub(crate) store: Store,
    pub(crate) tenant: TenantId,
    pub(crate) record: Option<NewAuditLine>,
    pub(crate) kept: Option<StoredAnswer>,
}

/// The platform store: the entry point to all data, for the queue, authentication and operators.
#[derive(Clone, Debug)]
pub struct PlatformStore {
    pub(crate) store: Store,
    pub(crate) record: Option<NewAuditLine>,
    pub(crate) kept: Option<StoredAnswer>,
}

impl Store {
    /// A store over these connections.
    pub(crate) fn over(
        mut write: DatabaseConnection,
        mut read: DatabaseConnection,
        doubt: FailureWatch,
    ) -> Self {
        doubt.watch(&mut write);
        doubt.watch(&mut read);
        Self {
            write,
            read,
            doubt,
            lines: Arc::default(),
        }
    }

    /// The entry point to the data of one tenant.
    pub fn tenant(&self, tenant: TenantId) -> TenantStore {
        TenantStore {
            store: self.clone(),
            tenant,
            record: None,
            kept: None,
        }
    }

    /// The entry point to all data.
    pub fn platform(&self) -> PlatformStore {
        PlatformStore {
            store: self.clone(),
            record: None,
            kept: None,
        }
    }

    /// The connection for single statements that write. [`UnitOfWork`] is the only way to a transaction.
    pub(crate) fn write(&self) -> &(impl ConnectionTrait + use<>) {
        &self.write
    }

    /// The connection for reads.
    pub(crate) fn read(&self) -> &(impl ConnectionTrait + use<>) {
        &self.read
    }

    /// The connection for migrations, which begin their own transactions.
    pub(crate) fn migrating(&self) -> &DatabaseConnection {
        &self.write
    }

    /// Closes all connections. SQLite merges the write-ahead log into the database file.
    pub async fn close(self) -> Result<(), StoreError> {
        self.read.close().await?;
        self.write.close().await?;
        Ok(())
    }
}
