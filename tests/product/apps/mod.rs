//! Apps: registered, changed, removed, and moved to another tenant.

mod ownership;
mod registration;
