//! Tokens, and what may be shown of them.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use domain::secret::AccessToken;

use crate::{BrokerError, Budgets, ForeignRefresh, goal::Held};

/// An access token and its place in the order of the app's tokens. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Token {
    /// The token itself.
    pub value: Arc<AccessToken>,
    /// Grows with every new token of the app, over all replicas and restarts.
    pub generation: u64,
    /// When it ends.
    pub expires_at: DateTime<Utc>,
}

/// How it stands with an app's token: for the console and the API. Never contains the token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenState {
    /// The token that is alive, if any.
    pub token: Option<LiveToken>,
    /// Whether a fetch is under way on this replica.
    pub is_fetching: bool,
    /// Fetches since 00:00 in Shanghai, as far as this replica knows.
    pub fetches_today: u32,
    /// How many of them forced a new stable token.
    pub forced_today: u32,
    /// What is used of WeChat's limits, as far as this replica knows.
    pub budgets: Budgets,
    /// Whether somebody else replaced the app's tokens in the last week.
    pub foreign_refresh: Option<ForeignRefresh>,
    /// What went wrong last, until the next success.
    pub failure: Option<BrokerError>,
}

/// A token that is alive, without its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveToken {
    /// See [`Token::generation`].
    pub generation: u64,
    /// When it was fetched.
    pub fetched_at: DateTime<Utc>,
    /// When it ends.
    pub expires_at: DateTime<Utc>,
}

impl From<&Held> for LiveToken {
    fn from(held: &Held) -> Self {
        Self {
            generation: held.token.generation,
            fetched_at: held.fetched_at,
            expires_at: held.token.expires_at,
        }
    }
}
