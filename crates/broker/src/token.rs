//! Access tokens, in and out of the memory of an app.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use domain::{app::TokenMode, secret::AccessToken};

/// The longest time that a request may travel: a token that ends within this time is not used.
const LAST_MOMENTS: Duration = Duration::from_secs(5);

/// An access token and its place in the order of the app's tokens. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Token {
    /// The value of the token.
    pub value: Arc<AccessToken>,
    /// A number that grows with every new token of the app, over all replicas and restarts.
    pub generation: u64,
    /// When the token ends.
    pub expires_at: DateTime<Utc>,
}

/// A token in memory.
#[derive(Clone, Debug)]
pub(crate) struct HeldToken {
    pub(crate) token: Token,
    pub(crate) mode: TokenMode,
    pub(crate) fetched_at: DateTime<Utc>,
    /// When to refresh the token.
    pub(crate) refresh_at: DateTime<Utc>,
}

impl HeldToken {
    /// Decides when to refresh: ahead of the end, with jitter so that replicas do not refresh at the same moment, and
    /// never before half of the token's life.
    pub(crate) fn new(token: Token, mode: TokenMode, fetched_at: DateTime<Utc>) -> Self {
        let life = (token.expires_at - fetched_at).to_std().unwrap_or_default();
        let (least, jitter) = match mode {
            // WeChat makes the next stable token five minutes before the end; earlier calls return the same token.
            TokenMode::Stable => (Duration::from_mins(4), Duration::from_secs(55)),
            TokenMode::Legacy => (Duration::from_mins(10), Duration::from_mins(5)),
        };
        let margin = (least + jitter.mul_f64(rand::random())).min(life / 2);
        let refresh_at = token.expires_at - margin;
        Self {
            token,
            mode,
            fetched_at,
            refresh_at,
        }
    }

    /// Whether a send that starts now reaches WeChat before the token ends.
    pub(crate) fn is_alive(&self, now: DateTime<Utc>) -> bool {
        let life = (self.token.expires_at - self.fetched_at).to_std();
        let last = LAST_MOMENTS.min(life.unwrap_or_default() / 10);
        self.token.expires_at - last > now
    }
}
