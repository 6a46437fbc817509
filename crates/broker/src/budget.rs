//! Budgets: WeChat's limits on an app's token fetches, and the used part.

/// One of WeChat's limits on token fetches. Each limit is for one app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BudgetKind {
    /// Calls of `GET /cgi-bin/token` in a Beijing day.
    LegacyFetches,
    /// Calls of `POST /cgi-bin/stable_token` in a Beijing day, including forced ones.
    StableCalls,
    /// Calls of `POST /cgi-bin/stable_token` in a minute of the clock.
    StableCallsAMinute,
    /// Forced refreshes of the stable token in a Beijing day.
    ForcedRefreshes,
}

impl BudgetKind {
    /// All kinds, in the order of [`Budgets::iter`].
    pub const ALL: [Self; 4] = [
        Self::LegacyFetches,
        Self::StableCalls,
        Self::StableCallsAMinute,
        Self::ForcedRefreshes,
    ];

    /// The name in metrics, logs and audit lines.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LegacyFetches => "legacy_fetches",
            Self::StableCalls => "stable_calls",
            Self::StableCallsAMinute => "stable_calls_a_minute",
            Self::ForcedRefreshes => "forced_refreshes",
        }
    }

    /// The limit that WeChat documents. Old accounts may have more legacy fetches; none comes near this number.
    pub fn limit(self) -> u32 {
        match self {
            Self::LegacyFetches => 2_000,
            Self::StableCalls => 500_000,
            Self::StableCallsAMinute => 10_000,
            Self::ForcedRefreshes => 20,
        }
    }

    /// The calls at which fetches stop. Only fetches that repair a dead token may use the last twentieth.
    pub(crate) fn ceiling(self, repair: bool) -> u32 {
        if repair {
            self.limit()
        } else {
            self.limit() - self.limit() / 20
        }
    }
}

/// A budget that a fetch would exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SpentBudget {
    pub(crate) kind: BudgetKind,
    pub(crate) used: u32,
}

/// One budget and its use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// The calls used so far, as far as this replica knows.
    pub used: u32,
    /// See [`BudgetKind::limit`].
    pub limit: u32,
}

impl Budget {
    /// Whether at least four fifths are used: time to look for the cause.
    pub fn is_low(self) -> bool {
        self.has_used(80)
    }

    /// Whether at least 95 percent is used.
    pub fn is_nearly_spent(self) -> bool {
        self.has_used(95)
    }

    fn has_used(self, percent: u64) -> bool {
        u64::from(self.used) * 100 >= u64::from(self.limit) * percent
    }
}

/// All budgets of an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budgets {
    /// See [`BudgetKind::LegacyFetches`].
    pub legacy_fetches: Budget,
    /// See [`BudgetKind::StableCalls`].
    pub stable_calls: Budget,
    /// See [`BudgetKind::StableCallsAMinute`].
    pub stable_calls_a_minute: Budget,
    /// See [`BudgetKind::ForcedRefreshes`].
    pub forced_refreshes: Budget,
}

impl Budgets {
    /// Creates budgets from the used calls, in the order of [`BudgetKind::ALL`].
    pub(crate) fn used(used: [u32; 4]) -> Self {
        let [
            legacy_fetches,
            stable_calls,
            stable_calls_a_minute,
            forced_refreshes,
        ] = std::array::from_fn(|n| Budget {
            used: used[n],
            limit: BudgetKind::ALL[n].limit(),
        });
        Self {
            legacy_fetches,
            stable_calls,
            stable_calls_a_minute,
            forced_refreshes,
        }
    }

    /// Each budget with its kind.
    pub fn iter(&self) -> impl Iterator<Item = (BudgetKind, Budget)> {
        let budgets = [
            self.legacy_fetches,
            self.stable_calls,
            self.stable_calls_a_minute,
            self.forced_refreshes,
        ];
        BudgetKind::ALL.into_iter().zip(budgets)
    }

    /// The budgets that have become low, or nearly spent, since `earlier`.
    pub(crate) fn worse_than(&self, earlier: &Self) -> impl Iterator<Item = (BudgetKind, Budget)> {
        let level = |budget: Budget| (budget.is_low(), budget.is_nearly_spent());
        self.iter()
            .zip(earlier.iter())
            .filter(move |((_, now), (_, before))| level(*now) > level(*before))
            .map(|(now, _)| now)
    }
}

impl Default for Budgets {
    fn default() -> Self {
        Self::used([0; 4])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mark_is_passed_once() {
        let passed: Vec<_> = (1..=2_000)
            .filter(|used| {
                let [before, after] = [used - 1, *used].map(|used| Budgets::used([used, 0, 0, 0]));
                after
                    .worse_than(&before)
                    .any(|(kind, _)| kind == BudgetKind::LegacyFetches)
            })
            .collect();
        assert_eq!(passed, [1_600, 1_900]);
        assert_eq!(
            BudgetKind::ALL.map(|kind| kind.ceiling(false)),
            [1_900, 475_000, 9_500, 19]
        );
    }
}
