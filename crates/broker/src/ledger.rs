//! The ledger of an app's fetches of the day, by which fetches stay within WeChat's limits.

use std::time::Duration;

use chrono::{DateTime, Datelike, NaiveDate, SubsecRound, Utc};
use domain::{app::TokenMode, quota};

use crate::{
    budget::{BudgetKind, Budgets, SpentBudget},
    foreign::ForeignRefresh,
};

/// The minimum time between two repairs of one app's tokens. WeChat ignores an earlier forced refresh. A legacy token
/// that dies twice in this time cannot be helped by more fetches.
pub(crate) const REPAIR_INTERVAL: Duration = Duration::from_secs(30);
/// After the day's forced refreshes are spent: the time until a normal fetch looks for a token that WeChat renewed.
const SPENT_PAUSE: Duration = Duration::from_mins(5);
/// The precision of the stored times.
const MOMENT: Duration = Duration::from_millis(1);
/// How long a ledger is kept after its day, for the spacing of repairs around midnight.
const AFTER_MIDNIGHT: Duration = Duration::from_mins(1);
/// How long a foreign refresh is shown.
const FOREIGN_SHOWN: Duration = Duration::from_hours(7 * 24);
/// How many of the calls that end a token are remembered. Replicas that cannot reach each other make such calls close
/// together, and each call may explain the death of another token.
const REPLACEMENTS: usize = 4;

/// The fetches of the day. Kept in memory and, for the other replicas, in a cell. Two ledgers are combined by merging,
/// in any order and any number of times. Times are in whole milliseconds, as in the cell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    day: NaiveDate,
    legacy: u32,
    stable: u32,
    forced: u32,
    /// The clock minute of the last stable call, and the number of stable calls in that minute.
    minute: i64,
    in_minute: u32,
    repaired_at: Option<DateTime<Utc>>,
    /// The refunds, for counted calls that were not made or brought nothing. Refunds only grow too, so that merging
    /// remains a maximum.
    back: Refunds,
    /// When the gateway made calls that end the token before: milliseconds since 1970, latest first, zero for none.
    replaced: [i64; REPLACEMENTS],
    foreign: u32,
    foreign_at: Option<DateTime<Utc>>,
}

/// The refunds of [`Ledger::refund_fetch`] and [`Ledger::refund_repair`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Refunds {
    legacy: u32,
    stable: u32,
    forced: u32,
    /// The time of the last refunded repair. A later repair still counts.
    repair: Option<DateTime<Utc>>,
}

impl Ledger {
    /// The ledger as of `now`: a new day begins at zero.
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
                back: Refunds {
                    repair: self.back.repair,
                    ..Refunds::default()
                },
                replaced: self.replaced,
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

