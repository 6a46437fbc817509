//! The token in memory, and the goal of a fetch that replaces the token.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use domain::{app::TokenMode, secret::AccessToken};

use crate::token::Token;

/// The longest time that a request may travel: a token that ends within this time is not used.
const LAST_MOMENTS: Duration = Duration::from_secs(5);

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

/// A token that WeChat refused while the token was in use.
#[derive(Clone, Debug)]
pub(crate) struct RefusedToken {
    pub(crate) held: HeldToken,
    pub(crate) at: DateTime<Utc>,
}

/// The goal of a fetch.
#[derive(Clone, Debug)]
pub(crate) struct Goal {
    /// The new token must have a later generation than this.
    pub(crate) beyond: u64,
    /// Why the present token must be replaced.
    pub(crate) reason: Reason,
}

/// Why a token is needed.
#[derive(Clone, Debug)]
pub(crate) enum Reason {
    /// There is no token, or the token has ended.
    Missing,
    /// This token ends soon, and serves until then.
    Ending(HeldToken),
    /// WeChat refuses the token of the goal's generation. Contains the token, where this replica knows it.
    Dead(Option<RefusedToken>),
    /// A caller requested another token than this one, where there is one. The present token serves until then.
    Asked(Option<Arc<AccessToken>>),
}

impl Goal {
    /// Whether `held` meets the goal.
    pub(crate) fn is_met_by(&self, held: &HeldToken) -> bool {
        held.token.generation > self.beyond && !self.is_unwanted(&held.token.value)
    }

    /// Adapts the goal to a token of the other replicas that does not meet the goal.
    pub(crate) fn meet(&mut self, held: HeldToken, now: DateTime<Utc>) {
        let generation = held.token.generation;
        if let Reason::Dead(refused @ None) = &mut self.reason
            && generation == self.beyond
        {
            *refused = Some(RefusedToken { held, at: now });
        }
        self.beyond = self.beyond.max(generation);
    }

    /// Whether `value` is the token that is to be replaced.
    pub(crate) fn is_unwanted(&self, value: &AccessToken) -> bool {
        let unwanted = match &self.reason {
            Reason::Missing | Reason::Ending(_) => None,
            Reason::Dead(refused) => refused.as_ref().map(|refused| &refused.held.token.value),
            Reason::Asked(present) => present.as_ref(),
        };
        unwanted.is_some_and(|unwanted| unwanted.expose() == value.expose())
    }
}
