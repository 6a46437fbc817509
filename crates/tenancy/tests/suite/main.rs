//! Tenancy as its callers see it, on a real database and a clock that is turned by hand.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod addresses;
mod drop_in;
mod gate;
mod keys;
mod rotation;
mod standing;
mod tenants;
mod tokens;
