//! What can go wrong with the database.

use sea_orm::{DbErr, RuntimeErr, SqlErr};

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached, is full or too busy. Trying again may help.
    #[error(
        "the database does not answer ({0}): check WXGATE_DATABASE_URL and that the server is up and its disk has room"
    )]
    Unavailable(String),
    /// Something with the same key exists already.
    #[error("{0} exists already")]
    Taken(&'static str),
    /// The idempotency key of the request was claimed by a twin of it meanwhile: nothing was done.
    #[error("the request is answered already: send it again for that answer")]
    Answered,
    /// It is no longer what it was when the caller read it: nothing was done.
    #[error("the {0} was changed meanwhile: read it again")]
    Changed(&'static str),
    /// There is no such thing here.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// The database and the program disagree: a defect, or a schema of another version.
    #[error("the database answered unexpectedly ({0}): check `wxgate migrate status`")]
    Broken(String),
    /// The settings cannot work.
    #[error("{0}")]
    Settings(String),
}

impl From<DbErr> for StoreError {
    fn from(error: DbErr) -> Self {
        match &error {
            // What it says of a URL has the URL in it, and so the password.
            DbErr::Conn(RuntimeErr::Internal(_)) => Self::Settings(
                "the database cannot be opened by WXGATE_DATABASE_URL: write it as sqlite://folder/wxgate.db or postgres://user:password@host:5432/database".into(),
            ),
            DbErr::ConnectionAcquire(_) | DbErr::Conn(_) => Self::Unavailable(error.to_string()),
            DbErr::Exec(RuntimeErr::SqlxError(cause))
            | DbErr::Query(RuntimeErr::SqlxError(cause))
                if is_outage(cause) =>
            {
                Self::Unavailable(error.to_string())
            }
            _ => match error.sql_err() {
                Some(SqlErr::UniqueConstraintViolation(_)) => Self::Taken("a row with this key"),
                _ => Self::Broken(error.to_string()),
            },
        }
    }
}

/// Whether the server, its disk or the way to it is at fault, rather than the statement.
fn is_outage(cause: &sqlx::Error) -> bool {
    match cause {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        // PostgreSQL: connection exceptions, out of resources, operator intervention, aborted by a conflict.
        // SQLite: busy, locked, read-only, I/O error, full, cannot open.
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            ["08", "53", "57", "40"]
                .iter()
                .any(|class| code.len() == 5 && code.starts_with(class))
                || code.parse::<u32>().is_ok_and(|code| {
                    code.to_string().len() < 5 && matches!(code & 0xff, 5 | 6 | 8 | 10 | 13 | 14)
                })
        }),
        _ => false,
    }
}

/// A value in the database that the program does not know.
pub(crate) fn unknown(column: &str, value: &str) -> StoreError {
    StoreError::Broken(format!("{column} is `{value}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_driver_says_of_a_url_is_not_repeated() {
        let told = "The connection string 'postgres://wx:s3cret@db' cannot be parsed.";
        let error: StoreError = DbErr::Conn(RuntimeErr::Internal(told.into())).into();
        assert!(matches!(error, StoreError::Settings(_)), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("s3cret"));
    }
}
