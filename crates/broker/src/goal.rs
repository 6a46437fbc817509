//! The goal of a fetch: why the present token must be replaced.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use domain::secret::AccessToken;

use crate::token::HeldToken;

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
