//! The day's account of an app's fetches, so that forced refreshes stay within what WeChat allows.

use std::time::Duration;

use chrono::{DateTime, Datelike, NaiveDate, Utc};
use domain::quota;

/// Repairs of one app's dead tokens are at least this far apart. WeChat ignores a forced refresh that comes earlier,
/// and a legacy token that dies so young twice is no case for more fetches.
const REPAIR_INTERVAL: Duration = Duration::from_secs(30);
/// Forced refreshes that WeChat allows an app a day.
const FORCED_A_DAY: u32 = 20;
/// When the day's forced refreshes are spent: how long until a normal fetch looks for a token that WeChat renewed.
const SPENT_PAUSE: Duration = Duration::from_mins(5);

/// What was fetched today. Kept in memory and, for the other replicas, in a cell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    day: NaiveDate,
    pub(crate) fetches: u32,
    pub(crate) forced: u32,
    repaired_at: Option<DateTime<Utc>>,
}

impl Ledger {
    /// The account as of `now`: a new day begins at zero.
    pub(crate) fn at(self, now: DateTime<Utc>) -> Self {
        let day = quota::day(now);
        if self.day == day {
            self
        } else {
            Self {
                day,
                repaired_at: self.repaired_at,
                ..Self::default()
            }
        }
    }

    /// What two replicas know together.
    pub(crate) fn merge(self, other: Self, now: DateTime<Utc>) -> Self {
        let (one, two) = (self.at(now), other.at(now));
        Self {
            day: one.day,
            fetches: one.fetches.max(two.fetches),
            forced: one.forced.max(two.forced),
            repaired_at: one.repaired_at.max(two.repaired_at),
        }
    }

    /// Counts a fetch.
    pub(crate) fn spend(&mut self) {
        self.fetches = self.fetches.saturating_add(1);
    }

    /// Asks for leave to repair a dead token, and notes it. Otherwise says when to ask again.
    pub(crate) fn repair(&mut self, now: DateTime<Utc>, forced: bool) -> Result<(), DateTime<Utc>> {
        if let Some(again) = self
            .repaired_at
            .map(|last| last + REPAIR_INTERVAL)
            .filter(|again| *again > now)
        {
            return Err(again);
        }
        if forced {
            if self.forced >= FORCED_A_DAY {
                return Err(quota::reset_at(now).min(now + SPENT_PAUSE));
            }
            self.forced += 1;
        }
        self.repaired_at = Some(now);
        Ok(())
    }

    /// Grows with every fetch, from day to day too.
    pub(crate) fn generation(&self) -> u64 {
        u64::from(self.day.num_days_from_ce().unsigned_abs()) << 32 | u64::from(self.fetches)
    }

    /// For the cell.
    pub(crate) fn to_text(self) -> String {
        let Self {
            day,
            fetches,
            forced,
            repaired_at,
        } = self;
        let repaired = repaired_at.map_or(0, |at| at.timestamp_millis());
        format!("{day} {fetches} {forced} {repaired}")
    }

    /// From the cell.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let mut next = || words.next();
        let (day, fetches, forced) = (
            next()?.parse().ok()?,
            next()?.parse().ok()?,
            next()?.parse().ok()?,
        );
        let repaired = next()?.parse().ok().filter(|ms| *ms != 0);
        Some(Self {
            day,
            fetches,
            forced,
            repaired_at: repaired.and_then(DateTime::from_timestamp_millis),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time: &str) -> DateTime<Utc> {
        format!("2026-03-01T{time}Z").parse().unwrap()
    }

    #[test]
    fn forced_refreshes_are_spaced_and_counted() {
        let mut now = at("00:00:00");
        let mut ledger = Ledger::default().at(now);
        for _ in 0..FORCED_A_DAY {
            assert_eq!(ledger.repair(now, true), Ok(()));
            assert_eq!(ledger.repair(now, true), Err(now + REPAIR_INTERVAL));
            now += REPAIR_INTERVAL;
        }
        assert_eq!(ledger.repair(now, true), Err(now + SPENT_PAUSE));
        assert_eq!(
            ledger.repair(now, false),
            Ok(()),
            "a legacy repair is no forced one"
        );

        // 16:00 UTC is midnight in Shanghai.
        assert_eq!(ledger.repair(at("15:59:00"), true), Err(at("16:00:00")));
        assert_eq!(
            ledger.at(at("16:00:00")).repair(at("16:00:00"), true),
            Ok(())
        );
    }

    #[test]
    fn replicas_add_up_what_they_know() {
        let now = at("12:00:00");
        let mut one = Ledger::default().at(now);
        one.spend();
        one.spend();
        let mut two = Ledger::default().at(now);
        two.spend();
        two.repair(now, true).unwrap();

        let both = one.merge(Ledger::from_text(&two.to_text()).unwrap(), now);

        assert_eq!((both.fetches, both.forced), (2, 1));
        assert!(both.generation() > two.generation());
        assert!(both.at(at("16:00:00")).generation() > both.generation());
        assert_eq!(Ledger::from_text(&both.to_text()), Some(both));
        assert_eq!(Ledger::from_text("damaged"), None);
    }
}
