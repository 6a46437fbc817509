//! Tokens that die young: who else fetches them.

use std::time::Duration;

use chrono::{DateTime, Utc};

use domain::app::AppId;

use crate::{Event, broker::Inner, goal::Refused, ledger::Ledger};

/// A token that is refused this close to its end has only ended: both clocks and the order of refreshes may be off by
/// so much.
const NEAR_END: Duration = Duration::from_mins(15);

/// When Redis answers this replica, all of them have told it what they did within this time.
const ALL_BACK: Duration = Duration::from_secs(3);

/// Somebody else replaces an app's tokens: a token of this gateway died well before its end, and no fetch of the
/// gateway was the cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForeignRefresh {
    /// How often since 00:00 in Shanghai.
    pub count_today: u32,
    /// When WeChat last refused a token for it.
    pub last_at: DateTime<Utc>,
}

/// A token that died young while the other replicas could not be asked: one of them may have been the cause.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Suspicion {
    fetched_at: DateTime<Utc>,
    refused_at: DateTime<Utc>,
    /// When Redis has been back long enough; none: it is not back yet.
    due: Option<DateTime<Utc>>,
}

impl Suspicion {
    pub(crate) fn of(refused: &Refused) -> Self {
        Self {
            fetched_at: refused.held.fetched_at,
            refused_at: refused.at,
            due: None,
        }
    }

    /// Whether it may be judged. The first call, when Redis has just answered, leaves the other replicas some time to
    /// show what they did meanwhile.
    pub(crate) fn is_due(&mut self, now: DateTime<Utc>) -> bool {
        now >= *self.due.get_or_insert(now + ALL_BACK)
    }

    /// Counts it, unless the ledger of all replicas explains the death or has it already.
    pub(crate) fn judge(&self, ledger: &mut Ledger) -> Option<ForeignRefresh> {
        let is_known = ledger.explains(self.fetched_at, self.refused_at)
            || ledger.has_counted(self.fetched_at);
        (!is_known).then(|| ledger.count_foreign(self.refused_at))
    }
}

impl ForeignRefresh {
    /// What the tenant should do.
    pub const ADVICE: &str = "another system fetches tokens with this AppSecret; \
        move it to stable mode or let it ask this gateway (POST /v1/apps/{appid}/access-token)";
}

impl Inner {
    /// Says that another system replaced a token.
    pub(crate) fn blame(&self, appid: &AppId, seen: ForeignRefresh) {
        self.metrics.foreign_refresh();
        tracing::warn!(
            %appid,
            count_today = seen.count_today,
            "an access token died young: {}",
            ForeignRefresh::ADVICE
        );
        self.tell(appid, Event::ForeignRefresh(seen));
    }
}

/// Whether the token that WeChat refuses was replaced by somebody else, given that a different one came in its place.
pub(crate) fn is_foreign(refused: &Refused, ledger: &Ledger) -> bool {
    let Refused { held, at } = refused;
    let life = (held.token.expires_at - held.fetched_at)
        .to_std()
        .unwrap_or_default();
    let is_young = *at < held.token.expires_at - NEAR_END.min(life / 2);
    is_young && !ledger.explains(held.fetched_at, *at)
}
