//! The results of a batch, made from the store's answers about the entries.

use chrono::{DateTime, Utc};
use store::{BatchEntry, FirstEntry, NewMessage, Received};

use super::{BatchResult, SubmitError};

/// Results of a new batch: `received` has an item for each message of the batch.
pub(crate) fn fresh(entries: Vec<BatchEntry>, received: Vec<Received>) -> Vec<BatchResult> {
    let mut received = received.into_iter();
    let results = entries.into_iter().map(|entry| match entry {
        BatchEntry::Unfit(words) => BatchResult::Unfit(words),
        BatchEntry::Message(new) => match received.next() {
            Some(received) => result(*new, received),
            None => lost(),
        },
    });
    results.collect()
}

/// Results of a repeated batch: the same entries, with the ids, the time and the refusals of the first answer.
pub(crate) fn replayed(
    entries: Vec<BatchEntry>,
    first: Vec<FirstEntry>,
    received_at: DateTime<Utc>,
) -> Vec<BatchResult> {
    let mut first = first.into_iter();
    let results = entries
        .into_iter()
        .map(|entry| match (entry, first.next()) {
            (BatchEntry::Message(new), Some(FirstEntry::Message(id, received))) => {
                let new = NewMessage {
                    id,
                    received_at,
                    ..*new
                };
                result(new, received)
            }
            // The text of the first answer. If the rules have changed since, there is none, and the present text is
            // used.
            (_, Some(FirstEntry::Unfit(words))) | (BatchEntry::Unfit(words), _) => {
                BatchResult::Unfit(words)
            }
            (BatchEntry::Message(_), None) => lost(),
        });
    results.collect()
}

fn result(new: NewMessage, received: Received) -> BatchResult {
    match received {
        Received::Stored if new.draft.dry_run => BatchResult::Checked(Box::new(new.accepted())),
        Received::Stored => BatchResult::Accepted(Box::new(new.accepted())),
        refused => BatchResult::Refused(refused.into()),
    }
}

fn lost() -> BatchResult {
    let why = "intake answered fewer messages than it was given: this is a defect";
    BatchResult::Refused(SubmitError::Broken(why.into()))
}