    /// Combines the ledgers of two replicas. The fetches that the replicas made apart, while Redis was away, are not
    /// added up; the reserve of each budget covers those too.
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
            back: one.back.merge(two.back),
            replaced: newest(one.replaced.into_iter().chain(two.replaced)),
            foreign: one.foreign.max(two.foreign),
            foreign_at: one.foreign_at.max(two.foreign_at),
        }
    }

    /// Counts a fetch, or fails when the fetch would exceed a budget.
    pub(crate) fn spend(&mut self, mode: TokenMode, repair: bool) -> Result<(), SpentBudget> {
        let (kind, counted, back) = match mode {
            TokenMode::Legacy => (
                BudgetKind::LegacyFetches,
                &mut self.legacy,
                self.back.legacy,
            ),
            TokenMode::Stable => (BudgetKind::StableCalls, &mut self.stable, self.back.stable),
        };
        let used = counted.saturating_sub(back);
        if used >= kind.ceiling(repair) {
            return Err(SpentBudget { kind, used });
        }
        if mode == TokenMode::Stable {
            let (kind, used) = (BudgetKind::StableCallsAMinute, self.in_minute);
            if used >= kind.ceiling(repair) {
                return Err(SpentBudget { kind, used });
            }
            self.in_minute += 1;
        }
        *counted += 1;
        Ok(())
    }

    /// Refunds a fetch that certainly did not reach WeChat.
    pub(crate) fn refund_fetch(&mut self, mode: TokenMode) {
        match mode {
            TokenMode::Legacy => self.back.legacy += 1,
            TokenMode::Stable => self.back.stable += 1,
        }
    }

    /// Refunds the last repair, which brought nothing, so that the next repair need not wait. `forced`: the repair was
    /// counted as a forced refresh.
    pub(crate) fn refund_repair(&mut self, forced: bool) {
        self.back.repair = self.repaired_at;
        self.back.forced += u32::from(forced);
    }

    /// Whether the gateway has requested a replacement of the token since `fetched_at`, with or without success.
    pub(crate) fn has_replaced_since(&self, fetched_at: DateTime<Utc>) -> bool {
        self.replaced[0] > fetched_at.timestamp_millis()
    }

    /// Books a repair, which makes a token end early; `forced`: by a forced refresh of a stable token. The error is the
    /// time from which to ask again.
    pub(crate) fn repair(&mut self, now: DateTime<Utc>, forced: bool) -> Result<(), DateTime<Utc>> {
        self.may_repair(now, forced)?;
        self.forced += u32::from(forced);
        let after_the_last = self.back.repair.map(|back| back + MOMENT);
        self.repaired_at = after_the_last.max(Some(now.trunc_subsecs(3)));
        Ok(())
    }

    /// Whether [`Ledger::repair`] would succeed.
    pub(crate) fn may_repair(&self, now: DateTime<Utc>, forced: bool) -> Result<(), DateTime<Utc>> {
        if let Some(again) = self
            .repaired_at
            .filter(|last| self.back.repair.is_none_or(|back| back < *last))
            .map(|last| last + REPAIR_INTERVAL)
            .filter(|again| *again > now)
        {
            return Err(again);
        }
        if forced && self.has_spent_forced() {
            return Err(quota::reset_at(now).min(now + SPENT_PAUSE));
        }
        Ok(())
    }

    /// Whether the day's forced refreshes are spent.
    pub(crate) fn has_spent_forced(&self) -> bool {
        self.forced() >= BudgetKind::ForcedRefreshes.limit()
    }

    /// Records a call that ends the token before, whether or not the answer arrives.
    pub(crate) fn replace(&mut self, now: DateTime<Utc>) {
        self.replaced = newest(self.replaced.into_iter().chain([now.timestamp_millis()]));
    }

    /// Whether a call of the gateway explains that a token fetched at `fetched_at` was refused at `refused_at`. The
    /// call that repairs the token comes later or at the same moment, and does not count.
    pub(crate) fn explains(&self, fetched_at: DateTime<Utc>, refused_at: DateTime<Utc>) -> bool {
        let life = fetched_at.timestamp_millis()..refused_at.timestamp_millis();
        self.replaced
            .iter()
            .any(|at| *at > life.start && *at < life.end)
    }

    /// Counts a foreign refresh that was noticed at `at`.
    pub(crate) fn count_foreign(&mut self, at: DateTime<Utc>) -> ForeignRefresh {
        let last_at = self.foreign_at.max(Some(at.trunc_subsecs(3))).unwrap_or(at);
        self.foreign = self.foreign.saturating_add(1);
        self.foreign_at = Some(last_at);
        ForeignRefresh {
            count_today: self.foreign,
            last_at,
        }
    }

    /// Whether a foreign refresh was counted since `fetched_at`: then the death of such a token is counted.
    pub(crate) fn has_counted(&self, fetched_at: DateTime<Utc>) -> bool {
        self.foreign_at.is_some_and(|at| at > fetched_at)
    }

    /// The foreign refreshes, if one happened in the last seven days.
    pub(crate) fn foreign(&self, now: DateTime<Utc>) -> Option<ForeignRefresh> {
        self.foreign_at
            .filter(|at| *at + FOREIGN_SHOWN > now)
            .map(|last_at| ForeignRefresh {
                count_today: self.foreign,
                last_at,
            })
    }

    /// The number of legacy and stable fetches.
    pub(crate) fn fetches(&self) -> u32 {
        self.legacy().saturating_add(self.stable())
    }

    /// The number of forced refreshes.
    pub(crate) fn forced(&self) -> u32 {
        self.forced.saturating_sub(self.back.forced)
    }

    fn legacy(&self) -> u32 {
        self.legacy.saturating_sub(self.back.legacy)
    }

    fn stable(&self) -> u32 {
        self.stable.saturating_sub(self.back.stable)
    }

    /// The used part of each budget.
    pub(crate) fn budgets(&self) -> Budgets {
        Budgets::used([self.legacy(), self.stable(), self.in_minute, self.forced()])
    }

    /// A number that grows with every fetch and every day.
    pub(crate) fn generation(&self) -> u64 {
        let counted = self.legacy.saturating_add(self.stable);
        u64::from(self.day.num_days_from_ce().unsigned_abs()) << 32 | u64::from(counted)
    }

    /// The time after which the other replicas no longer need the ledger.
    pub(crate) fn deadline(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        let day_over = quota::reset_at(now) + AFTER_MIDNIGHT;
        self.foreign_at
            .map_or(day_over, |at| day_over.max(at + FOREIGN_SHOWN))
    }

    /// The form in the cell.
    pub(crate) fn to_text(self) -> String {
        let Self {
            day,
            legacy,
            stable,
            forced,
            minute,
            in_minute,
            repaired_at,
            back,
            replaced,
            foreign,
            foreign_at,
        } = self;
        let [repaired, foreign_at, back_at] = [repaired_at, foreign_at, back.repair]
            .map(|at| at.map_or(0, |at| at.timestamp_millis()));
        let [r0, r1, r2, r3] = replaced;
        let Refunds {
            legacy: back_legacy,
            stable: back_stable,
            forced: back_forced,
            ..
        } = back;
        format!(
            "{day} {legacy} {stable} {forced} {minute} {in_minute} {repaired} {foreign} {foreign_at} {r0} {r1} {r2} {r3} \
             {back_legacy} {back_stable} {back_forced} {back_at}"
        )
    }

    /// Reads the form in the cell.
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
            foreign,
            foreign_at,
            r0,
            r1,
            r2,
            r3,
            ref back @ ..,
        ] = numbers.as_slice()
        else {
            return None;
        };
        // A replica of an earlier version writes no refunds.
        let [back_legacy, back_stable, back_forced, back_at] = back.try_into().unwrap_or_default();
        let time = |ms| DateTime::from_timestamp_millis(ms).filter(|_| ms != 0);
        Some(Self {
            day: day.parse().ok()?,
            legacy: legacy.try_into().ok()?,
            stable: stable.try_into().ok()?,
            forced: forced.try_into().ok()?,
            minute,
            in_minute: in_minute.try_into().ok()?,
            repaired_at: time(repaired),
            back: Refunds {
                legacy: back_legacy.try_into().ok()?,
                stable: back_stable.try_into().ok()?,
                forced: back_forced.try_into().ok()?,
                repair: time(back_at),
            },
            replaced: [r0, r1, r2, r3],
            foreign: foreign.try_into().ok()?,
            foreign_at: time(foreign_at),
        })
    }
}

impl Refunds {
    fn merge(self, other: Self) -> Self {
        Self {
            legacy: self.legacy.max(other.legacy),
            stable: self.stable.max(other.stable),
            forced: self.forced.max(other.forced),
            repair: self.repair.max(other.repair),
        }
    }
}

/// The latest of these times, each once.
fn newest(times: impl Iterator<Item = i64>) -> [i64; REPLACEMENTS] {
    let mut times: Vec<_> = times.collect();
    times.sort_unstable_by(|one, two| two.cmp(one));
    times.dedup();
    std::array::from_fn(|n| times.get(n).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests;
