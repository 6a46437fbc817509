//! A `PgBouncer` in front of a PostgreSQL server.

use std::{net::TcpStream, path::Path};

use super::{Folder, Postgres, Process, USER, command, folder, free_port};

/// A running `PgBouncer` that leads to a server. Ends when dropped or when the test process ends.
#[derive(Debug)]
pub struct Pooler {
    #[expect(dead_code, reason = "ends when it is dropped")]
    process: Process,
    #[expect(dead_code, reason = "ends when it is dropped")]
    folder: Folder,
    port: u16,
}

impl Pooler {
    /// Starts a pooler in front of `server` on a free port of 127.0.0.1, with `mode` as the `pool_mode`: `session`,
    /// `transaction` or `statement`. All other settings except the pool size have their defaults.
    ///
    /// # Panics
    ///
    /// If `PgBouncer` is not installed, or does not start.
    pub fn start(server: &Postgres, mode: &str) -> Self {
        let (folder, process, port) = (folder(), Process::default(), free_port());
        let file = folder.path().join("pgbouncer.ini");
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={} user={USER}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = any\npool_mode = {mode}\ndefault_pool_size = 40\n",
            server.port
        );
        if let Err(error) = std::fs::write(&file, settings) {
            panic!("cannot write {}: {error}", file.display());
        }
        // PgBouncer refuses to run as root.
        let mut pooler = command(Path::new("/usr/sbin/pgbouncer"), Some(USER));
        pooler.arg(file);
        let answers = || TcpStream::connect(("127.0.0.1", port)).is_ok();
        if let Err(log) = process.start(pooler, &folder.path().join("log"), answers) {
            panic!("PgBouncer did not start (is it installed? `make setup`): {log}");
        }
        Self {
            process,
            folder,
            port,
        }
    }

    /// The URL of a database behind the pooler, for the user that owns the server.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/{database}", self.port)
    }
}
