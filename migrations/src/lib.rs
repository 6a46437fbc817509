//! The schema, one definition for SQLite and PostgreSQL.
//!
//! To add a migration: write a module named `mYYYYMMDD_what_it_does` and append the module to [`Migrator::migrations`].
//! The module `columns` makes the columns of a table. A released migration never changes. Times are milliseconds since
//! 1970 (UTC) in `BIGINT`, ids are UUIDs, structured values are JSON texts.

pub use sea_orm_migration::MigratorTrait;
use sea_orm_migration::{MigrationTrait, async_trait};

mod columns;
mod m20261122_grant_count;
mod m20261122_grants;
mod m20261122_init;
mod m20261122_kept_answer;
mod m20261122_receipts;
mod m20261122_sealed_key;
mod m20261122_templates;
mod m20261122_tenant_usage;
mod m20261122_webhooks;
mod m20261129_heartbeat;
mod m20261129_key_maker;
mod m20261129_receipt_circumstances;
mod m20261129_receipt_owner;
mod m20261129_receipt_turns;
mod m20261129_webhook_turns;
mod m20261130_message_lists;
mod m20261130_value_rules;

/// All migrations in order.
#[derive(Debug)]
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261122_init::Migration),
            Box::new(m20261122_receipts::Migration),
            Box::new(m20261122_sealed_key::Migration),
            Box::new(m20261122_tenant_usage::Migration),
            Box::new(m20261122_webhooks::Migration),
            Box::new(m20261122_kept_answer::Migration),
            Box::new(m20261122_templates::Migration),
            Box::new(m20261122_grants::Migration),
            Box::new(m20261122_grant_count::Migration),
            Box::new(m20261129_receipt_circumstances::Migration),
            Box::new(m20261129_key_maker::Migration),
            Box::new(m20261129_receipt_owner::Migration),
            Box::new(m20261129_webhook_turns::Migration),
            Box::new(m20261129_receipt_turns::Migration),
            Box::new(m20261129_heartbeat::Migration),
            Box::new(m20261130_message_lists::Migration),
            Box::new(m20261130_value_rules::Migration),
        ]
    }
}
