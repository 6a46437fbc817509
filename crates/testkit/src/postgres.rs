//! A private PostgreSQL server.

use std::{
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::Stdio,
};

mod pooler;
mod refusals;

pub use {pooler::Pooler, refusals::TableLock};

use nix::unistd::{Uid, User};

use crate::{
    folder::Folder,
    process::{Process, Signal, command, free_port, run},
};

/// PostgreSQL refuses to run as root; the PostgreSQL package creates this user.
const USER: &str = "postgres";

/// A running PostgreSQL with an empty cluster. Ends and loses all data when dropped or when the test process ends.
#[derive(Debug)]
pub struct Postgres {
    process: Process,
    bin: PathBuf,
    port: u16,
    folder: Folder,
}

impl Postgres {
    /// Makes a cluster and starts a server on a free port of 127.0.0.1.
    ///
    /// # Panics
    ///
    /// If PostgreSQL is not installed, or does not start.
    pub fn start() -> Self {
        let server = Self::unmade();
        let mut initdb = command(&server.bin.join("initdb"), Some(USER));
        initdb.arg("--pgdata").arg(server.data());
        initdb.args([
            "--username",
            USER,
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        ]);
        run(initdb);
        server.restart();
        server
    }

    /// A server without a cluster.
    fn unmade() -> Self {
        Self {
            process: Process::default(),
            bin: binaries(),
            port: free_port(),
            folder: folder(),
        }
    }

    /// The URL of a database of the server. The database `postgres` exists from the start.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/{database}", self.port)
    }

    /// Creates an empty database and returns the URL.
    ///
    /// # Panics
    ///
    /// If the server is down or the name is taken.
    pub fn create_database(&self, name: &str) -> String {
        let mut createdb = self.client("createdb");
        createdb.args(["--username", USER, name]);
        run(createdb);
        self.url(name)
    }

    /// Creates an empty database that belongs to the new user `owner`, which is no superuser, and returns the URL for
    /// that user.
    ///
    /// # Panics
    ///
    /// If the server is down or one of the names is taken.
    pub fn create_owned_database(&self, name: &str, owner: &str) -> String {
        self.execute(&self.url("postgres"), &format!("CREATE ROLE {owner} LOGIN"));
        let mut createdb = self.client("createdb");
        createdb.args(["--username", USER, "--owner", owner, name]);
        run(createdb);
        format!("postgres://{owner}@127.0.0.1:{}/{name}", self.port)
    }

    /// All data of the database at `url` as SQL, with bytes in hex.
    ///
    /// # Panics
    ///
    /// If the server is down.
    pub fn dump(&self, url: &str) -> String {
        let mut dump = command(&self.bin.join("pg_dump"), None);
        dump.args(["--inserts", url]);
        match dump.output() {
            Ok(output) if output.status.success() => {
                String::from_utf8_lossy(&output.stdout).into_owned()
            }
            ended => panic!("pg_dump does not work: {ended:?}"),
        }
    }

    /// Runs SQL on the database at `url`. Returns one line for each row, with `|` between the columns.
    ///
    /// # Panics
    ///
    /// If the server is down or the SQL is wrong.
    pub fn sql(&self, url: &str, sql: &str) -> String {
        let output = run(self.psql(url, &[sql]));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Begins a transaction on the database at `url`, runs SQL in that transaction, and holds the locks until the caller
    /// kills the returned process.
    ///
    /// # Panics
    ///
    /// If `psql` does not start.
    pub fn hold(&self, url: &str, sql: &str) -> std::process::Child {
        // With this setting the server notices a killed client.
        let begin = "SET client_connection_check_interval = '100ms'";
        let mut psql = self.psql(url, &[begin, "BEGIN", sql, "SELECT pg_sleep(600)"]);
        psql.stdin(Stdio::null()).stdout(Stdio::null());
        match psql.spawn() {
            Ok(child) => child,
            Err(error) => panic!("psql does not start: {error}"),
        }
    }

    fn psql(&self, url: &str, commands: &[&str]) -> std::process::Command {
        let mut psql = command(&self.bin.join("psql"), None);
        psql.args([url, "--no-psqlrc", "--tuples-only", "--no-align", "--quiet"]);
        psql.args(["--set", "ON_ERROR_STOP=1"]);
        for command in commands {
            psql.args(["--command", command]);
        }
        psql
    }

    /// The port of the server, which stays the same over restarts.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Shuts the server down cleanly: open transactions are rolled back, and all data is written.
    pub fn stop(&self) {
        self.thaw();
        self.process.end(Signal::SIGINT);
    }

    /// Makes the server crash: connections break at once, and the next start recovers from the write-ahead log.
    pub fn kill(&self) {
        self.thaw();
        self.process.end(Signal::SIGQUIT);
    }

    /// Kills all processes of the server at once with `kill -9`, as when a machine fails: connections break without a
    /// message, and the next start recovers from the write-ahead log.
    pub fn fail(&self) {
        self.process.fail();
    }

    /// Starts the server again on the same port with the same data, and stops a running server first.
    ///
    /// # Panics
    ///
    /// If the server does not start; the panic shows the server's log.
    pub fn restart(&self) {
        self.stop();
        let mut postgres = command(&self.bin.join("postgres"), Some(USER));
        postgres
            .arg("-D")
            .arg(self.data())
            .arg("-p")
            .arg(self.port.to_string());
        let sockets = format!("unix_socket_directories={}", self.folder.path().display());
        for setting in [
            "fsync=off",
            "listen_addresses=127.0.0.1",
            "max_connections=300",
            sockets.as_str(),
        ] {
            postgres.args(["-c", setting]);
        }
        let ready = || {
            self.client("pg_isready")
                .output()
                .is_ok_and(|output| output.status.success())
        };
        if let Err(log) = self
            .process
            .start(postgres, &self.folder.path().join("log"), ready)
        {
            panic!("PostgreSQL did not start: {log}");
        }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn client(&self, program: &str) -> std::process::Command {
        let mut client = command(&self.bin.join(program), None);
        client.args(["--host", "127.0.0.1", "--port", &self.port.to_string()]);
        client
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The binaries of the newest version that the distribution's packages have installed.
fn binaries() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let newest = versions
        .filter_map(|version| {
            Some((
                version.file_name().to_str()?.parse::<u32>().ok()?,
                version.path().join("bin"),
            ))
        })
        .filter(|(_, bin)| bin.join("postgres").exists())
        .max();
    match newest {
        Some((_, bin)) => bin,
        None => panic!("there is no PostgreSQL in /usr/lib/postgresql/*/bin: run `make setup`"),
    }
}

/// A temporary folder that the server's user owns.
fn folder() -> Folder {
    let folder = Folder::new("wxgate-postgres-");
    give_away(folder.path());
    folder
}

fn give_away(folder: &Path) {
    if !Uid::effective().is_root() {
        return;
    }
    let Ok(Some(user)) = User::from_name(USER) else {
        panic!("there is no user `{USER}` to run PostgreSQL as: run `make setup`");
    };
    if let Err(error) = chown(folder, Some(user.uid.as_raw()), Some(user.gid.as_raw())) {
        panic!("cannot give {} to `{USER}`: {error}", folder.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_its_data_over_a_crash() {
        let server = Postgres::start();
        let url = server.create_database("kept");
        for crash in [Postgres::kill, Postgres::fail] {
            crash(&server);
            assert!(!server.client("pg_isready").status().unwrap().success());
            server.restart();
            let mut query = std::process::Command::new(server.bin.join("psql"));
            query.args([&url, "--command", "SELECT 1"]);
            run(query);
        }
    }
}
