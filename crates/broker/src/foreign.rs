//! Foreign refreshes: tokens that die young because another system fetches.

use chrono::{DateTime, Utc};

/// Another system replaces an app's tokens: a token of this gateway died well before the end, and no fetch of the
/// gateway was the cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForeignRefresh {
    /// The number of foreign refreshes since 00:00 in Shanghai.
    pub count_today: u32,
    /// When WeChat last refused a token that another system had replaced.
    pub last_at: DateTime<Utc>,
}

impl ForeignRefresh {
    /// What the tenant should do.
    pub const ADVICE: &str = "another system fetches tokens with this AppSecret; \
        move that system to stable mode, or let it get the token from this gateway (POST /v1/apps/{appid}/access-token)";
}
