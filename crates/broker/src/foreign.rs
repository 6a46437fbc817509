//! Tokens that die young: who else fetches them.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::{goal::Refused, ledger::Ledger};

/// A token that is refused this close to its end has only ended: both clocks and the order of refreshes may be off by
/// so much.
const NEAR_END: Duration = Duration::from_mins(15);

/// Somebody else replaces an app's tokens: a token of this gateway died well before its end, and no fetch of the
/// gateway was the cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForeignRefresh {
    /// How often since 00:00 in Shanghai.
    pub count_today: u32,
    /// When WeChat last refused a token for it.
    pub last_at: DateTime<Utc>,
}

impl ForeignRefresh {
    /// What the tenant should do.
    pub const ADVICE: &str = "another system fetches tokens with this AppSecret; \
        move it to stable mode or let it ask this gateway (POST /v1/apps/{appid}/access-token)";
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
