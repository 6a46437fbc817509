//! One valid access token per appid, fetched once and refreshed ahead.
//!
//! What it promises:
//!
//! - **One fetch for everybody.** A hundred senders that need a token of a cold app cause one fetch, on one
//!   replica; a thousand that learn that their token is dead cause one refresh. They wait for the cell that
//!   replicas share, not for WeChat.
//! - **Nobody waits while a token is good.** [`Broker::token`] answers from memory; the refresh starts ahead of
//!   the end, in the background.
//! - **One refusal is no proof.** A token that WeChat refuses is tried again by a cheap call of its own before it is taken
//!   out of use: stray refusals cost neither a fetch nor a budget.
//! - **A failing app is left alone.** What WeChat said is remembered until its pause ends, and told to whoever
//!   asks in between.
//! - **Redis is not needed.** Leases and cells save fetches; without them each replica asks for itself. What Redis could
//!   not be told is told when it answers again, be it after a slow second or empty.
//! - **Tokens stay sealed.** In the shared cell they are encrypted for their appid, and neither errors nor logs
//!   contain them.
//! - **Budgets are kept, and shown before they are gone.** Fetches end before WeChat's limits do, with some left
//!   for repairs; [`TokenState::budgets`] shows the rest, and an [`Observer`] hears of a low one.
//! - **Whoever else fetches is noticed.** A token that dies young is counted as a [`ForeignRefresh`]; one that dies while
//!   Redis does not answer is judged when it does.
//! - **A proven secret wins.** [`Broker::prove`] asks with it before it is stored, [`Broker::adopt`] uses its token after
//!   that, and no fetch with the old secret puts its own in that place.
//! - **Idle apps cost nothing.** Nothing is fetched for them, and after some hours nothing is remembered of them.
//!
//! To add a way of fetching: its [`domain::app::TokenMode`], its call and what repairs a dead token of that kind in
//! `fetch`, its margin in `goal`, its limit in `budget`.
//!
//! ```
//! use std::sync::Arc;
//! use wxgate_broker::{AppCredentials, Broker, Credentials, CredentialsError, Metrics};
//! use coord::{Clock, Coord};
//! use domain::{app::{AppId, TokenMode}, seal::MasterKey, secret::AppSecret};
//! use wechat::{Client, ClientOptions};
//!
//! struct OneApp;
//!
//! #[async_trait::async_trait]
//! impl Credentials for OneApp {
//!     async fn credentials(&self, _appid: &AppId) -> Result<AppCredentials, CredentialsError> {
//!         Ok(AppCredentials { secret: AppSecret::new("0f1e2d3c4b5a6978"), mode: TokenMode::Stable })
//!     }
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let wechat = simulator::Simulator::start(simulator::Options::default()).await?;
//! let client = Client::new(ClientOptions { base_url: wechat.base_url().to_string(), ..ClientOptions::default() })?;
//! let coord = Coord::in_process(Clock::system());
//! let broker = Broker::new(client, coord, Arc::new(OneApp), MasterKey::from_bytes([7; 32]), Metrics::default());
//!
//! let appid = AppId::parse("wx0a1b2c3d4e5f6789")?;
//! let token = broker.token(&appid).await?;
//! // … WeChat says 40001 to a send with it, and takes it at a second look …
//! let again = broker.stale(&appid, token.generation).await?;
//! assert_eq!(again.generation, token.generation);
//! broker.shutdown().await;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```

mod arrears;
mod broker;
mod budget;
mod census;
mod check;
mod credentials;
mod error;
mod fetch;
mod flight;
mod foreign;
mod goal;
mod ledger;
mod memory;
mod metrics;
mod observer;
mod shared;
mod token;
mod trial;

pub use self::{
    broker::Broker,
    budget::{Budget, BudgetKind, Budgets},
    credentials::{AppCredentials, Credentials, CredentialsError},
    error::BrokerError,
    fetch::Proof,
    foreign::ForeignRefresh,
    metrics::Metrics,
    observer::{Event, Observer},
    token::{LiveToken, Token, TokenState},
    trial::Trial,
};
