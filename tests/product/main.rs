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

mod apps;
mod audit;
mod batch;
mod callbacks;
mod cancel;
mod cli;
mod clients;
mod clocks;
mod connections;
mod crash;
mod days;
mod descendants;
mod dev;
mod doctor;
mod doors;
mod drop_in;
mod drop_in_waits;
mod edits;
mod fairness;
mod floods;
mod foreign;
mod grants;
mod hardening;
mod idempotency;
mod import;
mod kills;
mod leaks;
mod limits;
mod logins;
mod logs;
mod neighbours;
mod network;
mod newcomers;
mod numbers;
mod oauth;
mod old_tokens;
mod once;
mod one_form;
mod operations;
mod outages;
mod owners;
mod pass_through;
mod pressure;
mod private;
mod problems;
mod proxies;
mod quota;
mod reading;
mod refusals;
mod repeats;
mod restart;
mod retry;
mod rotation;
mod safeguards;
mod sending;
mod spreadsheets;
mod stops;
mod storm;
mod strangers;
mod strays;
mod syncs;
mod templates;
mod time;
mod tokens;
mod traces;
mod transport;
mod upload_places;
mod value_rules;
mod watch;
mod webhooks;
mod world;
