//! Why there is no token.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use domain::{quota, retry::Delay, verdict::BlockReason};
use wechat::{Cause, TokenError};

use crate::{BudgetKind, ledger::Spent};

/// Why there is no token now. All who waited for the same fetch get the same one, and so does everybody who asks
/// before it is time to try again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// The app gets no tokens until somebody repairs it.
    #[error("{}: {cause}", advice(*reason, *seen_ip))]
    Blocked {
        /// Why.
        reason: BlockReason,
        /// When WeChat will be asked again.
        retry_at: DateTime<Utc>,
        /// The gateway's address as WeChat saw it, where it refuses it.
        seen_ip: Option<IpAddr>,
        /// WeChat's words.
        cause: Cause,
    },
    /// It may work later by itself.
    #[error("no access token now: {detail}")]
    Later {
        /// When the broker will try again.
        retry_at: DateTime<Utc>,
        /// What happened.
        detail: String,
    },
    /// [`Broker::refresh`](crate::Broker::refresh) alone: the token was replaced a moment ago, or too often today.
    #[error("the token was replaced a moment ago, or too often today")]
    TooSoon {
        /// When another refresh may be asked for.
        retry_at: DateTime<Utc>,
    },
    /// WeChat grants the app no more fetches today or in this minute, or the gateway keeps the last ones for repairs.
    #[error("the token fetches are spent: {cause}")]
    FetchesSpent {
        /// When the broker will try again.
        retry_at: DateTime<Utc>,
        /// WeChat's words; without an errcode, the gateway's own count.
        cause: Cause,
    },
    /// WeChat does not understand the gateway's request.
    #[error(
        "the gateway asked for a token in a way that WeChat does not understand, please report it: {cause}"
    )]
    Bug {
        /// When the broker will try again.
        retry_at: DateTime<Utc>,
        /// WeChat's words.
        cause: Cause,
    },
    /// No such app is registered. Not remembered: it may be registered any moment.
    #[error("no such app is registered")]
    UnknownApp,
}

impl BrokerError {
    /// When to ask again; asking earlier gets the same answer.
    pub fn retry_at(&self) -> Option<DateTime<Utc>> {
        match self {
            Self::Blocked { retry_at, .. }
            | Self::Later { retry_at, .. }
            | Self::TooSoon { retry_at }
            | Self::FetchesSpent { retry_at, .. }
            | Self::Bug { retry_at, .. } => Some(*retry_at),
            Self::UnknownApp => None,
        }
    }

    /// What the app's owner must do, where WeChat refuses the app.
    pub fn advice(&self) -> Option<String> {
        match self {
            Self::Blocked {
                reason, seen_ip, ..
            } => Some(advice(*reason, *seen_ip)),
            _ => None,
        }
    }

