//! What to do about a database that refuses a request or does not answer.

use std::fmt;

use sea_orm::{DbErr, RuntimeErr};

/// Why the database did not do what the gateway asked, and what to do about the cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outage {
    detail: String,
    advice: &'static str,
}

const CHECK: &str = "check WXGATE_DATABASE_URL, that the server runs and takes writes, that its disk has free space, and the rights of the database user";
const REACH: &str = "check the host and port in WXGATE_DATABASE_URL, that the server runs, and the firewalls on the way";
const RIGHTS: &str = "the user of WXGATE_DATABASE_URL lacks a right: make the user the owner of the database (`ALTER DATABASE … OWNER TO …`), or run `GRANT USAGE, CREATE ON SCHEMA public TO …` as the owner before the first `wxgate migrate up`, and run all migrations as the same user";
const PRIMARY: &str = "the server or this session is read-only: set WXGATE_DATABASE_URL to the primary, and set default_transaction_read_only = off";
const CONNECTIONS: &str = "a replica keeps up to 16 connections: raise max_connections of PostgreSQL, or max_client_conn and default_pool_size of PgBouncer, or run fewer replicas";
const ROOM: &str = "free space on the disk of the database";
const LOCK: &str =
    "find the session that locks the tables (pg_stat_activity, pg_locks) and end the session";
const POOLER: &str = "a pooler gives each transaction another session of the server: set WXGATE_DATABASE_URL to the server itself, or set pool_mode = session in PgBouncer";
const TABLES: &str = "the database has no tables of wxgate: check that WXGATE_DATABASE_URL names the right database, and run `wxgate migrate up`";
const FILE: &str = "check the file that WXGATE_DATABASE_URL names: that no other program locks the file, that its disk works and has free space, and that the user that runs wxgate may write the file";

impl Outage {
    /// `detail` is the message of the database or of the network. `code` is the SQLSTATE, or SQLite's number.
    pub(crate) fn new(detail: impl Into<String>, code: Option<&str>) -> Self {
        Self {
            detail: detail.into(),
            advice: code.map_or(CHECK, advice),
        }
    }

    /// The outage where nothing answers at the address.
    pub(crate) fn unreachable(detail: impl Into<String>) -> Self {
        Self {
            detail: detail.into(),
            advice: REACH,
        }
    }
}

impl From<&DbErr> for Outage {
    fn from(error: &DbErr) -> Self {
        match error {
            DbErr::Exec(RuntimeErr::SqlxError(cause))
            | DbErr::Query(RuntimeErr::SqlxError(cause))
            | DbErr::Conn(RuntimeErr::SqlxError(cause)) => Self::from(&**cause),
            other => Self::new(other.to_string(), None),
        }
    }
}

impl From<&sqlx::Error> for Outage {
    fn from(error: &sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(cause) => Self::new(cause.message(), cause.code().as_deref()),
            sqlx::Error::Io(cause) => Self::unreachable(cause.to_string()),
            sqlx::Error::PoolTimedOut => Self {
                detail: "no connection is free".to_owned(),
                advice: CONNECTIONS,
            },
            other => Self::new(other.to_string(), None),
        }
    }
}

impl From<&str> for Outage {
    fn from(detail: &str) -> Self {
        Self::new(detail, None)
    }
}

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { detail, advice } = self;
        write!(f, "({detail}): {advice}")
    }
}

/// The advice for an error code. The codes: <https://www.postgresql.org/docs/current/errcodes-appendix.html>,
/// <https://www.sqlite.org/rescode.html>
fn advice(code: &str) -> &'static str {
    match code {
        "42501" => RIGHTS,
        "25006" => PRIMARY,
        "53300" => CONNECTIONS,
        "53100" => ROOM,
        "55P03" | "57014" => LOCK,
        "42P01" => TABLES,
        "26000" | "34000" | "42P03" | "42P05" => POOLER,
        _ if code.len() < 5 => FILE,
        _ => CHECK,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outage_says_what_to_do() {
        for (code, words) in [
            (Some("42501"), "GRANT USAGE, CREATE ON SCHEMA"),
            (Some("25006"), "the primary"),
            (Some("53300"), "default_pool_size"),
            (Some("53100"), "free space"),
            (Some("55P03"), "pg_locks"),
            (Some("42P01"), "wxgate migrate up"),
            (Some("26000"), "pool_mode = session"),
            (Some("42P05"), "pool_mode = session"),
            (Some("5"), "the file that WXGATE_DATABASE_URL names"),
            (Some("XX000"), "WXGATE_DATABASE_URL"),
            (None, "WXGATE_DATABASE_URL"),
        ] {
            let shown = Outage::new("it broke", code).to_string();
            assert!(
                shown.starts_with("(it broke): ") && shown.contains(words),
                "{code:?}: {shown}"
            );
        }
    }
}
