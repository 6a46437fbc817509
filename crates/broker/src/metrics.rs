//! The metrics of the broker.

use std::sync::Arc;

use domain::app::TokenMode;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use wechat::TokenError;

use crate::{
    app_totals::{AppTotalsCollector, CountedApps},
    health::TokenHealth,
    memories::Memories,
};

/// The broker's metrics. Clones share their counts.
#[derive(Clone, Default)]
pub struct BrokerMetrics(Arc<Inner>);

#[derive(Default)]
struct Inner {
    fetches: Family<FetchLabels, Counter>,
    checks: Family<CheckLabels, Counter>,
    waiting: Gauge,
    foreign_refreshes: Counter,
    apps: Arc<CountedApps>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FetchLabels {
    mode: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CheckLabels {
    result: &'static str,
}

impl BrokerMetrics {
    /// Creates metrics in a registry.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let Inner {
            fetches,
            checks,
            waiting,
            foreign_refreshes,
            apps,
        } = &*metrics.0;
        registry.register(
            "wxgate_token_fetches",
            "Access token fetches from WeChat",
            fetches.clone(),
        );
        registry.register(
            "wxgate_token_checks",
            "Token checks of access tokens that WeChat refused",
            checks.clone(),
        );
        registry.register(
            "wxgate_token_waiting",
            "Callers that wait for an access token",
            waiting.clone(),
        );
        registry.register(
            "wxgate_token_foreign_refreshes",
            "Access tokens that another system replaced",
            foreign_refreshes.clone(),
        );
        registry.register_collector(Box::new(AppTotalsCollector(Arc::clone(apps))));
        metrics
    }

    /// Includes the apps of one more broker in the totals from now on.
    pub(crate) fn count_apps_of(&self, memories: &Arc<Memories>) {
        self.0.apps.add(memories);
    }

    /// Counts a token that another system replaced.
    pub(crate) fn foreign_refresh(&self) {
        self.0.foreign_refreshes.inc();
    }

    /// Counts a token check; none: no clear result.
    pub(crate) fn checked(&self, found: Option<TokenHealth>) {
        let result = match found {
            Some(TokenHealth::Alive) => "alive",
            Some(TokenHealth::Dead) => "dead",
            None => "unclear",
        };
        self.0.checks.get_or_create(&CheckLabels { result }).inc();
    }

    /// Counts a fetch.
    pub(crate) fn fetched<T>(&self, mode: TokenMode, force: bool, outcome: &Result<T, TokenError>) {
        let mode = match (mode, force) {
            (TokenMode::Stable, false) => "stable",
            (TokenMode::Stable, true) => "forced",
            (TokenMode::Legacy, _) => "legacy",
        };
        let outcome = match outcome {
            Ok(_) => "ok",
            Err(TokenError::Blocked { .. }) => "blocked",
            Err(TokenError::Later { .. } | TokenError::Unclear(_)) => "later",
            Err(TokenError::QuotaSpent(_)) => "quota_spent",
            Err(TokenError::Bug(_)) => "bug",
        };
        self.0
            .fetches
            .get_or_create(&FetchLabels { mode, outcome })
            .inc();
    }

    /// Counts a waiting caller until the returned value is dropped.
    pub(crate) fn waiting(&self) -> WaitingCaller {
        self.0.waiting.inc();
        WaitingCaller(self.0.waiting.clone())
    }
}

/// One waiting caller.
pub(crate) struct WaitingCaller(Gauge);

impl Drop for WaitingCaller {
    fn drop(&mut self) {
        self.0.dec();
    }
}