    /// In metrics: why the app gets no token.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Blocked { reason, .. } => reason.as_str(),
            Self::Later { .. } | Self::TooSoon { .. } => LATER,
            Self::FetchesSpent { .. } => SPENT,
            Self::Bug { .. } => BUG,
            Self::UnknownApp => "unknown_app",
        }
    }

    /// Every [`BrokerError::word`] of a failure that is remembered.
    pub(crate) fn words() -> impl Iterator<Item = &'static str> {
        let blocked = BlockReason::ALL.iter().map(|reason| reason.as_str());
        blocked.chain([LATER, SPENT, BUG])
    }

    /// The gateway itself does not ask, because its count says that WeChat would refuse.
    pub(crate) fn spent(spent: Spent, now: DateTime<Utc>) -> Self {
        let Spent { kind, used } = spent;
        let (retry_at, span) = match kind {
            BudgetKind::StableCallsAMinute => {
                let next_minute = Delay::NextMinute.next_try(now, 1, rand::random());
                (next_minute, "minute")
            }
            BudgetKind::LegacyFetches | BudgetKind::StableCalls | BudgetKind::ForcedRefreshes => {
                (quota::reset_at(now), "day")
            }
        };
        Self::FetchesSpent {
            retry_at,
            cause: Cause {
                errcode: None,
                errmsg: format!(
                    "{used} of the {} {} that WeChat grants a {span} are used by the gateway's own count; \
                     find out what fetches so often",
                    kind.limit(),
                    kind.as_str(),
                ),
                rid: None,
            },
        }
    }

    /// Whether the gateway itself holds back, to stay within what WeChat grants; WeChat was not asked.
    pub fn is_own_limit(&self) -> bool {
        matches!(self, Self::TooSoon { .. }) || self.is_saving()
    }

    /// Whether it only keeps fetches for repairs, so that a repair need not heed it.
    pub(crate) fn is_saving(&self) -> bool {
        matches!(self, Self::FetchesSpent { cause, .. } if cause.errcode.is_none())
    }

    /// Reads WeChat's refusal of try number `attempt` (1 for the first).
    pub(crate) fn refused(error: TokenError, now: DateTime<Utc>, attempt: u32) -> Self {
        match error {
            TokenError::Blocked {
                reason,
                pause,
                seen_ip,
                cause,
            } => Self::Blocked {
                reason,
                retry_at: now + pause,
                seen_ip,
                cause,
            },
            // WeChat counts by the minute, too (45011).
            TokenError::Later {
                delay: delay @ Delay::NextMinute,
                cause,
            } => Self::FetchesSpent {
                retry_at: delay.next_try(now, attempt, rand::random()),
                cause,
            },
            TokenError::Later { delay, cause } => Self::Later {
                retry_at: delay.next_try(now, attempt, rand::random()),
                detail: cause.to_string(),
            },
            // A fetch whose answer was lost is simply made again.
            TokenError::Unclear(cause) => Self::Later {
                retry_at: Delay::Backoff.next_try(now, attempt, rand::random()),
                detail: cause.to_string(),
            },
            // The reset is believed but not proven, and WeChat is known to say 45009 too early: probe, slowly.
            TokenError::QuotaSpent(cause) => Self::FetchesSpent {
                retry_at: quota::reset_at(now).min(now + SPENT_PROBE),
                cause,
            },
            TokenError::Bug(cause) => Self::Bug {
                retry_at: now + BUG_PROBE,
                cause,
            },
        }
    }
}

/// With the address that WeChat saw, where it refuses one.
fn advice(reason: BlockReason, seen_ip: Option<IpAddr>) -> String {
    let advice = reason.advice();
    seen_ip.map_or_else(
        || advice.to_owned(),
        |ip| format!("{advice} (WeChat saw {ip})"),
    )
}

const SPENT_PROBE: chrono::Duration = chrono::Duration::minutes(30);
const BUG_PROBE: chrono::Duration = chrono::Duration::minutes(5);
const LATER: &str = "later";
const SPENT: &str = "fetches_spent";
const BUG: &str = "bug";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_budget_says_when_to_ask_again_and_is_the_gateways_own() {
        let now: DateTime<Utc> = "2026-03-01T12:00:40Z".parse().unwrap();
        for (kind, span) in BudgetKind::ALL
            .into_iter()
            .zip(["a day", "a day", "a minute", "a day"])
        {
            let used = kind.ceiling(false);
            let error = BrokerError::spent(Spent { kind, used }, now);
            assert!(error.is_own_limit() && error.is_saving(), "{error:?}");
            let words = format!("{used} of the {} {}", kind.limit(), kind.as_str());
            let text = error.to_string();
            assert!(text.contains(&words) && text.contains(span), "{text}");
            let wait = error.retry_at().unwrap() - now;
            if kind == BudgetKind::StableCallsAMinute {
                assert!((20..=60).contains(&wait.num_seconds()), "{wait}");
            } else {
                assert_eq!(error.retry_at(), Some(quota::reset_at(now)));
            }
        }
    }
}
