//! The storage of a world: servers and databases.

use std::sync::{
    Arc, LazyLock,
    atomic::{AtomicUsize, Ordering},
};

use tempfile::TempDir;
use testkit::{Postgres, Redis};

use super::{Mode, switch::Switch};

/// One server, shared by all tests that do not harm the server. The server ends with the process.
static POSTGRES: LazyLock<Arc<Postgres>> = LazyLock::new(|| Arc::new(Postgres::start()));
static DATABASES: AtomicUsize = AtomicUsize::new(0);

/// The database, and Redis where there is one.
pub(crate) struct Home {
    pub(crate) database_url: String,
    /// The URL of PostgreSQL itself; `database_url` leads through the switch if there is one.
    pub(crate) direct_url: String,
    pub(crate) redis_url: Option<String>,
    /// Dropping the guard deletes the folder, so the world keeps the guard.
    folder: TempDir,
    postgres: Option<Arc<Postgres>>,
    redis: Option<Redis>,
    pub(crate) switch: Option<Switch>,
}

/// How the gateways of a world reach PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    /// One server, shared by all tests that do not harm the server.
    Shared,
    /// A server of this test alone, which the test may stop.
    Own,
    /// A server of this test alone, behind a switch that can lead to another server.
    Switched,
}

impl Home {
    /// Creates an empty database for this mode.
    pub(crate) async fn new(mode: Mode, server: Server) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("wxgate-product-")
            .tempdir()
            .expect("a temporary folder");
        match mode {
            Mode::Embedded => {
                let database_url = format!("sqlite://{}/wxgate.db", folder.path().display());
                Self {
                    direct_url: database_url.clone(),
                    database_url,
                    redis_url: None,
                    folder,
                    postgres: None,
                    redis: None,
                    switch: None,
                }
            }
            Mode::Production => {
                let redis = Redis::start();
                let name = format!("world_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
                let (postgres, direct_url) = if server == Server::Shared {
                    (POSTGRES.clone(), POSTGRES.create_database(&name))
                } else {
                    // An ordinary role owns the database: a test cannot revoke the rights of a superuser.
                    let own = Postgres::start();
                    let url = own.create_owned_database(&name, "wxgate");
                    (Arc::new(own), url)
                };
                let (port, mut database_url) = (postgres.port(), direct_url.clone());
                let mut switch = None;
                if server == Server::Switched {
                    let before = Switch::start(port).await;
                    let (theirs, its) = (format!(":{port}/"), format!(":{}/", before.port()));
                    database_url = direct_url.replace(&theirs, &its);
                    switch = Some(before);
                }
                Self {
                    database_url,
                    direct_url,
                    switch,
                    redis_url: Some(redis.url()),
                    folder,
                    postgres: Some(postgres),
                    redis: Some(redis),
                }
            }
        }
    }

    /// A folder for other files of the test.
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// The PostgreSQL server in production mode.
    pub(crate) fn postgres(&self) -> &Postgres {
        self.postgres
            .as_ref()
            .expect("a PostgreSQL: production mode only")
    }

    /// The Redis server in production mode.
    pub(crate) fn redis(&self) -> &Redis {
        self.redis.as_ref().expect("a Redis: production mode only")
    }
}
