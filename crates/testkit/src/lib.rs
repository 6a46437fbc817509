//! Private servers for tests: a PostgreSQL, a pooler and a Redis of one's own, on free ports, with their data in a folder
//! that goes with them. Tests can stop, kill and restart them, and none can disturb another's.
//!
//! The servers end with their guard, and with the test process however it ends, so a guard may well live in a
//! `static`. What is missing on the machine is a panic that names the remedy, never a test skipped in silence.
//! Everything here blocks; that is fine in a test.
//!
//! To add a server: a module with a `start`, what tests need of it, and a `Process` and a `Folder` inside.
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
