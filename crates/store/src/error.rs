//! Errors of the database.

use sea_orm::{DbErr, RuntimeErr, SqlErr};

use crate::Outage;

/// Why the store could not do what the caller asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached or refuses the request for now: for example full, read-only, locked or a standby.
    /// This variant covers every error that is not known to be [`Broken`](Self::Broken). A retry may succeed.
    #[error("the database cannot execute the request {0}")]
    Unavailable(Outage),
    /// Something with the same key exists already.
    #[error("{0} already exists: read the existing one, or choose another")]
    Taken(&'static str),
    /// A twin of the request has claimed the idempotency key in the meantime. Nothing was changed.
    #[error("the request already has an answer: send the request again to get the answer")]
    Answered,
    /// The row has changed since the caller read the row. Nothing was changed.
    #[error("the {0} has changed since it was read: read the {0} again")]
    Changed(&'static str),
    /// The named thing does not exist here.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// The database and the program disagree: a defect, or a schema of another version. The database refuses the same
    /// statement with the same data at every retry.
    #[error(
        "the database answered unexpectedly ({0}): `wxgate doctor` and `wxgate migrate status` say whether the schema is the schema of this program; if so, report this error as a defect"
    )]
    Broken(String),
    /// The settings cannot work.
    #[error("{0}")]
    Settings(String),
}

impl From<DbErr> for StoreError {
    fn from(error: DbErr) -> Self {
        match &error {
            // The driver's message about a URL contains the URL, and therefore the password.
            DbErr::Conn(RuntimeErr::Internal(_)) => Self::Settings(
                "WXGATE_DATABASE_URL is not a valid URL: write the URL as sqlite://folder/wxgate.db or postgres://user:password@host:5432/database".into(),
            ),
            _ if !is_lasting(&error) => Self::Unavailable((&error).into()),
            _ => match error.sql_err() {
                Some(SqlErr::UniqueConstraintViolation(_)) => Self::Taken("a row with this key"),
                _ => Self::Broken(error.to_string()),
            },
        }
    }
}

impl StoreError {
    /// Whether a retry of the same call may succeed.
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

/// Whether the database refuses the same statement with the same data at every retry. Every other error, also every
/// unknown error, counts as an outage. An outage that is taken for a lasting refusal loses the data that was to be
/// written; a lasting refusal that is taken for an outage costs only a retry.
fn is_lasting(error: &DbErr) -> bool {
    match error {
        DbErr::Exec(RuntimeErr::SqlxError(cause)) | DbErr::Query(RuntimeErr::SqlxError(cause)) => {
            is_refused_for_good(cause)
        }
        // The value read is not what the program wrote, or the value to write is invalid. No statement reached the
        // database.
        DbErr::TryIntoErr { .. }
        | DbErr::ConvertFromU64(_)
        | DbErr::UnpackInsertId
        | DbErr::UpdateGetPrimaryKey
        | DbErr::RecordNotFound(_)
        | DbErr::AttrNotSet(_)
        | DbErr::Custom(_)
        | DbErr::Type(_)
        | DbErr::Json(_)
        | DbErr::Migration(_)
        | DbErr::RecordNotInserted
        | DbErr::RecordNotUpdated
        | DbErr::BackendNotSupported { .. }
        | DbErr::KeyArityMismatch { .. }
        | DbErr::PrimaryKeyNotSet { .. } => true,
        _ => false,
    }
}

/// Whether the statement or the data is at fault, and not the server, the state of the server or the network.
fn is_refused_for_good(cause: &sqlx::Error) -> bool {
    match cause {
        sqlx::Error::Database(error) => error.code().is_some_and(|code| match code.len() {
            POSTGRES_CODE => is_postgres_refusal(&code),
            _ => code.parse().is_ok_and(is_sqlite_refusal),
        }),
        sqlx::Error::RowNotFound
        | sqlx::Error::TypeNotFound { .. }
        | sqlx::Error::ColumnIndexOutOfBounds { .. }
        | sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::Decode(_)
        | sqlx::Error::Encode(_)
        | sqlx::Error::InvalidArgument(_) => true,
        _ => false,
    }
}

/// The length of an SQLSTATE. SQLite's codes have four digits at most.
const POSTGRES_CODE: usize = 5;

/// Data exceptions (22), violated constraints (23), and statements that the schema does not allow (42). The exceptions
/// in class 42 depend on the server or the session, and may pass: missing rights (42501), a database without the tables
/// (42P01), cursors and prepared statements that exist in the session already (42P03, 42P05).
///
/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>
fn is_postgres_refusal(state: &str) -> bool {
    ["22", "23", "42"]
        .iter()
        .any(|class| state.starts_with(class))
        && !["42501", "42P01", "42P03", "42P05"].contains(&state)
}

/// `SQLITE_ERROR`, `TOOBIG`, `CONSTRAINT`, `MISMATCH`, `MISUSE` and `RANGE`. The low byte of an extended code is the
/// primary code. <https://www.sqlite.org/rescode.html>
fn is_sqlite_refusal(code: u32) -> bool {
    matches!(code & 0xff, 1 | 18 | 19 | 20 | 21 | 25)
}

/// The error for a database value that the program does not know.
pub(crate) fn unknown(column: &str, value: &str) -> StoreError {
    StoreError::Broken(format!("{column} is `{value}`"))
}

#[cfg(test)]
mod tests {
    use sea_orm::ConnectionTrait;

