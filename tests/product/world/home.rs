//! Where a world keeps its data: servers and databases of its own.

use std::sync::{
    Arc, LazyLock,
    atomic::{AtomicUsize, Ordering},
};

use tempfile::TempDir;
use testkit::{Postgres, Redis};

use super::{Mode, switch::Switch};

/// One server for all tests that do not harm it. Ends with the process.
static POSTGRES: LazyLock<Arc<Postgres>> = LazyLock::new(|| Arc::new(Postgres::start()));
static DATABASES: AtomicUsize = AtomicUsize::new(0);

/// The database, and Redis where there is one.
pub(crate) struct Home {
    pub(crate) database_url: String,
    /// The database itself, where `database_url` leads to it by a switch.
    pub(crate) direct_url: String,
    pub(crate) redis_url: Option<String>,
    /// Kept for as long as the world: it goes with its guard.
    folder: TempDir,
    postgres: Option<Arc<Postgres>>,
    redis: Option<Redis>,
    pub(crate) switch: Option<Switch>,
}

/// How the gateways of a world reach their PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    /// It is one server for all tests that do not harm it.
    Shared,
    /// It is a server of the test's own, which it may stop.
    Own,
    /// The same, behind a switch that can lead elsewhere.
    Switched,
}

impl Home {
    /// A fresh database of this mode.
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
                    // Its rights can be taken away, which those of a superuser cannot.
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

    /// A folder for whatever else a test writes.
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// The server of a breakable home in production mode.
    pub(crate) fn postgres(&self) -> &Postgres {
        self.postgres
            .as_ref()
            .expect("a PostgreSQL: production mode only")
    }

    /// The server in production mode.
    pub(crate) fn redis(&self) -> &Redis {
        self.redis.as_ref().expect("a Redis: production mode only")
    }
}
