//! The day's account of an app's fetches, so that they stay within what WeChat allows.

use std::time::Duration;

use chrono::{DateTime, Datelike, NaiveDate, Utc};
use domain::{app::TokenMode, quota};

use crate::{
    budget::{BudgetKind, Budgets},
    foreign::ForeignRefresh,
};

/// Repairs of one app's tokens are at least this far apart. WeChat ignores a forced refresh that comes earlier,
/// and a legacy token that dies so young twice is no case for more fetches.
const REPAIR_INTERVAL: Duration = Duration::from_secs(30);
/// When the day's forced refreshes are spent: how long until a normal fetch looks for a token that WeChat renewed.
const SPENT_PAUSE: Duration = Duration::from_mins(5);
/// How long a ledger is kept after its day, for the spacing of repairs around midnight.
const AFTER_MIDNIGHT: Duration = Duration::from_mins(1);
/// How long a foreign refresh is shown.
const FOREIGN_SHOWN: Duration = Duration::from_hours(7 * 24);

/// What was fetched today. Kept in memory and, for the other replicas, in a cell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    day: NaiveDate,
    legacy: u32,
    stable: u32,
    forced: u32,
    /// The minute of the clock in which the last stable call was made, and how many were made in it.
    minute: i64,
    in_minute: u32,
    repaired_at: Option<DateTime<Utc>>,
    /// When the gateway last made a call that ends the token before it.
    replaced_at: Option<DateTime<Utc>>,
    foreign: u32,
    foreign_at: Option<DateTime<Utc>>,
}

/// A fetch that WeChat would refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spent {
    /// A day's budget, and when it comes back.
    Day {
        kind: BudgetKind,
        used: u32,
        retry_at: DateTime<Utc>,
    },
    /// The minute's.
    Minute,
}

impl Ledger {
    /// The account as of `now`: a new day begins at zero.
    pub(crate) fn at(self, now: DateTime<Utc>) -> Self {
        let (day, minute) = (quota::day(now), now.timestamp().div_euclid(60));
        let in_minute = if self.minute == minute {
            self.in_minute
        } else {
            0
        };
        let today = if self.day == day {
            self
        } else {
            Self {
                day,
                repaired_at: self.repaired_at,
                replaced_at: self.replaced_at,
                foreign_at: self.foreign_at,
                ..Self::default()
            }
        };
        Self {
            minute,
            in_minute,
            ..today
        }
    }

    /// What two replicas know together. What they fetched apart, while Redis was away, is not added up: the part of a
    /// budget that is kept back is for that too.
    pub(crate) fn merge(self, other: Self, now: DateTime<Utc>) -> Self {
        let (one, two) = (self.at(now), other.at(now));
        Self {
            day: one.day,
            legacy: one.legacy.max(two.legacy),
            stable: one.stable.max(two.stable),
            forced: one.forced.max(two.forced),
            minute: one.minute,
            in_minute: one.in_minute.max(two.in_minute),
            repaired_at: one.repaired_at.max(two.repaired_at),
            replaced_at: one.replaced_at.max(two.replaced_at),
            foreign: one.foreign.max(two.foreign),
            foreign_at: one.foreign_at.max(two.foreign_at),
        }
    }

    /// Counts a fetch at `now`, the ledger's own time, unless it is beyond the budget.
    pub(crate) fn spend(
        &mut self,
        now: DateTime<Utc>,
        mode: TokenMode,
        repair: bool,
    ) -> Result<(), Spent> {
        let (kind, used) = match mode {
            TokenMode::Legacy => (BudgetKind::LegacyFetches, &mut self.legacy),
            TokenMode::Stable => (BudgetKind::StableCalls, &mut self.stable),
        };
        if *used >= kind.ceiling(repair) {
            return Err(Spent::Day {
                kind,
                used: *used,
                retry_at: quota::reset_at(now),
            });
        }
        if mode == TokenMode::Stable {
            if self.in_minute >= BudgetKind::StableCallsAMinute.ceiling(repair) {
                return Err(Spent::Minute);
            }
            self.in_minute += 1;
        }
        *used += 1;
        Ok(())
    }

