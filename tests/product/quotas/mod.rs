//! The daily quota of an app, and the daily limit of a tenant.

mod daily_quota;
mod daily_quota_of_replicas;
mod tenant_limit;
