//! Tokens that WeChat returned for an AppSecret that the gateway has not stored yet.

use chrono::{DateTime, Utc};
use wechat::FetchedToken;

use crate::{ledger::Ledger, token::HeldToken};

/// The token that WeChat returned for a proven AppSecret, for [`Broker::adopt`](crate::Broker::adopt).
#[derive(Debug)]
pub struct Proof {
    pub(crate) held: HeldToken,
    pub(crate) ledger: Ledger,
}

/// The answer of WeChat to an AppSecret, before the gateway knows whether the app is free.
#[derive(Debug)]
pub struct SecretCheck {
    pub(crate) fetched: FetchedToken,
    pub(crate) asked_at: DateTime<Utc>,
}