    /// Asks for leave to make a token end early, and notes it; `forced` as WeChat's stable mode does. Otherwise says
    /// when to ask again.
    pub(crate) fn repair(&mut self, now: DateTime<Utc>, forced: bool) -> Result<(), DateTime<Utc>> {
        self.may_repair(now, forced)?;
        self.forced += u32::from(forced);
        self.repaired_at = Some(now);
        Ok(())
    }

    /// Whether [`Ledger::repair`] would give leave.
    pub(crate) fn may_repair(&self, now: DateTime<Utc>, forced: bool) -> Result<(), DateTime<Utc>> {
        if let Some(again) = self
            .repaired_at
            .map(|last| last + REPAIR_INTERVAL)
            .filter(|again| *again > now)
        {
            return Err(again);
        }
        if forced && self.forced >= BudgetKind::ForcedRefreshes.limit() {
            return Err(quota::reset_at(now).min(now + SPENT_PAUSE));
        }
        Ok(())
    }

    /// Notes a call that ends the token before it, whether or not its answer arrives.
    pub(crate) fn replace(&mut self, now: DateTime<Utc>) {
        self.replaced_at = Some(now);
    }

    /// Whether a call of the gateway explains that a token of this age was refused at `refused_at`.
    pub(crate) fn explains(&self, fetched_at: DateTime<Utc>, refused_at: DateTime<Utc>) -> bool {
        // Tokens come back from the cell in milliseconds.
        self.replaced_at.is_some_and(|at| {
            at.timestamp_millis() > fetched_at.timestamp_millis() && at <= refused_at
        })
    }

    /// Counts a refresh by somebody else.
    pub(crate) fn count_foreign(&mut self, now: DateTime<Utc>) -> ForeignRefresh {
        self.foreign = self.foreign.saturating_add(1);
        self.foreign_at = Some(now);
        ForeignRefresh {
            count_today: self.foreign,
            last_at: now,
        }
    }

    /// The refreshes by somebody else, if there was one in the last week.
    pub(crate) fn foreign(&self, now: DateTime<Utc>) -> Option<ForeignRefresh> {
        self.foreign_at
            .filter(|at| *at + FOREIGN_SHOWN > now)
            .map(|last_at| ForeignRefresh {
                count_today: self.foreign,
                last_at,
            })
    }

    /// Fetches of both kinds.
    pub(crate) fn fetches(&self) -> u32 {
        self.legacy.saturating_add(self.stable)
    }

    /// Forced refreshes.
    pub(crate) fn forced(&self) -> u32 {
        self.forced
    }

    /// What is used of each budget.
    pub(crate) fn budgets(&self) -> Budgets {
        Budgets::used([self.legacy, self.stable, self.in_minute, self.forced])
    }

    /// Grows with every fetch, from day to day too.
    pub(crate) fn generation(&self) -> u64 {
        u64::from(self.day.num_days_from_ce().unsigned_abs()) << 32 | u64::from(self.fetches())
    }

    /// When the other replicas need it no longer.
    pub(crate) fn deadline(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        let day_over = quota::reset_at(now) + AFTER_MIDNIGHT;
        self.foreign_at
            .map_or(day_over, |at| day_over.max(at + FOREIGN_SHOWN))
    }

    /// For the cell.
    pub(crate) fn to_text(self) -> String {
        let Self {
            day,
            legacy,
            stable,
            forced,
            minute,
            in_minute,
            repaired_at,
            replaced_at,
            foreign,
            foreign_at,
        } = self;
        let [repaired, replaced, foreign_at] = [repaired_at, replaced_at, foreign_at]
            .map(|at| at.map_or(0, |at| at.timestamp_millis()));
        format!(
            "{day} {legacy} {stable} {forced} {minute} {in_minute} {repaired} {replaced} {foreign} {foreign_at}"
        )
    }

