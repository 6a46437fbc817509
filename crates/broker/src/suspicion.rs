//! The death of a token, and whether another system was the cause.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::{ForeignRefresh, goal::RefusedToken, ledger::Ledger};

/// A token that WeChat refuses this close to the end has only ended: both clocks and the order of refreshes may be off
/// by this much.
const NEAR_END: Duration = Duration::from_mins(15);

/// After Redis answers this replica, all replicas have written their ledgers within this time.
const ALL_BACK: Duration = Duration::from_secs(3);

/// A token that died young while the other replicas could not be asked. Another replica may have been the cause.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Suspicion {
    fetched_at: DateTime<Utc>,
    refused_at: DateTime<Utc>,
    /// When the judgement is due; none: Redis has not answered yet.
    due: Option<DateTime<Utc>>,
}

impl Suspicion {
    pub(crate) fn of(refused: &RefusedToken) -> Self {
        Self {
            fetched_at: refused.held.fetched_at,
            refused_at: refused.at,
            due: None,
        }
    }

    /// Whether the judgement is due. The first call, when Redis has just answered, gives the other replicas
    /// [`ALL_BACK`] to write their ledgers.
    pub(crate) fn is_due(&mut self, now: DateTime<Utc>) -> bool {
        now >= *self.due.get_or_insert(now + ALL_BACK)
    }

    /// Counts the death as a foreign refresh, unless the ledger of all replicas explains or already contains the death.
    pub(crate) fn judge(&self, ledger: &mut Ledger) -> Option<ForeignRefresh> {
        let is_known = ledger.explains(self.fetched_at, self.refused_at)
            || ledger.has_counted(self.fetched_at);
        (!is_known).then(|| ledger.count_foreign(self.refused_at))
    }
}

/// Whether another system replaced the token that WeChat refuses, given that WeChat then returned another one.
pub(crate) fn is_foreign(refused: &RefusedToken, ledger: &Ledger) -> bool {
    let RefusedToken { held, at } = refused;
    let life = (held.token.expires_at - held.fetched_at)
        .to_std()
        .unwrap_or_default();
    let is_young = *at < held.token.expires_at - NEAR_END.min(life / 2);
    is_young && !ledger.explains(held.fetched_at, *at)
}
