//! The settings of every session on PostgreSQL, and the check that the connection keeps these settings.
//!
//! The gateway runs `SET` on each new connection and sends no startup options, because `PgBouncer` refuses startup
//! options or drops the options silently.

use sqlx::{Connection, Executor, Row, postgres::PgConnectOptions, postgres::PgConnection};

const SETTINGS: &str = "
-- A replica that is cut off in the middle of a transaction must not hold its locks for ever.
SET idle_in_transaction_session_timeout = '10s';
SET statement_timeout = '30s';
-- Every statement has its index. Plans that read all of a table or an index are only ever chosen by statistics from before the
-- queue filled, and a prepared statement keeps them. Where there is no other, they count as so expensive that PostgreSQL
-- would take half a second to compile them.
SET enable_seqscan = off;
SET enable_bitmapscan = off;
SET enable_hashjoin = off;
SET enable_mergejoin = off;
SET jit = off;
-- One plan does for every size of batch: it need not be made anew for each.
SET plan_cache_mode = force_generic_plan;
";

/// The advice about a pooler that does not keep sessions.
pub(crate) const POOLER: &str = "WXGATE_DATABASE_URL names a pooler that gives each transaction another session of the server, such as PgBouncer with pool_mode = transaction, but the gateway keeps prepared statements and settings in its sessions: set the URL to the server itself, or set pool_mode = session for this database";

/// The options with which the driver connects.
pub(crate) fn options(options: PgConnectOptions) -> PgConnectOptions {
    // PgBouncer refuses this startup option. Since PostgreSQL 12 numbers are exact without the option.
    options.extra_float_digits(None)
}

/// Applies the session settings to a new connection.
pub(crate) async fn prepare(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    connection.execute(SETTINGS).await.map(drop)
}

/// Whether a pooler shares sessions between connections. Such a pooler hands out the server session that was used last.
/// Then the second connection sees the mark of the first, or the second occupies that session and the first gets another
/// one.
pub(crate) async fn is_shared(
    first: &mut PgConnection,
    options: &PgConnectOptions,
) -> Result<bool, sqlx::Error> {
    const LOOK: &str = "SELECT COALESCE(current_setting('wxgate.session', true), '')";
    let mark = "SELECT set_config('wxgate.session', gen_random_uuid()::TEXT, false)";
    let mark: String = first.fetch_one(mark).await?.try_get(0)?;
    let mut second = PgConnection::connect_with(options).await?;
    match second.execute("BEGIN").await {
        // PgBouncer in the mode `statement`, in which it allows no transaction at all.
        Err(sqlx::Error::Database(refusal)) if refusal.message().contains("statement pooling") => {
            return Ok(true);
        }
        begun => begun?,
    };
    let theirs: String = second.fetch_one(LOOK).await?.try_get(0)?;
    let own: String = first.fetch_one(LOOK).await?.try_get(0)?;
    second.execute("ROLLBACK").await?;
    // The check is complete, so a failed close does not matter.
    let _ = second.close().await;
    Ok(theirs == mark || own != mark)
}
