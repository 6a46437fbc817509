//! The store's rules, each on SQLite and on PostgreSQL.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod audit;
mod common;
mod identity;
mod lanes;
mod queue;
mod receipts;
mod retention;
mod webhooks;
