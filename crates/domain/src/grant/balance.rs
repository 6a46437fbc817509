//! The count of the subscription ledger for one user and one template.

use chrono::{DateTime, Duration, Utc};
use serde::{Deserialize, Serialize};

/// The longest distance between the time of a tenant's report and the time of WeChat's event about the same acceptance.
const SAME: Duration = Duration::minutes(10);
/// How many one-sided acceptances the balance remembers on each side; the latest stay.
const REMEMBERED: usize = 16;

/// How many messages of one template a user accepts, as far as the tenant and WeChat have reported.
///
/// The gateway may learn of one acceptance twice, in any order: from the tenant, whose client saw the acceptance, and
/// from WeChat's event. The balance remembers each one-sided acceptance with its time. A report of the other side
/// within ten minutes of that time is the same acceptance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// How many messages may be sent.
    pub remaining: u32,
    /// Whether `remaining` stays unchanged after a send: one acceptance of a long-term template permits any number.
    pub long_term: bool,
    /// The acceptances that only one side has reported.
    pub untold: OneSidedReports,
    /// The time of the last acceptance that the tenant reported.
    pub reported_at: Option<DateTime<Utc>>,
    /// The time of the last acceptance in an event from WeChat.
    pub confirmed_at: Option<DateTime<Utc>>,
    /// The time of the user's last revocation.
    pub revoked_at: Option<DateTime<Utc>>,
}

/// Acceptances that only one side has reported, by their time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OneSidedReports {
    /// Reported by the tenant, without an event from WeChat yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "times")]
    unconfirmed: Vec<DateTime<Utc>>,
    /// In an event from WeChat, without a report of the tenant yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "times")]
    unreported: Vec<DateTime<Utc>>,
}

/// An entry of the subscription ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LedgerEntry {
    /// The tenant reports that its client saw `count` acceptances.
    Reported {
        /// The number of acceptances.
        count: u32,
        /// Whether the template is a long-term one.
        long_term: bool,
        /// The time of the last of these acceptances.
        at: DateTime<Utc>,
    },
    /// WeChat reports that the user accepted.
    Accepted {
        /// The time of the acceptance.
        at: DateTime<Utc>,
    },
    /// WeChat reports that the user wants no more messages.
    Revoked {
        /// The time of the revocation.
        at: DateTime<Utc>,
    },
}

impl Balance {
    /// Changes the balance by `entry`.
    pub fn enter(&mut self, entry: LedgerEntry) {
        let OneSidedReports {
            unconfirmed,
            unreported,
        } = &mut self.untold;
        match entry {
            LedgerEntry::Reported {
                count,
                long_term,
                at,
            } => {
                self.long_term |= long_term;
                let known = (0..count)
                    .take_while(|_| take_nearest(unreported, at))
                    .count();
                let fresh = count - u32::try_from(known).unwrap_or(count);
                remember(unconfirmed, at, fresh);
                self.credit(fresh, at);
                self.reported_at = self.reported_at.max(Some(at));
            }
            LedgerEntry::Accepted { at } => {
                if !take_nearest(unconfirmed, at) {
                    remember(unreported, at, 1);
                    self.credit(1, at);
                }
                self.confirmed_at = self.confirmed_at.max(Some(at));
            }
            LedgerEntry::Revoked { at } => {
                self.remaining = 0;
                self.revoked_at = self.revoked_at.max(Some(at));
            }
        }
    }

    /// Adds acceptances, unless the user has revoked the subscription since.
    fn credit(&mut self, count: u32, at: DateTime<Utc>) {
        if self.revoked_at.is_none_or(|revoked_at| at >= revoked_at) {
            self.remaining = self.remaining.saturating_add(count);
        }
    }
}

/// Removes the time nearest to `at` that may belong to the same acceptance. Returns false if there is none.
fn take_nearest(times: &mut Vec<DateTime<Utc>>, at: DateTime<Utc>) -> bool {
    let apart = |time: &DateTime<Utc>| (*time - at).abs();
    let nearest = (0..times.len()).min_by_key(|place| apart(&times[*place]));
    let Some(place) = nearest.filter(|place| apart(&times[*place]) <= SAME) else {
        return false;
    };
    times.remove(place);
    true
}

