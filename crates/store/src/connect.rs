//! Opens, migrates and closes the database.

use std::{path::PathBuf, time::Duration};

use chrono::{DateTime, Utc};
use migrations::{Migrator, MigratorTrait};
use sea_orm::{ConnectOptions, ConnectionTrait, Database, DbBackend, Statement};
use sqlx::{
    Connection,
    postgres::PgConnectOptions,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

use crate::{
    Store, error::StoreError, failure_watch::FailureWatch, private, session, timestamp::time,
};

/// The advisory lock that migrations hold on PostgreSQL: "wxgate" in ASCII.
const MIGRATION_LOCK: i64 = 0x7778_6761_7465;

/// How many prepared statements a connection caches: each batch statement of the queue occurs in about ten sizes.
const STATEMENTS: usize = 512;

/// The kind of database that a URL names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// SQLite: one file, one replica.
    Sqlite,
    /// PostgreSQL: a server, any number of replicas.
    Postgres,
}

impl Engine {
    /// Reads a database URL as the driver will read that URL. An error contains nothing of the URL, because a URL may
    /// contain a password.
    pub fn of(url: &str) -> Result<Self, StoreError> {
        match url.split_once("://").map(|(scheme, _)| scheme) {
            Some("sqlite") if url.parse::<SqliteConnectOptions>().is_ok() => Ok(Self::Sqlite),
            Some("sqlite") => Err(StoreError::Settings(
                "WXGATE_DATABASE_URL is not a valid URL: write the URL as sqlite://folder/wxgate.db".into(),
            )),
            Some("postgres" | "postgresql") if is_postgres(url) => Ok(Self::Postgres),
            Some("postgres" | "postgresql") => Err(StoreError::Settings(
                "WXGATE_DATABASE_URL is not a valid URL: write the URL as postgres://user:password@host:5432/database, where / ? # @ : and % in the password are %2F %3F %23 %40 %3A and %25".into(),
            )),
            _ => Err(StoreError::Settings(
                "WXGATE_DATABASE_URL must begin with sqlite:// (a file, one replica) or postgres:// (a server, many replicas)".into(),
            )),
        }
    }
}

/// Whether the driver finds a server in the URL. A bare `/`, `?` or `#` in the password ends the part that names the
/// server. The driver would take the rest of the password for a port or a database name, and error messages would show
/// that name.
fn is_postgres(url: &str) -> bool {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    let server = rest.split(['/', '?', '#']).next().unwrap_or_default();
    !rest[server.len()..].contains('@') && url.parse::<PgConnectOptions>().is_ok()
}

