//! The rules of the repository, checked as tests.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

mod arrows;
mod breaks;
mod circles;
mod errors;
mod files;
mod language;
mod links;
mod logs;
mod manifests;
mod released;
mod security;
mod supply;
mod workspace;
