//! The parts of a token's state that may be shown.

use chrono::{DateTime, Utc};

use crate::{BrokerError, Budgets, ForeignRefresh, token::HeldToken};

/// The state of an app's token, for the console and the API. Never contains the token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenState {
    /// The live token, if any.
    pub token: Option<LiveToken>,
    /// Whether a fetch is in progress on this replica.
    pub is_fetching: bool,
    /// Fetches since 00:00 in Shanghai, as far as this replica knows.
    pub fetches_today: u32,
    /// Forced refreshes of a stable token since 00:00 in Shanghai.
    pub forced_today: u32,
    /// The used part of WeChat's limits, as far as this replica knows.
    pub budgets: Budgets,
    /// The foreign refreshes, if another system replaced the app's tokens in the last seven days.
    pub foreign_refresh: Option<ForeignRefresh>,
    /// The last failure, until the next success.
    pub failure: Option<BrokerError>,
}

/// A live token without the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveToken {
    /// See [`Token::generation`](crate::Token::generation).
    pub generation: u64,
    /// When the token was fetched.
    pub fetched_at: DateTime<Utc>,
    /// When the token ends.
    pub expires_at: DateTime<Utc>,
}

impl From<&HeldToken> for LiveToken {
    fn from(held: &HeldToken) -> Self {
        Self {
            generation: held.token.generation,
            fetched_at: held.fetched_at,
            expires_at: held.token.expires_at,
        }
    }
}
