//! The result of a measurement.

use std::time::Duration;

use crate::cost::CpuEach;

/// A number of messages, the time that these messages took, and their cost.
#[derive(Debug)]
pub(crate) struct Run {
    count: usize,
    time: Duration,
    /// Processor time of each message.
    pub(crate) cpu: CpuEach,
    /// The latency of each message, in ascending order; empty if the measurement has only a total time.
    latencies: Vec<Duration>,
}

impl Run {
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

    /// Messages a second.
    #[expect(
        clippy::cast_precision_loss,
        reason = "counts of messages are far below 2^52"
    )]
    pub(crate) fn rate(&self) -> f64 {
        self.count as f64 / self.time.as_secs_f64()
    }

    /// The latency that this percentage of the messages does not exceed, in milliseconds; `None` without latencies.
    pub(crate) fn percentile(&self, percent: usize) -> Option<f64> {
        let last = self.latencies.len().saturating_sub(1);
        let latency = self.latencies.get(last * percent / 100);
        latency.map(|latency| latency.as_secs_f64() * 1e3)
    }
}
