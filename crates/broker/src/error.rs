//! The errors of the broker.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use domain::{quota, retry::Delay, verdict::BlockReason};
use wechat::{Cause, TokenError};

use crate::budget::{BudgetKind, SpentBudget};

/// Why there is no token now. All callers that waited for the same fetch get the same error, and so do all callers
/// before the time of the next fetch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// The app gets no tokens until the operator or the app's owner repairs the cause.
    #[error("{}: {cause}", advice(*reason, *seen_ip))]
    Blocked {
        /// Why WeChat refuses the app.
        reason: BlockReason,
        /// When the broker will call WeChat again.
        retry_at: DateTime<Utc>,
        /// The gateway's address as WeChat saw it, where WeChat refuses the address.
        seen_ip: Option<IpAddr>,
        /// The answer of WeChat.
        cause: Cause,
    },
    /// A later fetch may succeed without a repair.
    #[error("no access token now: {detail}")]
    Later {
        /// When the broker will fetch again.
        retry_at: DateTime<Utc>,
        /// A description of the failure.
        detail: String,
    },
    /// Of [`Broker::refresh`](crate::Broker::refresh) only: the token was replaced a moment ago, or too often today.
    #[error("the access token was replaced a moment ago, or too often today")]
    TooSoon {
        /// When another refresh may be requested.
        retry_at: DateTime<Utc>,
    },
    /// WeChat grants the app no more fetches today or in this minute, or the gateway keeps the last ones for repairs.
    #[error("no token fetches are left: {cause}")]
    FetchesSpent {
        /// When the broker will fetch again.
        retry_at: DateTime<Utc>,
        /// The answer of WeChat; without an errcode, the gateway's own count.
        cause: Cause,
    },
    /// WeChat does not understand the gateway's request.
    #[error(
        "WeChat does not understand the gateway's request for an access token: {cause}; please report this error"
    )]
    Bug {
        /// When the broker will fetch again.
        retry_at: DateTime<Utc>,
        /// The answer of WeChat.
        cause: Cause,
    },
    /// No such app is registered. Not remembered, because the app may be registered at any moment.
    #[error("the app is not registered")]
    UnknownApp,
}

impl BrokerError {
    /// When to ask again. An earlier request gets the same answer. None for [`BrokerError::UnknownApp`].
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

    /// The label in metrics: why the app gets no token.
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

    /// The error for a call that the gateway does not make, because by its own count WeChat would refuse the call.
    pub(crate) fn spent(spent: SpentBudget, now: DateTime<Utc>) -> Self {
        let SpentBudget { kind, used } = spent;
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
                     find the program that fetches so often",
                    kind.limit(),
                    kind.as_str(),
                ),
                rid: None,
            },
        }
    }

    /// Whether the gateway itself refuses, to stay within WeChat's limits. WeChat was not called.
    pub fn is_own_limit(&self) -> bool {
        matches!(self, Self::TooSoon { .. }) || self.is_saving()
    }

    /// Whether the failure only keeps calls for repairs, so that a repair may ignore the failure.
    pub(crate) fn is_saving(&self) -> bool {
        matches!(self, Self::FetchesSpent { cause, .. } if cause.errcode.is_none())
    }

    /// Converts WeChat's refusal of fetch number `attempt` in a series of failures (1 for the first).
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
            // WeChat has a limit a minute, too (45011).
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
            // After a lost answer the broker simply fetches again.
            TokenError::Unclear(cause) => Self::Later {
                retry_at: Delay::Backoff.next_try(now, attempt, rand::random()),
                detail: cause.to_string(),
            },
            // The time of the reset is not proven, and WeChat is known to answer 45009 too early: fetch again, slowly.
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

/// Adds the address that WeChat saw, where WeChat refuses an address.
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
            let error = BrokerError::spent(SpentBudget { kind, used }, now);
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
