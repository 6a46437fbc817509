//! The progress bar of an import: at a terminal only, and not with `--json`.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use tokio::time::Instant;

use crate::output::Output;

const WIDTH: usize = 30;
const EVERY: Duration = Duration::from_millis(100);

/// The progress of one part of the import.
#[derive(Debug)]
pub(super) struct Progress {
    total: usize,
    done: usize,
    /// The time at which the bar was last drawn. `None`: the bar is not shown.
    drawn: Option<Instant>,
}

impl Progress {
    /// Starts with zero of `total` steps.
    pub(super) fn new(output: Output, total: usize) -> Self {
        let seen = output.is_for_people() && io::stderr().is_terminal();
        Self {
            total,
            done: 0,
            drawn: seen.then(Instant::now),
        }
    }

    /// Counts one step.
    pub(super) fn step(&mut self, what: &str) {
        self.done += 1;
        let Some(drawn) = self.drawn else { return };
        if drawn.elapsed() >= EVERY || self.done == self.total {
            self.drawn = Some(Instant::now());
            draw(&format!("\r{} {what}\u{1b}[K", bar(self.done, self.total)));
        }
    }

    /// Starts the next part with `total` steps.
    pub(super) fn restart(&mut self, total: usize) {
        (self.done, self.total) = (0, total);
    }

    /// Erases the bar before the report is printed.
    pub(super) fn end(self) {
        if self.drawn.is_some() {
            draw("\r\u{1b}[K");
        }
    }
}

fn bar(done: usize, total: usize) -> String {
    let total = total.max(1);
    let full = (done * WIDTH / total).min(WIDTH);
    format!(
        "[{}{}] {done} of {total}",
        "#".repeat(full),
        "-".repeat(WIDTH - full)
    )
}

fn draw(text: &str) {
    let mut terminal = io::stderr().lock();
    // A failed write is ignored, because the bar is not essential.
    let _ = terminal
        .write_all(text.as_bytes())
        .and_then(|()| terminal.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_grows_to_its_end() {
        assert_eq!(bar(0, 0), format!("[{}] 0 of 1", "-".repeat(WIDTH)));
        assert_eq!(
            bar(50, 100),
            format!("[{}{}] 50 of 100", "#".repeat(15), "-".repeat(15))
        );
        assert_eq!(bar(7, 7), format!("[{}] 7 of 7", "#".repeat(WIDTH)));
    }
}
