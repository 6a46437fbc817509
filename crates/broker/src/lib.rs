//! One valid access token per appid, fetched once and refreshed ahead of the end.
//!
//! Guarantees:
//!
//! - **Single flight.** A hundred senders that need a token of a cold app cause one fetch, on one replica. A thousand
//!   senders that learn that a token is dead cause one refresh. The other callers wait for the cell that replicas
//!   share, not for WeChat.
//! - **No waiting while a token is good.** [`Broker::token`] answers from memory; the refresh starts ahead of the end,
//!   in the background.
//! - **One refusal proves nothing.** Before the broker takes a refused token out of use, a cheap call of WeChat checks
//!   the token. Stray refusals cost neither a fetch nor a budget.
//! - **No calls for a failing app.** The broker remembers the failure until the pause ends, and returns the same
//!   failure to every caller meanwhile.
//! - **Redis is optional.** Leases and cells save fetches; without Redis each replica fetches alone. Updates that Redis
//!   could not take are written when Redis answers again, after a slow second as well as after a restart without data.
//! - **Tokens stay sealed.** In the shared cell a token is encrypted for the appid. Neither errors nor logs contain
//!   tokens.
//! - **Budgets are kept, and shown before the end.** Fetches stop before WeChat's limits, with some calls left for
//!   repairs. [`TokenState::budgets`] shows how much is used, and an [`Observer`] receives an event for a low budget.
//! - **Foreign refreshes are noticed.** A token that dies young is counted as a [`ForeignRefresh`]. A token that dies
//!   while Redis does not answer is judged when Redis answers again.
//! - **A proven secret wins.** [`Broker::prove`] fetches with a new secret before the secret is stored, and
//!   [`Broker::adopt`] uses the fetched token afterwards. No fetch with the old secret can replace that token.
//! - **Idle apps cost nothing.** The broker fetches nothing for idle apps, and forgets an idle app after some hours.
//!
//! To add a way of fetching, add the [`domain::app::TokenMode`], the call and the repair of a dead token in `fetch`,
//! the margin in `goal`, and the limit in `budget`.
//!
//! ```
//! use std::sync::Arc;
//! use wxgate_broker::{AppCredentials, Broker, Credentials, CredentialsError, BrokerMetrics};
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
//! let broker = Broker::new(client, coord, Arc::new(OneApp), MasterKey::from_bytes([7; 32]), BrokerMetrics::default());
//!
//! let appid = AppId::parse("wx0a1b2c3d4e5f6789")?;
//! let token = broker.token(&appid).await?;
//! // … WeChat answers 40001 to a send with this token, and accepts the token in a token check …
//! let again = broker.stale(&appid, token.generation).await?;
//! assert_eq!(again.generation, token.generation);
//! broker.shutdown().await;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```

mod app_totals;
mod broker;
mod budget;
mod changes;
mod check;
mod credentials;
mod deferred;
mod deferred_writer;
mod error;
mod fetch;
mod fetcher;
mod foreign;
mod goal;
mod health;
mod ledger;
mod memories;
mod memory;
mod metrics;
mod observer;
mod proof;
mod secret_check;
mod shared;
mod single_flight;
mod suspicion;
mod token;
mod token_state;

pub use self::{
    broker::Broker,
    budget::{Budget, BudgetKind, Budgets},
    credentials::{AppCredentials, Credentials, CredentialsError},
    error::BrokerError,
    foreign::ForeignRefresh,
    metrics::BrokerMetrics,
    observer::{BrokerEvent, Observer},
    proof::{Proof, SecretCheck},
    token::Token,
    token_state::{LiveToken, TokenState},
};
