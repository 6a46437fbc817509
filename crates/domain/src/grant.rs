//! Grants: what permits a message to a user.
//!
//! The older interface of mini-programs needs a *form id* (one message within seven days) or a *prepay id* (three
//! messages). The gateway collects these ids in the form-id pool and takes an id when a message is sent. In the present
//! interface a user *accepts* templates. No call of WeChat says how many acceptances are left, so the subscription
//! ledger counts them from the tenants' reports, WeChat's events and the sent messages.

use std::fmt;

use chrono::{DateTime, Duration, Utc};
use serde::{Deserialize, Serialize};

mod balance;
mod request;

pub use balance::{Balance, LedgerEntry};
pub use request::{GrantKind, GrantRequest, NewGrant};

/// How long WeChat accepts an id of the pool.
pub const LIFE: Duration = Duration::days(7);
/// How long before the end of [`LIFE`] the gateway stops using an id: a margin for clock differences and for messages
/// in flight.
pub const MARGIN: Duration = Duration::hours(1);

/// What produced an id of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdKind {
    /// A submitted form.
    FormId,
    /// A paid order.
    PrepayId,
}

impl IdKind {
    /// The name in the API and the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FormId => "form_id",
            Self::PrepayId => "prepay_id",
        }
    }

    /// The kind with the name `text`.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::FormId, Self::PrepayId]
            .into_iter()
            .find(|kind| kind.as_str() == text)
    }

    /// The kind that an id of unknown origin has by its shape: ids from payments are `wx` and digits.
    pub fn of_shape(id: &str) -> Self {
        let digits = id
            .strip_prefix("wx")
            .or_else(|| id.strip_prefix("prepay_id=wx"));
        if digits.is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit())) {
            Self::PrepayId
        } else {
            Self::FormId
        }
    }

    /// How many messages an id of this kind permits.
    pub fn uses(self) -> u32 {
        match self {
            Self::FormId => 1,
            Self::PrepayId => 3,
        }
    }
}

impl fmt::Display for IdKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the subscription ledger decides about subscribe messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GrantPolicy {
    /// The ledger counts and decides nothing; WeChat decides.
    #[default]
    Observe,
    /// A message without a grant fails and is not sent.
    Strict,
}

impl GrantPolicy {
    /// The name in the API and the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Strict => "strict",
        }
    }

    /// The policy with the name `text`.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Observe, Self::Strict]
            .into_iter()
            .find(|policy| policy.as_str() == text)
    }
}

/// The time until which the gateway uses an id that was collected at `collected_at`.
pub fn usable_until(collected_at: DateTime<Utc>) -> DateTime<Utc> {
    collected_at + LIFE - MARGIN
}

/// The prepay id in `prepay_id=…`, the form in which WeChat's payment API gives the id to clients (`package`). `None`:
/// `id` has no such prefix.
pub fn bare_prepay_id(id: &str) -> Option<&str> {
    id.trim().strip_prefix("prepay_id=").map(str::trim)
}

/// Why `id` cannot be an id from WeChat, as a sentence, where `id` is one of the texts that clients send in place of a
/// form id. The shape of real ids is not fixed, so no other text is refused.
pub fn invalid_id_reason(id: &str) -> Option<&'static str> {
    let id = id.trim();
    if id == "the formId is a mock one" {
        Some(
            "`the formId is a mock one` comes from WeChat's developer tools: collect form ids on a phone",
        )
    } else if id.starts_with("the formId is no longer available") {
        Some(
            "`the formId is no longer available …` comes from trial and development builds: collect form ids with the released version",
        )
    } else if id.starts_with("requestFormId:fail") {
        Some(
            "`requestFormId:fail …` means that the client got no form id (the `report-submit-timeout` was over): \
            discard this text in the client",
        )
    } else if matches!(
        id,
        "" | "undefined" | "null" | "NaN" | "None" | "[object Object]"
    ) {
        Some(
            "the id is empty, or is the text of an empty value: collect `event.detail.formId` of a form with `report-submit`",
        )
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payments_id_is_known_by_its_shape() {
        for id in ["wx20170304215222954be2703f0862", "prepay_id=wx2017"] {
            assert_eq!(IdKind::of_shape(id), IdKind::PrepayId, "{id}");
        }
        for id in [
            "7a7c56ca0e4f4d0c9b7d3f1e2a5b6c8d",
            "1559034856263",
            "wxy",
            "",
        ] {
            assert_eq!(IdKind::of_shape(id), IdKind::FormId, "{id}");
        }
    }

    #[test]
    fn fakes_are_told_by_name_and_any_shape_passes() {
        for id in [
            "the formId is a mock one",
            " the formId is a mock one",
            "the formId is no longer available in develop or trial version of this mini program",
            "requestFormId:fail timeout",
            "",
            " ",
            "undefined",
            "null",
        ] {
            assert!(invalid_id_reason(id).is_some(), "{id:?}");
        }
        for id in [
            "7a7c56ca0e4f4d0c9b7d3f1e2a5b6c8d",
            "1559034856263",
            "wx20170304215222954be2703f0862",
        ] {
            assert_eq!(invalid_id_reason(id), None, "{id:?}");
        }
    }

    #[test]
    fn words_come_back() {
        for kind in [IdKind::FormId, IdKind::PrepayId] {
            assert_eq!(IdKind::parse(kind.as_str()), Some(kind));
        }
        for policy in [GrantPolicy::Observe, GrantPolicy::Strict] {
            assert_eq!(GrantPolicy::parse(policy.as_str()), Some(policy));
        }
    }
}
