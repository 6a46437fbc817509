//! Credentials and tenants: permitted and refused calls, the cost of failures, and what stays secret.

mod authorization;
mod derived_keys;
mod failed_credentials;
mod key_rotation;
mod login_floods;
mod oauth;
mod secret_leaks;
mod tenant_isolation;