    /// From the cell.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        let (day, rest) = text.split_once(' ')?;
        let numbers: Vec<i64> = rest
            .split(' ')
            .map(str::parse)
            .collect::<Result<_, _>>()
            .ok()?;
        let &[
            legacy,
            stable,
            forced,
            minute,
            in_minute,
            repaired,
            replaced,
            foreign,
            foreign_at,
        ] = numbers.as_slice()
        else {
            return None;
        };
        let time = |ms| DateTime::from_timestamp_millis(ms).filter(|_| ms != 0);
        Some(Self {
            day: day.parse().ok()?,
            legacy: legacy.try_into().ok()?,
            stable: stable.try_into().ok()?,
            forced: forced.try_into().ok()?,
            minute,
            in_minute: in_minute.try_into().ok()?,
            repaired_at: time(repaired),
            replaced_at: time(replaced),
            foreign: foreign.try_into().ok()?,
            foreign_at: time(foreign_at),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORCED_A_DAY: u32 = 20;

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
    fn the_last_of_a_day_is_kept_for_repairs() {
        let now = at("12:00:00");
        let mut ledger = Ledger::default().at(now);
        let fetch = |ledger: &mut Ledger, repair| ledger.spend(now, TokenMode::Legacy, repair);
        let spent = |used| {
            Err(Spent::Day {
                kind: BudgetKind::LegacyFetches,
                used,
                retry_at: at("16:00:00"),
            })
        };
        while fetch(&mut ledger, false).is_ok() {}
        assert_eq!(ledger.budgets().legacy_fetches.used, 1_900);
        assert_eq!(fetch(&mut ledger, false), spent(1_900));
        while fetch(&mut ledger, true).is_ok() {}
        assert_eq!(ledger.budgets().legacy_fetches.used, 2_000);
        assert_eq!(fetch(&mut ledger, true), spent(2_000));

        let mut tomorrow = ledger.at(at("16:00:00"));
        assert_eq!(
            tomorrow.spend(at("16:00:00"), TokenMode::Legacy, false),
            Ok(())
        );
    }

    #[test]
    fn stable_calls_are_counted_by_the_minute_too() {
        let now = at("12:00:59");
        let mut ledger = Ledger::default().at(now);
        while ledger.spend(now, TokenMode::Stable, true).is_ok() {}
        assert_eq!(ledger.budgets().stable_calls_a_minute.used, 10_000);
        assert_eq!(
            ledger.spend(now, TokenMode::Stable, true),
            Err(Spent::Minute)
        );
        let mut next = ledger.at(at("12:01:00"));
        assert_eq!(next.spend(at("12:01:00"), TokenMode::Stable, false), Ok(()));
        assert_eq!(next.budgets().stable_calls.used, 10_001);
    }

    #[test]
    fn only_a_call_during_a_tokens_life_explains_its_end() {
        let mut ledger = Ledger::default();
        assert!(!ledger.explains(at("12:00:00"), at("13:00:00")));
        ledger.replace(at("12:30:00"));
        assert!(ledger.explains(at("12:00:00"), at("13:00:00")));
        assert!(
            !ledger.explains(at("12:30:00"), at("13:00:00")),
            "it brought this token"
        );
        assert!(
            !ledger.explains(at("12:00:00"), at("12:29:00")),
            "it came after"
        );
    }

    #[test]
    fn replicas_add_up_what_they_know() {
        let now = at("12:00:00");
        let mut one = Ledger::default().at(now);
        one.spend(now, TokenMode::Stable, false).unwrap();
        one.spend(now, TokenMode::Legacy, false).unwrap();
        let mut two = Ledger::default().at(now);
        two.spend(now, TokenMode::Stable, false).unwrap();
        two.repair(now, true).unwrap();
        two.replace(now);
        two.count_foreign(now);

        let both = one.merge(Ledger::from_text(&two.to_text()).unwrap(), now);

        assert_eq!((both.fetches(), both.forced()), (2, 1));
        assert_eq!(both.foreign(now).map(|seen| seen.count_today), Some(1));
        assert!(both.generation() > two.generation());
        let tomorrow = both.at(at("16:00:00"));
        assert!(tomorrow.generation() > both.generation());
        assert_eq!(tomorrow.foreign(at("16:00:00")).unwrap().last_at, now);
        assert_eq!(both.foreign(now + FOREIGN_SHOWN), None);
        assert_eq!(Ledger::from_text(&both.to_text()), Some(both));
        assert_eq!(Ledger::from_text("damaged"), None);
    }
}
