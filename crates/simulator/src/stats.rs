//! Counters of calls by endpoint and outcome.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::endpoint::CallEndpoint;
use crate::sync::lock;

/// The counts of calls and outcomes, of one account or of all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Accepted messages, including those with a lost answer.
    pub accepted: u64,
    /// Sends that wait for the end of the simulated latency.
    pub in_flight: u64,
    /// Calls by path, then by errcode (0 is success). `/cgi-bin/stable_token#force_refresh` counts effective forced
    /// refreshes, which `/cgi-bin/stable_token` counts too. Calls that broke or hung before acting are not counted
    /// here.
    pub calls: BTreeMap<String, BTreeMap<i64, u64>>,
    /// Calls without an answer of WeChat's, by kind: `break_before`, `break_after`, `hang`, `status_502`,
    /// `status_504_after` ….
    pub broken: BTreeMap<String, u64>,
}

impl Stats {
    /// Calls of one path that ended with this errcode.
    pub fn count(&self, path: &str, errcode: i64) -> u64 {
        self.calls
            .get(path)
            .and_then(|outcomes| outcomes.get(&errcode))
            .copied()
            .unwrap_or(0)
    }

    /// Calls of one path, with any errcode.
    pub fn total(&self, path: &str) -> u64 {
        self.calls
            .get(path)
            .map_or(0, |outcomes| outcomes.values().sum())
    }

    /// Adds the counts of another account.
    pub(crate) fn add(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.in_flight += other.in_flight;
        for (path, outcomes) in other.calls {
            let mine = self.calls.entry(path).or_default();
            for (code, count) in outcomes {
                *mine.entry(code).or_default() += count;
            }
        }
        for (kind, count) in other.broken {
            *self.broken.entry(kind).or_default() += count;
        }
    }
}

/// The live counters. A success costs one atomic operation; only failures take a lock.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    successes: [AtomicU64; CallEndpoint::COUNT],
    failures: Mutex<BTreeMap<(CallEndpoint, i64), u64>>,
    broken: Mutex<BTreeMap<String, u64>>,
}

impl Counters {
    /// Counts the outcome of a call.
    pub(crate) fn count(&self, endpoint: CallEndpoint, code: i64) {
        if code == 0 {
            self.successes[endpoint.index()].fetch_add(1, Ordering::Relaxed);
        } else {
            *lock(&self.failures).entry((endpoint, code)).or_default() += 1;
        }
    }

    /// Counts a call without an answer of WeChat's.
    pub(crate) fn count_broken(&self, kind: &str) {
        *lock(&self.broken).entry(kind.to_owned()).or_default() += 1;
    }

    /// The present counts.
    pub(crate) fn report(&self) -> Stats {
        let mut stats = Stats {
            broken: lock(&self.broken).clone(),
            ..Stats::default()
        };
        for endpoint in CallEndpoint::ALL {
            let count = self.successes[endpoint.index()].load(Ordering::Relaxed);
            if count > 0 {
                stats
                    .calls
                    .entry(endpoint.name().to_owned())
                    .or_default()
                    .insert(0, count);
            }
        }
        for ((endpoint, code), count) in lock(&self.failures).iter() {
            stats
                .calls
                .entry(endpoint.name().to_owned())
                .or_default()
                .insert(*code, *count);
        }
        stats
    }

    /// Sets all counts to zero.
    pub(crate) fn clear(&self) {
        for counter in &self.successes {
            counter.store(0, Ordering::Relaxed);
        }
        lock(&self.failures).clear();
        lock(&self.broken).clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_path_and_code() {
        let counters = Counters::default();
        counters.count(CallEndpoint::Token, 0);
        counters.count(CallEndpoint::Token, 40125);
        counters.count(CallEndpoint::Token, 40125);
        counters.count_broken("hang");
        let mut stats = counters.report();
        assert_eq!(stats.count("/cgi-bin/token", 40125), 2);
        assert_eq!(stats.total("/cgi-bin/token"), 3);
        stats.add(counters.report());
        assert_eq!(
            (stats.count("/cgi-bin/token", 0), stats.broken["hang"]),
            (2, 2)
        );
    }
}
