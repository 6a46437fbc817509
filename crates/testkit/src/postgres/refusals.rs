//! Faults of a running PostgreSQL server: read-only, standby, locked, frozen.

use std::{
    io::Write,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{Postgres, USER};
use crate::process::{Signal, command, run};

/// How long a lock or a setting may take to come into effect.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A lock on a table that a session holds. A drop ends the session and frees the table.
#[derive(Debug)]
pub struct TableLock {
    session: Child,
}

impl Drop for TableLock {
    fn drop(&mut self) {
        let _ = self.session.kill();
        let _ = self.session.wait();
    }
}

impl Postgres {
    /// Runs SQL in the database at `url` as the superuser and returns the output, unaligned and without headings.
    ///
    /// # Panics
    ///
    /// If the server is down or refuses the statement.
    pub fn execute(&self, url: &str, sql: &str) -> String {
        let mut psql = command(&self.bin.join("psql"), None);
        psql.args([
            "--no-psqlrc",
            "--quiet",
            "--tuples-only",
            "--no-align",
            "--set=ON_ERROR_STOP=1",
            url,
            "--command",
            sql,
        ]);
        String::from_utf8_lossy(&run(psql).stdout).trim().to_owned()
    }

    /// Sets a parameter for all sessions of the server, also the open ones, with `ALTER SYSTEM` and a reload.
    ///
    /// # Panics
    ///
    /// If the server is down or refuses the setting.
    pub fn set(&self, parameter: &str, value: &str) {
        self.configure(&format!("ALTER SYSTEM SET {parameter} = '{value}'"));
    }

    /// Reverts a setting of [`set`](Self::set).
    ///
    /// # Panics
    ///
    /// If the server is down.
    pub fn reset(&self, parameter: &str) {
        self.configure(&format!("ALTER SYSTEM RESET {parameter}"));
    }

    fn configure(&self, alter: &str) {
        let url = self.url("postgres");
        let loaded = || self.execute(&url, "SELECT pg_conf_load_time()");
        let before = loaded();
        self.execute(&url, alter);
        self.execute(&url, "SELECT pg_reload_conf()");
        wait(alter, || loaded() != before);
    }

    /// Takes the strongest lock on a table of the database at `url`. No other session can read or write the table until
    /// the guard is dropped.
    ///
    /// # Panics
    ///
    /// If the server is down or there is no such table.
    pub fn lock_table(&self, url: &str, table: &str) -> TableLock {
        let mut psql = command(&self.bin.join("psql"), None);
        psql.args(["--no-psqlrc", "--quiet", url]);
        psql.stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut session = match psql.spawn() {
            Ok(session) => session,
            Err(error) => panic!("{psql:?}: {error}; run `make setup`"),
        };
        let sql = format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE;\n");
        // The child keeps the pipe open, so the session ends with the child.
        let written = session.stdin.as_mut().map(|pipe| {
            pipe.write_all(sql.as_bytes())?;
            pipe.flush()
        });
        assert!(matches!(written, Some(Ok(()))), "psql takes no statement");
        let held = format!(
            "SELECT COUNT(*) FROM pg_locks WHERE relation = '{table}'::regclass AND granted AND mode = 'AccessExclusiveLock'"
        );
        let lock = TableLock { session };
        wait(&sql, || self.execute(url, &held) == "1");
        lock
    }

    /// Stops all processes of the server (`SIGSTOP`): connections stay open, and the server answers nothing.
    pub fn freeze(&self) {
        self.process.signal_all(Signal::SIGSTOP);
    }

    /// Continues a frozen server.
    pub fn thaw(&self) {
        self.process.signal_all(Signal::SIGCONT);
    }

    /// A hot standby of this server, with its own port and data. The standby answers reads and refuses writes.
    ///
    /// # Panics
    ///
    /// If this server is down.
    #[must_use]
    pub fn standby(&self) -> Self {
        let standby = Self::unmade();
        let mut backup = command(&self.bin.join("pg_basebackup"), Some(USER));
        backup.args(["--host", "127.0.0.1", "--username", USER]);
        backup.arg("--port").arg(self.port.to_string());
        backup.arg("--pgdata").arg(standby.data());
        backup.args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync"]);
        run(backup);
        standby.restart();
        standby
    }
}

fn wait(what: &str, holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "not in time: {what}");
        thread::sleep(LOOK_AGAIN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standby_has_the_data_and_takes_none() {
        let server = Postgres::start();
        let url = server.create_database("kept");
        server.execute(&url, "CREATE TABLE t (x INT); INSERT INTO t VALUES (7)");
        let standby = server.standby();
        let url = standby.url("kept");
        assert_eq!(standby.execute(&url, "SELECT x FROM t"), "7");
        assert_eq!(standby.execute(&url, "SELECT pg_is_in_recovery()"), "t");
    }

    #[test]
    fn a_lock_ends_with_its_guard_and_a_setting_with_its_reset() {
        let server = Postgres::start();
        let url = server.create_database("locked");
        server.execute(&url, "CREATE TABLE t (x INT)");
        let free = "LOCK TABLE t IN ACCESS SHARE MODE NOWAIT";
        let lock = server.lock_table(&url, "t");
        server.set("lock_timeout", "10ms");
        let waiting = "SELECT set_config('x.y', current_setting('lock_timeout'), false)";
        assert_eq!(server.execute(&url, waiting), "10ms");
        drop(lock);
        wait("the lock is gone", || {
            let locks = "SELECT COUNT(*) FROM pg_locks WHERE relation = 't'::regclass";
            server.execute(&url, locks) == "0"
        });
        server.execute(&url, &format!("BEGIN; {free}; COMMIT"));
        server.reset("lock_timeout");
        assert_eq!(server.execute(&url, waiting), "0");
    }

    #[test]
    fn a_frozen_server_goes_on_when_it_thaws() {
        let server = Postgres::start();
        server.freeze();
        let mut ask = server.client("pg_isready");
        ask.args(["--timeout", "1"]);
        assert!(!ask.status().unwrap().success());
        server.thaw();
        assert_eq!(server.execute(&server.url("postgres"), "SELECT 1"), "1");
    }
}
