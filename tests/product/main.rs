//! The product from outside: tests call real gateways over HTTP, in front of a WeChat simulator.
//!
//! Every scenario runs in both modes: embedded (SQLite, coordination in process) and production (PostgreSQL and Redis).
//! A scenario is an `async fn(Mode)` that begins with a [`World`](world::World) and is written in the terms of the
//! product; `both_modes!` makes its two tests. No test sleeps: tests wait on conditions and set the clock by hand.
//!
//! The tests start private PostgreSQL and Redis servers on free ports; these servers end with this process. If the
//! machine lacks a server, a test fails with a message that names the remedy. No test is skipped.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, its helpers too, and says what it saw"
)]

/// Makes `name::embedded` and `name::production` of each scenario.
macro_rules! both_modes {
    ($($scenario:ident),* $(,)?) => {$(
        mod $scenario {
            use crate::world::Mode;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn embedded() {
                super::$scenario(Mode::Embedded).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn production() {
                super::$scenario(Mode::Production).await;
            }
        }
    )*};
}

mod access;
mod api;
mod apps;
mod callbacks;
mod drop_in;
mod grants;
mod load;
mod messages;
mod operations;
mod outages;
mod quotas;
mod templates;
mod tokens;
mod webhooks;
mod world;
