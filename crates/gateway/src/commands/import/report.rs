//! The report of an import.

use std::{collections::HashSet, fmt::Write, process::ExitCode};

use domain::lifecycle::Status;
use serde::Serialize;
use store::Message;

use crate::{
    failure::Failure,
    output::{Output, card},
};

/// The results of the lines.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    /// The number of lines checked.
    checked: usize,
    /// The encoding of the file.
    encoding: &'static str,
    /// The reason why the app is paused, if the app is paused.
    pause: Option<String>,
    /// The number of lines accepted into the queue, now or by an earlier run.
    accepted: usize,
    /// The number of accepted lines that an earlier run submitted.
    repeated: usize,
    /// The number of accepted lines that WeChat has accepted.
    sent: usize,
    /// Lines that were not accepted.
    refused: Vec<LineNote>,
    /// Lines of which a value was rewritten into WeChat's form.
    rewritten: Vec<LineNote>,
    /// Lines that were accepted and ended without being sent.
    failed: Vec<LineNote>,
    /// Lines that an earlier run submitted and whose messages are no longer in the database.
    forgotten: Vec<LineNote>,
}

/// The reason shown for a line whose message is no longer in the database.
const FORGOTTEN: &str = "an earlier run sent this line to the queue, and the message is deleted now: its outcome is \
                         unknown, and the import does not send the message again";

/// A line and its fault.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct LineNote {
    line: u64,
    reason: String,
}

impl Report {
    /// An empty report for a file in this encoding.
    pub(super) fn of(encoding: &'static str, pause: Option<String>) -> Self {
        Self {
            encoding,
            pause,
            ..Self::default()
        }
    }

    /// Counts one checked line.
    pub(super) fn check(&mut self) {
        self.checked += 1;
    }

    /// The numbers of the refused lines.
    pub(super) fn refused_lines(&self) -> HashSet<u64> {
        self.refused.iter().map(|told| told.line).collect()
    }

    pub(super) fn accept(&mut self, replayed: bool) {
        self.accepted += 1;
        self.repeated += usize::from(replayed);
    }

    pub(super) fn refuse(&mut self, line: u64, reason: String) {
        self.refused.push(LineNote { line, reason });
    }

    pub(super) fn warn(&mut self, line: u64, warnings: Vec<String>) {
        let told = warnings.into_iter().map(|reason| LineNote { line, reason });
        self.rewritten.extend(told);
    }

    pub(super) fn end(&mut self, line: u64, message: &Message) {
        let status = message.status;
        if matches!(status, Status::Sent | Status::Delivered) {
            self.sent += 1;
            return;
        }
        let why = message.failure.as_ref();
        let why = why.map_or_else(String::new, |failure| format!(": {}", failure.detail));
        self.failed.push(LineNote {
            line,
            reason: format!("{}{why}", status.as_str()),
        });
    }

    pub(super) fn forget(&mut self, line: u64) {
        self.forgotten.push(LineNote {
            line,
            reason: FORGOTTEN.to_owned(),
        });
    }

    /// Prints the report. Exit code 1: a line was refused or not sent, or its end is unknown.
    pub(super) fn tell(mut self, output: Output) -> Result<ExitCode, Failure> {
        // Simultaneous messages end in any order.
        self.refused.sort_unstable();
        self.rewritten.sort_unstable();
        self.failed.sort_unstable();
        self.forgotten.sort_unstable();
        output.result(&self, || self.text())?;
        let fine = self.refused.is_empty() && self.failed.is_empty() && self.forgotten.is_empty();
        Ok(if fine {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    fn text(&self) -> String {
        let mut text = card(&[
            ("encoding", self.encoding.to_owned()),
            ("checked", self.checked.to_string()),
            ("accepted", self.accepted.to_string()),
            ("accepted before", self.repeated.to_string()),
            ("sent", self.sent.to_string()),
            ("refused", self.refused.len().to_string()),
            ("rewritten", self.rewritten.len().to_string()),
            ("failed", self.failed.len().to_string()),
            ("forgotten", self.forgotten.len().to_string()),
        ]);
        for (what, lines) in [
            ("refused", &self.refused),
            ("rewritten", &self.rewritten),
            ("failed", &self.failed),
            ("forgotten", &self.forgotten),
        ] {
            for LineNote { line, reason } in lines {
                let reason = reason.replace('\n', ";");
                let _ = writeln!(text, "line {line} {what}: {reason}");
            }
        }
        text
    }
}