fn remember(times: &mut Vec<DateTime<Utc>>, at: DateTime<Utc>, count: u32) {
    let count = usize::try_from(count).unwrap_or(REMEMBERED);
    times.extend(std::iter::repeat_n(at, count.min(REMEMBERED)));
    times.sort_unstable();
    times.drain(..times.len().saturating_sub(REMEMBERED));
}

/// Times as milliseconds since 1970.
mod times {
    use chrono::{DateTime, Utc};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(
        times: &[DateTime<Utc>],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let millis: Vec<i64> = times.iter().map(DateTime::timestamp_millis).collect();
        millis.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<DateTime<Utc>>, D::Error> {
        let millis = Vec::<i64>::deserialize(deserializer)?;
        let times = millis
            .into_iter()
            .filter_map(DateTime::from_timestamp_millis);
        Ok(times.collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(minutes: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_780_281_960 + minutes * 60, 0).unwrap()
    }

    fn reported(count: u32, minutes: i64) -> LedgerEntry {
        LedgerEntry::Reported {
            count,
            long_term: false,
            at: at(minutes),
        }
    }

    fn accepted(minutes: i64) -> LedgerEntry {
        LedgerEntry::Accepted { at: at(minutes) }
    }

    fn remaining(entries: &[LedgerEntry]) -> u32 {
        let mut balance = Balance::default();
        for entry in entries {
            balance.enter(*entry);
        }
        balance.remaining
    }

    #[test]
    fn one_acceptance_counts_once_whoever_tells_of_it_first() {
        assert_eq!(remaining(&[reported(1, 0), accepted(1)]), 1);
        assert_eq!(remaining(&[accepted(0), reported(1, 1)]), 1);
        assert_eq!(remaining(&[reported(3, 0), accepted(0), accepted(1)]), 3);
        assert_eq!(remaining(&[accepted(0), accepted(1), reported(3, 2)]), 3);
        assert_eq!(remaining(&[accepted(0), accepted(1)]), 2);
        assert_eq!(remaining(&[reported(1, 0), reported(1, 0)]), 2);
    }

    #[test]
    fn an_acceptance_of_another_time_is_another() {
        assert_eq!(remaining(&[reported(1, 0), accepted(11)]), 2);
        let late = [accepted(0), accepted(60), reported(1, 0), reported(1, 60)];
        assert_eq!(remaining(&late), 2);
        let hidden = [reported(1, 0), reported(1, 60), accepted(60), accepted(120)];
        assert_eq!(remaining(&hidden), 3);
    }

    #[test]
    fn a_revocation_takes_back_what_was_before() {
        let revoked = LedgerEntry::Revoked { at: at(30) };
        assert_eq!(remaining(&[reported(5, 0), revoked]), 0);
        assert_eq!(remaining(&[revoked, accepted(29)]), 0, "told late");
        assert_eq!(remaining(&[reported(5, 0), revoked, accepted(31)]), 1);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_comes_back() {
        let mut balance = Balance::default();
        balance.enter(reported(1000, 0));
        assert_eq!(balance.remaining, 1000);
        let text = serde_json::to_string(&balance.untold).unwrap();
        assert!(text.len() < 300, "{text}");
        let back: OneSidedReports = serde_json::from_str(&text).unwrap();
        assert_eq!(back, balance.untold);
        assert_eq!(
            serde_json::to_string(&OneSidedReports::default()).unwrap(),
            "{}"
        );
    }

    proptest! {
        #[test]
        fn told_by_both_in_any_order_each_counts_once(
            hours in proptest::collection::btree_set(0i64..1000, 0..10), seed in any::<u64>(),
        ) {
            let mut entries: Vec<LedgerEntry> = hours
                .iter()
                .flat_map(|hour| [reported(1, hour * 60), accepted(hour * 60 + 1)])
                .collect();
            // Any order is valid.
            entries.sort_by_key(|entry| {
                let (LedgerEntry::Reported { at, .. } | LedgerEntry::Accepted { at } | LedgerEntry::Revoked { at }) = entry;
                (at.timestamp().cast_unsigned() ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15)
            });
            prop_assert_eq!(remaining(&entries) as usize, hours.len());
        }
    }
}
