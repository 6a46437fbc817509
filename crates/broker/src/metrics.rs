//! What operators see of the broker.

use std::sync::Arc;

use domain::app::TokenMode;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use wechat::TokenError;

/// The broker's metrics. Clones count together.
#[derive(Clone, Default)]
pub struct Metrics(Arc<Inner>);

#[derive(Default)]
struct Inner {
    fetches: Family<FetchLabels, Counter>,
    waiting: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FetchLabels {
    mode: &'static str,
    outcome: &'static str,
}

impl Metrics {
    /// Adds them to a registry.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let Inner { fetches, waiting } = &*metrics.0;
        registry.register(
            "wxgate_token_fetches",
            "Access tokens asked of WeChat",
            fetches.clone(),
        );
        registry.register(
            "wxgate_token_waiting",
            "Callers waiting for an access token",
            waiting.clone(),
        );
        metrics
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
            Err(TokenError::Later { .. }) => "later",
            Err(TokenError::QuotaSpent(_)) => "quota_spent",
            Err(TokenError::Bug(_)) => "bug",
        };
        self.0
            .fetches
            .get_or_create(&FetchLabels { mode, outcome })
            .inc();
    }

    /// Counts a waiting caller until the answer is dropped.
    pub(crate) fn waiting(&self) -> Waiting {
        self.0.waiting.inc();
        Waiting(self.0.waiting.clone())
    }
}

/// One waiting caller.
pub(crate) struct Waiting(Gauge);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.dec();
    }
}
