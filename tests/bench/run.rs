//! What a measurement found.

use std::time::Duration;

use crate::cost::CpuEach;

/// So many messages, in so long, at such a cost.
#[derive(Debug)]
pub(crate) struct Run {
    count: usize,
    time: Duration,
    /// Processor time of each message.
    pub(crate) cpu: CpuEach,
    /// Of each message, in ascending order; empty where they have no end of their own.
    latencies: Vec<Duration>,
}

impl Run {
    /// `count` messages in `time`.
    pub(crate) fn new(
        count: usize,
        time: Duration,
        cpu: CpuEach,
        mut latencies: Vec<Duration>,
    ) -> Self {
        latencies.sort_unstable();
        Self {
            count,
            time,
            cpu,
            latencies,
        }
    }

    /// Messages in a second.
    #[expect(
        clippy::cast_precision_loss,
        reason = "counts of messages are far below 2^52"
    )]
    pub(crate) fn rate(&self) -> f64 {
        self.count as f64 / self.time.as_secs_f64()
    }

    /// The latency that this percentage of the messages does not exceed, in milliseconds; none where they have none
    /// of their own.
    pub(crate) fn percentile(&self, percent: usize) -> Option<f64> {
        let last = self.latencies.len().saturating_sub(1);
        let latency = self.latencies.get(last * percent / 100);
        latency.map(|latency| latency.as_secs_f64() * 1e3)
    }
}
