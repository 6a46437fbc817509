//! A token in hand, and what a fetch is to bring in its place.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use domain::{app::TokenMode, secret::AccessToken};

use crate::token::Token;

/// How long a request may be on its way: a token is not used that ends meanwhile.
const LAST_MOMENTS: Duration = Duration::from_secs(5);

/// A token in memory.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) token: Token,
    pub(crate) mode: TokenMode,
    pub(crate) fetched_at: DateTime<Utc>,
    /// When to look for its successor.
    pub(crate) refresh_at: DateTime<Utc>,
}

impl Held {
    /// Decides when to refresh: ahead of the end, with jitter so that replicas do not come at once, and in no case
    /// before half of the token's life.
    pub(crate) fn new(token: Token, mode: TokenMode, fetched_at: DateTime<Utc>) -> Self {
        let life = (token.expires_at - fetched_at).to_std().unwrap_or_default();
        let (least, jitter) = match mode {
            // WeChat makes the next stable token five minutes before the end; earlier it returns the same.
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

/// A token that was in use when WeChat refused it.
#[derive(Clone, Debug)]
pub(crate) struct Refused {
    pub(crate) held: Held,
    pub(crate) at: DateTime<Utc>,
}

/// What a flight is to bring.
#[derive(Clone, Debug)]
pub(crate) struct Goal {
    /// A token later than this.
    pub(crate) beyond: u64,
    /// Why the present one will not do.
    pub(crate) reason: Reason,
}

/// Why a token is wanted.
#[derive(Clone, Debug)]
pub(crate) enum Reason {
    /// There is none, or it has ended.
    Missing,
    /// This one ends soon; it serves until then.
    Ending(Held),
    /// WeChat refuses the one of the goal's generation; the token itself, where this replica knows it.
    Dead(Option<Refused>),
    /// Somebody asked for another than this one, where there is one. It serves until then.
    Asked(Option<Arc<AccessToken>>),
}

impl Goal {
    /// Whether `held` is what is wanted.
    pub(crate) fn is_met_by(&self, held: &Held) -> bool {
        held.token.generation > self.beyond && !self.is_unwanted(&held.token.value)
    }

    /// Takes in a token of the other replicas that is not what is wanted.
    pub(crate) fn meet(&mut self, held: Held, now: DateTime<Utc>) {
        let generation = held.token.generation;
        if let Reason::Dead(refused @ None) = &mut self.reason
            && generation == self.beyond
        {
            *refused = Some(Refused { held, at: now });
        }
        self.beyond = self.beyond.max(generation);
    }

    /// Whether this is the very token that is to be replaced.
    pub(crate) fn is_unwanted(&self, value: &AccessToken) -> bool {
        let unwanted = match &self.reason {
            Reason::Missing | Reason::Ending(_) => None,
            Reason::Dead(refused) => refused.as_ref().map(|refused| &refused.held.token.value),
            Reason::Asked(present) => present.as_ref(),
        };
        unwanted.is_some_and(|unwanted| unwanted.expose() == value.expose())
    }
}
