//! The metrics of delivery for operators.

use std::time::Duration;

use domain::{lifecycle::Status, message::Channel, verdict::Outcome};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

/// The metrics of delivery. Clones share the counters.
#[derive(Clone, Debug)]
pub struct DeliveryMetrics {
    pub(crate) accepted: Counter,
    pub(crate) answers_waiting: Gauge,
    pub(crate) posts_waiting: Gauge,
    attempts: Family<AttemptLabels, Counter>,
    ended: Family<EndLabels, Counter>,
    send_seconds: Family<ChannelLabels, Histogram, fn() -> Histogram>,
    callbacks: Family<CallbackLabels, Counter>,
    callbacks_refused: Family<RefusalLabels, Counter>,
    callback_lookups: Counter,
    settled: Family<EndLabels, Counter>,
    receipts_abandoned: Counter,
    told: Family<OutcomeLabels, Counter>,
    template_syncs: Family<OutcomeLabels, Counter>,
    template_drifts: Family<DriftLabels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DriftLabels {
    change: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallbackLabels {
    event: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AttemptLabels {
    channel: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndLabels {
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ChannelLabels {
    channel: &'static str,
}

/// The result of a callback, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallbackOutcome {
    /// The callback counted.
    Taken,
    /// The callback had counted before.
    Repeated,
    /// The callback has no meaning here.
    Ignored,
}

impl CallbackOutcome {
    /// The outcome as a metric label.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Repeated => "repeated",
            Self::Ignored => "ignored",
        }
    }
}

impl DeliveryMetrics {
    /// Creates the metrics and registers them with `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            accepted: Counter::default(),
            answers_waiting: Gauge::default(),
            posts_waiting: Gauge::default(),
            attempts: Family::default(),
            ended: Family::default(),
            send_seconds: Family::new_with_constructor(send_histogram),
            callbacks: Family::default(),
            callbacks_refused: Family::default(),
            callback_lookups: Counter::default(),
            settled: Family::default(),
            receipts_abandoned: Counter::default(),
            told: Family::default(),
            template_syncs: Family::default(),
            template_drifts: Family::default(),
        };
        registry.register(
            "wxgate_messages_accepted",
            "Messages accepted",
            metrics.accepted.clone(),
        );
        registry.register(
            "wxgate_send_attempts",
            "Sends to WeChat by outcome",
            metrics.attempts.clone(),
        );
        registry.register(
            "wxgate_messages_ended",
            "Messages that ended, by end status",
            metrics.ended.clone(),
        );
        registry.register(
            "wxgate_send_seconds",
            "Time until WeChat answers a send",
            metrics.send_seconds.clone(),
        );
        metrics.register_waiting(registry);
        metrics.register_callbacks(registry);
        metrics.register_templates(registry);
        metrics
    }

    fn register_waiting(&self, registry: &mut Registry) {
        registry.register(
            "wxgate_answers_waiting",
            "Answers of WeChat to sends that the database has not recorded yet",
            self.answers_waiting.clone(),
        );
        registry.register(
            "wxgate_webhook_posts_waiting",
            "Outcomes of webhook posts that the database has not recorded yet",
            self.posts_waiting.clone(),
        );
    }

    fn register_callbacks(&self, registry: &mut Registry) {
        registry.register(
            "wxgate_callbacks",
            "Events in callbacks of WeChat, by result",
            self.callbacks.clone(),
        );
        registry.register(
            "wxgate_callbacks_refused",
            "Refused callbacks: not from WeChat, or not for an app of this gateway",
            self.callbacks_refused.clone(),
        );
        registry.register(
            "wxgate_callback_lookups",
            "Database queries for the settings of an app that a callback names",
            self.callback_lookups.clone(),
        );
        registry.register(
            "wxgate_messages_settled",
            "Messages whose delivery or failure WeChat reported in an event",
            self.settled.clone(),
        );
        registry.register(
            "wxgate_receipts_abandoned",
            "Events about messages that this gateway has not sent",
            self.receipts_abandoned.clone(),
        );
        registry.register(
            "wxgate_webhook_posts",
            "Posts to tenants' webhook endpoints, by result",
            self.told.clone(),
        );
    }

    fn register_templates(&self, registry: &mut Registry) {
        registry.register(
            "wxgate_template_syncs",
            "Syncs of an app's templates from WeChat, by result",
            self.template_syncs.clone(),
        );
        registry.register(
            "wxgate_template_drifts",
            "Differences between stored templates and the templates that WeChat lists",
            self.template_drifts.clone(),
        );
    }

    pub(crate) fn heard(&self, event: &'static str, outcome: CallbackOutcome) {
        let outcome = outcome.as_str();
        self.callbacks
            .get_or_create(&CallbackLabels { event, outcome })
            .inc();
    }

    pub(crate) fn looked_up(&self) {
        self.callback_lookups.inc();
    }

    pub(crate) fn refused(&self, reason: &'static str) {
        self.callbacks_refused
            .get_or_create(&RefusalLabels { reason })
            .inc();
    }

    pub(crate) fn settled(&self, status: Status, count: usize) {
        if count > 0 {
            self.settled
                .get_or_create(&EndLabels {
                    status: status.as_str(),
                })
                .inc_by(count as u64);
        }
    }

    pub(crate) fn told(&self, outcome: &'static str) {
        self.told.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    pub(crate) fn synced(&self, outcome: &'static str) {
        self.template_syncs
            .get_or_create(&OutcomeLabels { outcome })
            .inc();
    }

    pub(crate) fn drifted(&self, change: &'static str) {
        self.template_drifts
            .get_or_create(&DriftLabels { change })
            .inc();
    }

    pub(crate) fn receipts_abandoned(&self, count: u64) {
        self.receipts_abandoned.inc_by(count);
    }

    pub(crate) fn sent(&self, channel: Channel, outcome: Outcome, duration: Duration) {
        let channel = word(channel);
        self.attempts
            .get_or_create(&AttemptLabels {
                channel,
                outcome: outcome.as_str(),
            })
            .inc();
        self.send_seconds
            .get_or_create(&ChannelLabels { channel })
            .observe(duration.as_secs_f64());
    }

    pub(crate) fn ended(&self, status: Status, count: usize) {
        if count > 0 {
            self.ended
                .get_or_create(&EndLabels {
                    status: status.as_str(),
                })
                .inc_by(count as u64);
        }
    }
}

/// Buckets from a millisecond to 16 seconds.
fn send_histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 15))
}

fn word(channel: Channel) -> &'static str {
    match channel {
        Channel::Subscribe => "subscribe",
        Channel::Template => "template",
        Channel::Official => "official",
    }
}