    use super::*;

    #[test]
    fn what_the_driver_says_of_a_url_is_not_repeated() {
        let told = "The connection string 'postgres://wx:s3cret@db' cannot be parsed.";
        let error: StoreError = DbErr::Conn(RuntimeErr::Internal(told.into())).into();
        assert!(matches!(error, StoreError::Settings(_)), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("s3cret"));
    }

    /// The store's error for a PostgreSQL error with this SQLSTATE.
    async fn raised(store: &crate::Store, state: &str) -> StoreError {
        let sql = format!("DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '{state}'; END $$");
        let refused = store.write().execute_unprepared(&sql).await;
        refused.unwrap_err().into()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_postgresql_may_get_over_is_an_outage_and_so_is_what_nobody_knows() {
        let server = testkit::Postgres::start();
        let url = server.create_database("errors");
        let store = crate::Store::connect(&url).await.unwrap();
        for state in [
            "08000", "08006", "0A000", "0LP01", "25006", "25P02", "25P03", "26000", "28000",
            "28P01", "34000", "3D000", "40001", "40P01", "42501", "42P01", "42P03", "42P05",
            "53000", "53100", "53300", "54000", "55000", "55006", "55P03", "57014", "57P01",
            "57P03", "58000", "58030", "72000", "F0000", "HV000", "P0001", "XX000", "XX001",
            "XX002", "ZZZZZ", "12345",
        ] {
            let error = raised(&store, state).await;
            assert!(error.is_outage(), "{state}: {error:?}");
        }
        for state in [
            "22001", "22021", "22P05", "23502", "23503", "23514", "42601", "42703",
        ] {
            let error = raised(&store, state).await;
            assert!(matches!(error, StoreError::Broken(_)), "{state}: {error:?}");
        }
        let error = raised(&store, "23505").await;
        assert!(matches!(error, StoreError::Taken(_)), "{error:?}");
    }

    #[test]
    fn what_sqlite_may_get_over_is_an_outage() {
        // BUSY, LOCKED, NOMEM, READONLY, IOERR_WRITE, CORRUPT, FULL, CANTOPEN, PROTOCOL, SCHEMA, NOTADB, BUSY_SNAPSHOT.
        for code in [5, 6, 7, 8, 778, 11, 13, 14, 15, 17, 26, 517] {
            assert!(!is_sqlite_refusal(code), "{code}");
        }
        // ERROR, TOOBIG, CONSTRAINT, CONSTRAINT_CHECK, CONSTRAINT_UNIQUE, MISMATCH, MISUSE, RANGE.
        for code in [1, 18, 19, 275, 2067, 20, 21, 25] {
            assert!(is_sqlite_refusal(code), "{code}");
        }
    }
}
