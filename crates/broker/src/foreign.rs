//! Foreign refreshes: tokens that die young because another system fetches.

use std::time::Duration;

use chrono::{DateTime, Utc};

use domain::app::AppId;

use crate::{BrokerEvent, broker::Inner, goal::RefusedToken, ledger::Ledger};

/// A token that WeChat refuses this close to the end has only ended: both clocks and the order of refreshes may be off
/// by this much.
const NEAR_END: Duration = Duration::from_mins(15);

/// After Redis answers this replica, all replicas have written their ledgers within this time.
const ALL_BACK: Duration = Duration::from_secs(3);

/// Another system replaces an app's tokens: a token of this gateway died well before the end, and no fetch of the
/// gateway was the cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForeignRefresh {
    /// The number of foreign refreshes since 00:00 in Shanghai.
    pub count_today: u32,
    /// When WeChat last refused a token that another system had replaced.
    pub last_at: DateTime<Utc>,
}

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

impl ForeignRefresh {
    /// What the tenant should do.
    pub const ADVICE: &str = "another system fetches tokens with this AppSecret; \
        move that system to stable mode, or let it get the token from this gateway (POST /v1/apps/{appid}/access-token)";
}

impl Inner {
    /// Reports that another system replaced a token.
    pub(crate) fn blame(&self, appid: &AppId, seen: ForeignRefresh) {
        self.metrics.foreign_refresh();
        tracing::warn!(
            %appid,
            count_today = seen.count_today,
            "an access token ended early: {}",
            ForeignRefresh::ADVICE
        );
        self.tell(appid, BrokerEvent::ForeignRefresh(seen));
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
