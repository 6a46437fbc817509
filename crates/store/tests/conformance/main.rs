//! The store's rules, each on SQLite and on PostgreSQL.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod allowance;
mod answers;
mod apps;
mod audit;
mod cancel;
mod circumstances;
mod claims;
mod common;
mod credentials;
mod ends;
mod grants;
mod keys;
mod lanes;
mod leases;
mod makers;
mod owners;
mod queue;
mod quota;
mod receipts;
mod reseal;
mod retention;
mod retry;
mod templates;
mod tenants;
mod webhooks;
