//! The state of all apps in total, counted when the metrics are read, so that no app has a time series of its own.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use chrono::{DateTime, Utc};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
};

use crate::{BrokerError, BudgetKind, memories::Memories, memory::Memory};

/// The memories of all brokers with the same metrics.
#[derive(Default)]
pub(crate) struct CountedApps(Mutex<Vec<Weak<Memories>>>);

impl CountedApps {
    /// Includes the apps of one more broker from now on.
    pub(crate) fn add(&self, memories: &Arc<Memories>) {
        let mut brokers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        brokers.retain(|broker| broker.strong_count() > 0);
        brokers.push(Arc::downgrade(memories));
    }

    /// Counts the apps of all brokers.
    fn totals(&self) -> AppTotals {
        let brokers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut totals = AppTotals::new();
        for broker in brokers.iter().filter_map(Weak::upgrade) {
            for (_, memory) in broker.all() {
                totals.count(&memory, broker.now());
            }
        }
        totals
    }
}

/// The totals over the apps of one or more brokers.
pub(crate) struct AppTotals {
    /// Apps in memory.
    remembered: u64,
    /// Apps with a failed last fetch, by reason.
    failing: BTreeMap<&'static str, u64>,
    /// Apps with a low budget, by budget.
    low: BTreeMap<&'static str, u64>,
    /// In seconds, over the tokens of apps in use.
    age: Option<Span>,
    remaining: Option<Span>,
}

/// The minimum and the maximum.
#[derive(Clone, Copy)]
struct Span {
    min: f64,
    max: f64,
}

impl AppTotals {
    /// The totals of no apps.
    fn new() -> Self {
        Self {
            remembered: 0,
            failing: BrokerError::words().map(|word| (word, 0)).collect(),
            low: BudgetKind::ALL.map(|kind| (kind.as_str(), 0)).into(),
            age: None,
            remaining: None,
        }
    }

    /// Counts an app.
    fn count(&mut self, memory: &Memory, now: DateTime<Utc>) {
        let state = memory.state(now);
        self.remembered += 1;
        if let Some(failure) = &state.failure {
            *self.failing.entry(failure.word()).or_default() += 1;
        }
        for (kind, budget) in state.budgets.iter() {
            if budget.is_low() {
                *self.low.entry(kind.as_str()).or_default() += 1;
            }
        }
        if let Some(token) = state.token.filter(|_| memory.is_in_use(now)) {
            widen(&mut self.age, (now - token.fetched_at).as_seconds_f64());
            widen(
                &mut self.remaining,
                (token.expires_at - now).as_seconds_f64(),
            );
        }
    }
}

fn widen(span: &mut Option<Span>, value: f64) {
    let there = span.get_or_insert(Span {
        min: value,
        max: value,
    });
    there.min = there.min.min(value);
    there.max = there.max.max(value);
}

/// Counts all apps each time the metrics are read.
pub(crate) struct AppTotalsCollector(pub(crate) Arc<CountedApps>);

impl Collector for AppTotalsCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let totals = self.0.totals();
        ConstGauge::new(i64::try_from(totals.remembered).unwrap_or(i64::MAX)).encode(
            encoder.encode_descriptor(
                "wxgate_token_apps",
                "Apps whose tokens are in memory",
                None,
                MetricType::Gauge,
            )?,
        )?;
        by_word(
            &mut encoder,
            "wxgate_token_failing_apps",
            "Apps whose last token fetch failed, by reason",
            "reason",
            &totals.failing,
        )?;
        by_word(
            &mut encoder,
            "wxgate_token_low_budget_apps",
            "Apps that have used four fifths of a budget of token fetches",
            "budget",
            &totals.low,
        )?;
        span(
            &mut encoder,
            "wxgate_token_age_seconds",
            "Youngest and oldest token of the apps used in the last minute",
            totals.age,
        )?;
        span(
            &mut encoder,
            "wxgate_token_remaining_seconds",
            "Shortest and longest remaining life of a token of the apps used in the last minute",
            totals.remaining,
        )
    }
}

fn by_word(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    label: &str,
    counts: &BTreeMap<&'static str, u64>,
) -> Result<(), fmt::Error> {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (word, count) in counts {
        let gauge = ConstGauge::new(i64::try_from(*count).unwrap_or(i64::MAX));
        gauge.encode(family.encode_family(&[(label, *word)])?)?;
    }
    Ok(())
}

fn span(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    span: Option<Span>,
) -> Result<(), fmt::Error> {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (bound, value) in span
        .map(|Span { min, max }| [("min", min), ("max", max)])
        .into_iter()
        .flatten()
    {
        ConstGauge::new(value).encode(family.encode_family(&[("bound", bound)])?)?;
    }
    Ok(())
}

impl fmt::Debug for AppTotalsCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppTotalsCollector").finish_non_exhaustive()
    }
}
