//! What WeChat grants an app's token fetches, and how much of it is gone.

/// One of WeChat's limits on token fetches, each for one app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BudgetKind {
    /// `GET /cgi-bin/token` in a Beijing day.
    LegacyFetches,
    /// `POST /cgi-bin/stable_token` in a Beijing day, forced ones too.
    StableCalls,
    /// `POST /cgi-bin/stable_token` in a minute of the clock.
    StableCallsAMinute,
    /// Forced refreshes of the stable token in a Beijing day.
    ForcedRefreshes,
}

impl BudgetKind {
    /// Every one there is, in the order of [`Budgets::iter`].
    pub const ALL: [Self; 4] = [
        Self::LegacyFetches,
        Self::StableCalls,
        Self::StableCallsAMinute,
        Self::ForcedRefreshes,
    ];

    /// The word in metrics, logs and audit lines.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LegacyFetches => "legacy_fetches",
            Self::StableCalls => "stable_calls",
            Self::StableCallsAMinute => "stable_calls_a_minute",
            Self::ForcedRefreshes => "forced_refreshes",
        }
    }

    /// What WeChat documents. An old account may have more legacy fetches; none of them comes near this number.
    pub fn limit(self) -> u32 {
        match self {
            Self::LegacyFetches => 2_000,
            Self::StableCalls => 500_000,
            Self::StableCallsAMinute => 10_000,
            Self::ForcedRefreshes => 20,
        }
    }

    /// Where fetches end that repair no dead token: the last twentieth is kept for those that do.
    pub(crate) fn ceiling(self, repair: bool) -> u32 {
        if repair {
            self.limit()
        } else {
            self.limit() - self.limit() / 20
        }
    }
}

/// One budget and how much of it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Used so far, as far as this replica knows.
    pub used: u32,
    /// See [`BudgetKind::limit`].
    pub limit: u32,
}

impl Budget {
    /// Whether four fifths are gone: time to look why.
    pub fn is_low(self) -> bool {
        self.has_used(80)
    }

    /// Whether all but the last twentieth is gone.
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
    /// From how much of each is used, in the order of [`BudgetKind::ALL`].
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

    /// Each with its kind.
    pub fn iter(&self) -> impl Iterator<Item = (BudgetKind, Budget)> {
        let budgets = [
            self.legacy_fetches,
            self.stable_calls,
            self.stable_calls_a_minute,
            self.forced_refreshes,
        ];
        BudgetKind::ALL.into_iter().zip(budgets)
    }

    /// Those that have become low, or nearly spent, since `earlier`.
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
