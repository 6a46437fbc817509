//! `wxgate`, the program: settings, command line, wiring, lifecycle. This crate connects the crates below and contains
//! no rules of its own.
//!
//! As a library the crate starts any number of gateways in process:
//!
//! ```
//! use wxgate::{Config, Gateway};
//!
//! # tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
//! # let folder = tempfile::tempdir()?;
//! # let url = format!("sqlite://{}/wxgate.db", folder.path().display());
//! let wechat = simulator::Simulator::start(simulator::Options::default()).await?;
//! let master_key = domain::seal::MasterKey::from_bytes([7; 32]);
//! let config = Config { wechat_base_url: wechat.base_url(), ..Config::new(&url, None, master_key)? };
//! let gateway = Gateway::start(config, coord::Clock::system()).await?;
//! assert!(gateway.base_url().starts_with("http://127.0.0.1:"));
//! assert!(gateway.stop().await);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! A new command needs a module under `commands` with its arguments, and a variant of `cli::Command`. For a new setting
//! see [`settings`].

pub mod cli;
mod commands;
mod config;
mod demo;
mod embedded;
mod failure;
mod gateway;
mod health_monitor;
mod logs;
mod master_key;
mod output;
mod private;
mod proxies;
mod replica;
mod server;
pub mod settings;
mod timekeeper;
mod traces;

pub use crate::{
    config::{ClientTimeouts, Config, Mode, ModeError},
    failure::Failure,
    gateway::{Gateway, StartError},
    output::Output,
    proxies::{NoRange, TrustedProxies},
};
