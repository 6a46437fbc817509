//! Tests of the tenancy crate through the public interface, on a real database and a manual clock.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod addresses;
mod drop_in;
mod gate;
mod key_status;
mod keys;
mod rotation;
mod tenants;
mod tokens;
