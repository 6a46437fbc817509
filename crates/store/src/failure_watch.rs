//! Doubt: detects pooled connections to PostgreSQL that do not lead to the primary any more.
//!
//! A pool keeps connections for hours. During that time the server of a connection may have restarted, become a standby
//! or become read-only, and the host name in the URL may resolve to another server. A check before every statement would
//! cost a round trip each. Therefore a failed statement raises a doubt, and for some seconds every connection is checked
//! before use.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sea_orm::DatabaseConnection;
use sqlx::{
    Executor, Postgres, Row,
    pool::{PoolConnectionMetadata, PoolOptions},
    postgres::PgConnection,
};

use crate::session;

/// How long after the last failed statement every connection is checked, also connections that were in use at that
/// moment.
const WINDOW: Duration = Duration::from_secs(5);
/// A read-only session younger than this stays in the pool: the whole database is read-only, and reads still work.
const FRESH: Duration = Duration::from_secs(1);

/// The minimum time between two log lines about a standby.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// When a statement last failed. Clones share one state.
#[derive(Clone, Debug, Default)]
pub(crate) struct FailureWatch(Arc<Mutex<Times>>);

#[derive(Debug, Default)]
struct Times {
    /// When a statement last failed.
    raised_at: Option<Instant>,
    /// When the log last reported a standby.
    said_at: Option<Instant>,
}

impl FailureWatch {
    /// Raises a doubt whenever a statement on this connection fails.
    pub(crate) fn watch(&self, connection: &mut DatabaseConnection) {
        let doubt = self.clone();
        connection.set_metric_callback(move |statement| {
            if statement.failed {
                doubt.raise();
            }
        });
    }

    /// When the last doubt was raised.
    pub(crate) fn raised_at(&self) -> Option<Instant> {
        self.times().raised_at
    }

    /// Makes the pool prepare the session of each new connection and refuse connections to a standby. After a doubt the
    /// pool drops connections to a standby, and read-only sessions that are not younger than `FRESH`.
    pub(crate) fn guard(&self, pool: PoolOptions<Postgres>) -> PoolOptions<Postgres> {
        let (doubt, found) = (self.clone(), self.clone());
        pool.after_connect(move |connection, _| {
            let found = found.clone();
            Box::pin(async move {
                let refused = refuse_standby(connection).await;
                refused.inspect_err(|error| found.say(error))?;
                session::prepare(connection).await
            })
        })
        .before_acquire(move |connection, metadata| {
            let maybe_used = doubt.needs_check(&metadata);
            Box::pin(async move {
                if !maybe_used {
                    return Ok(true);
                }
                Ok(match look(connection).await {
                    Ok((is_standby, is_read_only)) => {
                        !is_standby && (!is_read_only || metadata.age < FRESH)
                    }
                    Err(_) => false,
                })
            })
        })
    }

    /// Raises a doubt, so that every connection is checked before its next use: a statement has failed, or a transaction
    /// did not begin.
    pub(crate) fn raise(&self) {
        self.times().raised_at = Some(Instant::now());
    }

    fn say(&self, error: &sqlx::Error) {
        let mut times = self.times();
        if times.said_at.is_none_or(|at| at.elapsed() > SAY_AGAIN) {
            times.said_at = Some(Instant::now());
            tracing::warn!(%error, "the database refuses a connection");
        }
    }

    fn times(&self) -> MutexGuard<'_, Times> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a connection was last used before the doubt was raised, or possibly at that moment.
    fn needs_check(&self, metadata: &PoolConnectionMetadata) -> bool {
        self.raised_at().is_some_and(|raised_at| {
            let age = raised_at.elapsed();
            age < WINDOW || age <= metadata.idle_for
        })
    }
}

/// Whether the server is a standby, and whether the session is read-only.
async fn look(connection: &mut PgConnection) -> Result<(bool, bool), sqlx::Error> {
    let ask = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'";
    let row = connection.fetch_one(ask).await?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}

/// Fails where the server is a standby: a standby may show old data, and takes no writes.
pub(crate) async fn refuse_standby(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    match look(connection).await? {
        (true, _) => Err(sqlx::Error::Protocol(
            "the server is a standby, which takes no writes".to_owned(),
        )),
        (false, _) => Ok(()),
    }
}
