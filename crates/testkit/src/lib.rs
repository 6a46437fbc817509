//! Private servers for tests: a PostgreSQL, a `PgBouncer` and a Redis on free ports, each with the data in a temporary
//! folder that is removed with the server. Tests can stop, kill and restart a server without any effect on another
//! server.
//!
//! A server ends with its guard, and at the latest with the test process, however the process ends. So a guard may be a
//! `static`. A program that is missing on the machine causes a panic that names the remedy, and never a skipped test.
//! All functions block, which is acceptable in a test.
//!
//! To add a server: write a module with a `start` function, the operations that tests need, a `Process` and a `Folder`.
//!
//! ```no_run
//! let postgres = wxgate_testkit::Postgres::start();
//! let url = postgres.create_database("orders");
//! assert!(url.starts_with("postgres://"));
//! ```

mod folder;
mod postgres;
mod process;
mod redis;

pub use postgres::{Pooler, Postgres, TableLock};
pub use redis::Redis;
