//! Where a world keeps its data: servers and databases of its own.

use std::sync::{
    Arc, LazyLock,
    atomic::{AtomicUsize, Ordering},
};

use tempfile::TempDir;
use testkit::{Postgres, Redis};

use super::Mode;

/// One server for all tests that do not harm it. Ends with the process.
static POSTGRES: LazyLock<Arc<Postgres>> = LazyLock::new(|| Arc::new(Postgres::start()));
static DATABASES: AtomicUsize = AtomicUsize::new(0);

/// The database, and Redis where there is one.
pub(crate) struct Home {
    pub(crate) database_url: String,
    pub(crate) redis_url: Option<String>,
    /// Kept for as long as the world: it goes with its guard.
    folder: TempDir,
    postgres: Option<Arc<Postgres>>,
    redis: Option<Redis>,
}

impl Home {
    /// A fresh database of this mode. `breakable`: on a server of its own, which a test may stop.
    pub(crate) fn new(mode: Mode, breakable: bool) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("wxgate-product-")
            .tempdir()
            .expect("a temporary folder");
        match mode {
            Mode::Embedded => Self {
                database_url: format!("sqlite://{}/wxgate.db", folder.path().display()),
                redis_url: None,
                folder,
                postgres: None,
                redis: None,
            },
            Mode::Production => {
                let redis = Redis::start();
                let postgres = if breakable {
                    Arc::new(Postgres::start())
                } else {
                    POSTGRES.clone()
                };
                let name = format!("world_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
                Self {
                    database_url: postgres.create_database(&name),
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
