//! Access tokens of apps.

mod expiring;
pub(crate) mod fetching;
mod foreign_refreshes;
mod stray_refusals;