impl Store {
    /// Opens the database at `url`. Creates the SQLite file where the file is missing.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        match Engine::of(url)? {
            Engine::Sqlite => {
                make_file(url)?;
                // One writer and a few readers: SQLite has one write lock, and waiting for a connection is cheaper and
                // fairer than waiting for the lock.
                let write = Database::connect(sqlite(url, 1, false)).await?;
                let read = Database::connect(sqlite(url, 2, true)).await?;
                Ok(Self::over(write, read, FailureWatch::default()))
            }
            Engine::Postgres => {
                let doubt = FailureWatch::default();
                let pool = Database::connect(postgres(url, &doubt)).await?;
                Ok(Self::over(pool.clone(), pool, doubt))
            }
        }
    }

    /// Applies all pending migrations. Replicas that start together migrate one after the other.
    pub async fn migrate_up(&self) -> Result<(), StoreError> {
        let migrate = async || {
            self.refuse_newer().await?;
            Ok(Migrator::up(self.migrating(), None).await?)
        };
        if self.engine() == Engine::Sqlite {
            return migrate().await;
        }
        // This transaction holds the lock; the migrations run on other connections.
        let turn = self.begin_batch().await?;
        // No timeout: the migration of another replica and the migration of this replica may take any time.
        turn.execute_unprepared(
            "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0",
        )
        .await?;
        turn.execute_unprepared(&format!("SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))
            .await?;
        let migrated = migrate().await;
        turn.rollback().await?;
        migrated
    }

    /// Reverts the last migration. The data of that migration is lost.
    pub async fn migrate_down(&self) -> Result<(), StoreError> {
        self.refuse_newer().await?;
        Ok(Migrator::down(self.migrating(), Some(1)).await?)
    }

    /// The time of the database server's clock, or `None` for SQLite, which is a file on this machine.
    pub async fn time(&self) -> Result<Option<DateTime<Utc>>, StoreError> {
        if self.engine() == Engine::Sqlite {
            return Ok(None);
        }
        let sql = "SELECT (EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::BIGINT AS now";
        let look = Statement::from_string(DbBackend::Postgres, sql);
        match self.write().query_one_raw(look).await? {
            Some(row) => Ok(Some(time(row.try_get("", "now")?))),
            None => Err(StoreError::Broken(
                "the database does not report its time".to_owned(),
            )),
        }
    }

    /// The kind of this database.
    pub fn engine(&self) -> Engine {
        if self.write().get_database_backend() == DbBackend::Sqlite {
            Engine::Sqlite
        } else {
            Engine::Postgres
        }
    }
}

fn options(url: &str, connections: u32) -> ConnectOptions {
    let mut options = ConnectOptions::new(url);
    options
        .max_connections(connections)
        .acquire_timeout(Duration::from_secs(5))
        .connect_timeout(Duration::from_secs(5))
        .sqlx_logging(false)
        .test_before_acquire(false);
    options
}

fn sqlite(url: &str, connections: u32, read_only: bool) -> ConnectOptions {
    let mut options = options(url, connections);
    options
        .idle_timeout(None::<Duration>)
        .max_lifetime(None::<Duration>)
        .map_sqlx_sqlite_pool_opts(|pool| {
            // When the disk is full, SQLite rolls back the transaction by itself. The driver's own rollback then fails,
            // and the driver goes on as within a transaction that no longer exists. Later writes would be confirmed and
            // never reach the disk.
            pool.before_acquire(|connection, _| {
                let is_clean = !connection.is_in_transaction();
                if !is_clean {
                    tracing::warn!("the pool replaces a connection to the database that was left in a failed transaction");
                }
                Box::pin(std::future::ready(Ok(is_clean)))
            })
        })
        .map_sqlx_sqlite_opts(move |sqlite| {
            sqlite
                .create_if_missing(!read_only)
                .read_only(read_only)
                .journal_mode(SqliteJournalMode::Wal)
                // `Full`: an accepted message survives a power failure, and so does the record that the message was
                // sent.
                .synchronous(SqliteSynchronous::Full)
                .busy_timeout(Duration::from_secs(5))
                .foreign_keys(true)
                // Enough for the rows of a claim, so that the connection's thread does not have to wait for the reader
                // of the rows.
                .row_buffer_size(512)
                .statement_cache_capacity(STATEMENTS)
                // In KiB. The next commit invalidates a reader's cache, and emptying a larger cache takes longer.
                .pragma("cache_size", if read_only { "-2048" } else { "-65536" })
                .pragma("mmap_size", "268435456")
                .pragma("temp_store", "MEMORY")
                .pragma("wal_autocheckpoint", "8000")
        });
    options
}

fn postgres(url: &str, doubt: &FailureWatch) -> ConnectOptions {
    let mut options = options(url, 16);
    let doubt = doubt.clone();
    options
        .idle_timeout(Duration::from_mins(10))
        .map_sqlx_postgres_pool_opts(move |pool| doubt.guard(pool))
        .map_sqlx_postgres_opts(|postgres| {
            session::options(postgres).statement_cache_capacity(STATEMENTS)
        });
    options
}

fn make_file(url: &str) -> Result<(), StoreError> {
    let file = url
        .trim_start_matches("sqlite://")
        .split('?')
        .next()
        .unwrap_or_default();
    if file.is_empty() || file.starts_with(":memory:") {
        return Err(StoreError::Settings(
            "WXGATE_DATABASE_URL must name a file, such as sqlite://wxgate-data/wxgate.db: a database in memory loses accepted messages".into(),
        ));
    }
    // Read the path as the driver does, because the driver decodes `%20`.
    let file = url.parse::<SqliteConnectOptions>().map_or_else(
        |_| PathBuf::from(file),
        |options| options.get_filename().to_path_buf(),
    );
    private::prepare(&file).map_err(|error| {
        StoreError::Settings(format!(
            "cannot make the database {}: {error}; choose a writable folder with WXGATE_DATABASE_URL=sqlite://FOLDER/wxgate.db",
            file.display()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn rows(store: &Store) -> i64 {
        let count = Statement::from_string(DbBackend::Sqlite, "SELECT COUNT(*) AS rows FROM t");
        let row = store.read().query_one_raw(count).await.unwrap().unwrap();
        row.try_get("", "rows").unwrap()
    }

    #[tokio::test]
    async fn what_is_written_after_the_disk_was_full_is_on_disk() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/wxgate.db", folder.path().display());
        let store = Store::connect(&url).await.unwrap();
        let write = store.write();
        let insert = "INSERT INTO t VALUES (zeroblob(100000))";
        for sql in ["CREATE TABLE t (x BLOB)", "PRAGMA max_page_count = 10"] {
            write.execute_unprepared(sql).await.unwrap();
        }
        let tx = store.begin_batch().await.unwrap();
        let full = tx.execute_unprepared(insert).await.unwrap_err();
        assert!(full.to_string().contains("full"), "{full}");
        drop(tx);
        // The first transaction is rolled back on purpose, the second is committed.
        let tx = store.begin_batch().await.unwrap();
        tx.execute_unprepared(insert).await.unwrap();
        tx.rollback().await.unwrap();
        let tx = store.begin_batch().await.unwrap();
        tx.execute_unprepared(insert).await.unwrap();
        tx.commit().await.unwrap();
        write.execute_unprepared(insert).await.unwrap();
        assert_eq!(rows(&store).await, 2);
    }
}
