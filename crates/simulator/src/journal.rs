//! The journal of accepted messages, for tests that check which messages each user got, and how often.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use serde::{Deserialize, Serialize};

use crate::sync::lock;

/// One accepted message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// The endpoint's path.
    pub path: String,
    /// The recipient's openid.
    pub touser: String,
    /// The template's id.
    pub template_id: String,
    /// The message's id in the answer. The answer to a form-id message has no id, but the entry has one.
    pub msgid: u64,
    /// The form id that the message used up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub form_id: Option<String>,
    /// The sender's id for the message (official accounts).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_msg_id: Option<String>,
    /// The test's mark: `marker=…` in the page's query, or the value of the account's `marker_key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marker: Option<String>,
    /// The request body as received, unless [`Options::journal_bodies`](crate::Options::journal_bodies) is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The simulated time of the send, in milliseconds since 1970.
    pub at: i64,
}

/// Users and markers with more than one message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Duplicates {
    /// Users with any message; 0 while per-user counting is off.
    pub distinct_openids: u64,
    /// The greatest number of messages of one user.
    pub max_per_openid: u32,
    /// Users with more than one message.
    pub openids: Vec<Repeated>,
    /// The number of different markers.
    pub distinct_markers: u64,
    /// The greatest number of messages with one marker.
    pub max_per_marker: u32,
    /// Markers with more than one message.
    pub markers: Vec<Repeated>,
}

/// A user or marker with more than one message.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Repeated {
    /// The openid or marker.
    pub name: String,
    /// The number of messages.
    pub count: u32,
}

/// The accepted messages of one account: the last `capacity` in full, and counts of all.
#[derive(Debug)]
pub(crate) struct Journal {
    capacity: usize,
    count_recipients: bool,
    accepted: AtomicU64,
    entries: Mutex<VecDeque<Sent>>,
    openids: DashMap<Box<str>, u32>,
    markers: DashMap<Box<str>, u32>,
}

impl Journal {
    pub(crate) fn new(capacity: usize, count_recipients: bool) -> Self {
        Self {
            capacity,
            count_recipients,
            accepted: AtomicU64::new(0),
            entries: Mutex::default(),
            openids: DashMap::new(),
            markers: DashMap::new(),
        }
    }

    /// Records an accepted message. `sent` is called only if entries are kept.
    pub(crate) fn record(&self, openid: &str, marker: Option<&str>, sent: impl FnOnce() -> Sent) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        if self.count_recipients {
            count(&self.openids, openid);
        }
        if let Some(marker) = marker {
            count(&self.markers, marker);
        }
        if self.capacity > 0 {
            let sent = sent();
            let mut entries = lock(&self.entries);
            if entries.len() == self.capacity {
                entries.pop_front();
            }
            entries.push_back(sent);
        }
    }

    /// The number of messages accepted since the start or the last [`Journal::clear`].
    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// The last `most` entries, oldest first.
    pub(crate) fn last(&self, most: usize) -> Vec<Sent> {
        let entries = lock(&self.entries);
        let skipped = entries.len().saturating_sub(most);
        entries.iter().skip(skipped).cloned().collect()
    }

    /// Removes entries and counts.
    pub(crate) fn clear(&self) {
        lock(&self.entries).clear();
        self.openids.clear();
        self.markers.clear();
        self.accepted.store(0, Ordering::Relaxed);
    }

    /// The users and markers with more than one message.
    pub(crate) fn duplicates(&self) -> Duplicates {
        let (max_per_openid, openids) = repeated(&self.openids);
        let (max_per_marker, markers) = repeated(&self.markers);
        Duplicates {
            distinct_openids: u64::try_from(self.openids.len()).unwrap_or(u64::MAX),
            max_per_openid,
            openids,
            distinct_markers: u64::try_from(self.markers.len()).unwrap_or(u64::MAX),
            max_per_marker,
            markers,
        }
    }
}

fn count(counts: &DashMap<Box<str>, u32>, name: &str) {
    if let Some(mut known) = counts.get_mut(name) {
        *known = known.saturating_add(1);
        return;
    }
    *counts.entry(name.into()).or_insert(0) += 1;
}

fn repeated(counts: &DashMap<Box<str>, u32>) -> (u32, Vec<Repeated>) {
    let mut most = 0;
    let mut names = Vec::new();
    for entry in counts {
        most = most.max(*entry.value());
        if *entry.value() > 1 {
            names.push(Repeated {
                name: entry.key().to_string(),
                count: *entry.value(),
            });
        }
    }
    names.sort();
    (most, names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(openid: &str) -> Sent {
        Sent {
            path: "/p".into(),
            touser: openid.into(),
            template_id: "t".into(),
            msgid: 1,
            form_id: None,
            client_msg_id: None,
            marker: None,
            body: None,
            at: 0,
        }
    }

    #[test]
    fn a_full_journal_drops_its_oldest_entry_and_keeps_counting() {
        let journal = Journal::new(2, true);
        for openid in ["a", "b", "c", "a"] {
            journal.record(openid, Some("m"), || sent(openid));
        }
        assert_eq!(journal.accepted(), 4);
        let kept: Vec<_> = journal
            .last(10)
            .into_iter()
            .map(|sent| sent.touser)
            .collect();
        assert_eq!(kept, ["c", "a"]);
        let duplicates = journal.duplicates();
        assert_eq!(
            (duplicates.max_per_openid, duplicates.max_per_marker),
            (2, 4)
        );
        assert_eq!(
            duplicates.openids,
            [Repeated {
                name: "a".into(),
                count: 2
            }]
        );
        assert_eq!(duplicates.distinct_openids, 3);
    }

    #[test]
    fn everything_can_be_off() {
        let journal = Journal::new(0, false);
        journal.record("a", None, || unreachable!("no entry is made"));
        assert_eq!(journal.accepted(), 1);
        assert_eq!(journal.duplicates(), Duplicates::default());
    }
}
