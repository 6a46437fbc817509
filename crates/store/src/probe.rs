//! Finds out why a database cannot be opened. A pool retries until the timeout and then reports only the timeout; a
//! single connection reports the cause.

use std::{fmt::Display, io, str::FromStr};

use sqlx::{
    Connection,
    postgres::{PgConnectOptions, PgConnection},
};

use crate::{Engine, Store, StoreError, failure_watch::refuse_standby, session};

impl Store {
    /// Connects once to the server at `url` and returns the cause where the connection fails. Where nothing answers, the
    /// call waits until the operating system gives up. A SQLite file is not opened.
    pub async fn probe(url: &str) -> Result<(), StoreError> {
        if Engine::of(url)? == Engine::Sqlite {
            return Ok(());
        }
        let options = PgConnectOptions::from_str(url).map_err(|error| refusal(&error))?;
        let options = session::options(options);
        let connected = PgConnection::connect_with(&options).await;
        let mut connection = connected.map_err(|error| match error {
            // A missing socket file appears when the server starts; a missing certificate file does not appear.
            sqlx::Error::Io(cause) if is_about_a_file(&cause) && options.get_socket().is_none() => {
                StoreError::Settings(format!(
                    "WXGATE_DATABASE_URL names a file that cannot be read ({cause}): check sslrootcert=, sslcert= and sslkey="
                ))
            }
            error => refusal(&error),
        })?;
        let looked = refuse_standby(&mut connection).await;
        looked.map_err(|error| refusal(&error))?;
        refuse_transaction_pooling(&mut connection, &options).await?;
        // The check is complete, so a failed close does not matter.
        let _ = connection.close().await;
        Ok(())
    }
}

/// Refuses a connection path on which another session sees the settings of one session, or on which the settings get
/// lost. `first` is a connection that was made with `options`.
async fn refuse_transaction_pooling(
    first: &mut PgConnection,
    options: &PgConnectOptions,
) -> Result<(), StoreError> {
    match session::is_shared(first, options).await {
        Ok(false) => Ok(()),
        Ok(true) => Err(StoreError::Settings(session::POOLER.to_owned())),
        Err(error) => Err(refusal(&error)),
    }
}

/// Sorts a failed connection. The URL determines user, database and certificate, so an error about these is an error of
/// the settings. Every other error may pass.
pub(crate) fn refusal(error: &sqlx::Error) -> StoreError {
    match error {
        sqlx::Error::Configuration(cause) => StoreError::Settings(format!(
            "WXGATE_DATABASE_URL cannot be used ({cause}): write the URL as postgres://USER:PASSWORD@HOST[:PORT]/DATABASE"
        )),
        sqlx::Error::Tls(cause) => no_tls(cause),
        // The kind of error that rustls returns for a certificate that is not trusted.
        sqlx::Error::Io(cause) if cause.kind() == io::ErrorKind::InvalidData => no_tls(cause),
        sqlx::Error::Database(cause) if is_about_the_url(cause.code().as_deref()) => {
            StoreError::Settings(format!(
                "the database refuses the connection ({}): check the user, password and database in WXGATE_DATABASE_URL",
                cause.message()
            ))
        }
        other => StoreError::Unavailable(other.into()),
    }
}

fn no_tls(cause: &impl Display) -> StoreError {
    StoreError::Settings(format!(
        "no TLS with the database ({cause}): for a server with a certificate of a private CA end WXGATE_DATABASE_URL with ?sslmode=verify-full&sslrootcert=/FOLDER/ca.pem and use the host name of the certificate; for a server without TLS end the URL with ?sslmode=disable"
    ))
}

fn is_about_a_file(cause: &io::Error) -> bool {
    matches!(
        cause.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
    )
}

/// PostgreSQL: invalid authorization (28), no such database (3D000).
fn is_about_the_url(code: Option<&str>) -> bool {
    code.is_some_and(|code| code.starts_with("28") || code == "3D000")
}
