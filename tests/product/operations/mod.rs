//! What operators use: commands, settings, logs, metrics, traces and the audit log.

mod audit_log;
mod cli;
mod connections;
mod dev;
mod doctor;
mod health_and_metrics;
pub(crate) mod import;
mod import_of_spreadsheets;
mod logs;
mod private_data;
mod safeguards;
mod server_watch;
pub(crate) mod traces;
