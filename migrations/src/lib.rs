//! The schema, one SQL text for SQLite and PostgreSQL: `m20261201_initial/schema.sql`.
//!
//! To add a migration: write a module named `mYYYYMMDD_what_it_does` with the SQL, and append the module to
//! [`Migrator::migrations`]. A released migration never changes. Times are milliseconds since 1970 (UTC) in `BIGINT`, ids
//! are UUIDs, structured values are JSON texts.

pub use sea_orm_migration::MigratorTrait;
use sea_orm_migration::{MigrationTrait, async_trait};

mod m20261201_initial;
mod sql;

/// All migrations in order.
#[derive(Debug)]
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(m20261201_initial::Migration)]
    }
}
