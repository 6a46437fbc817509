//! Output of a command: results to standard output, failures to standard error.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::json;

use crate::failure::Failure;

/// The form of the output: JSON or text.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    json: bool,
}

impl Output {
    /// Output for machines (`--json`) or for people.
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether the output is for people.
    pub(crate) fn is_for_people(self) -> bool {
        !self.json
    }

    /// Prints the result: `value` for machines, `text` for people.
    pub fn result(
        self,
        value: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        if !self.json {
            return self.text(&text());
        }
        let mut line = serde_json::to_string(value)
            .map_err(|error| Failure::new("internal", error.to_string()))?;
        line.push('\n');
        write(&mut io::stdout().lock(), &line)
    }

    /// Prints a note for people, and nothing for machines.
    pub fn note(self, text: &str) -> Result<(), Failure> {
        if self.json { Ok(()) } else { self.text(text) }
    }

    /// Prints `text` unchanged, for machines and for people.
    pub fn text(self, text: &str) -> Result<(), Failure> {
        let end = if text.ends_with('\n') { "" } else { "\n" };
        write(&mut io::stdout().lock(), &format!("{text}{end}"))
    }

    /// Prints a failure. A failed write is ignored, because no other output is left.
    pub fn failure(self, failure: &Failure) {
        let text = if self.json {
            format!(
                "{}\n",
                json!({"error": {"code": failure.code, "message": failure.message}})
            )
        } else {
            format!("error: {}\n", failure.message)
        };
        let _ = write(&mut io::stderr().lock(), &text);
    }
}

/// A closed pipe is not a failure: a reader such as `head` may stop early.
fn write(to: &mut impl Write, text: &str) -> Result<(), Failure> {
    match to.write_all(text.as_bytes()).and_then(|()| to.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::new(
            "output",
            format!("cannot write the result: {error}"),
        )),
        _ => Ok(()),
    }
}

/// An aligned table. The last column is not padded.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    if rows.is_empty() {
        return "none\n".to_owned();
    }
    let width = |column: usize| {
        let cells = rows
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count());
        cells.chain([head[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    let head: Vec<String> = head.iter().map(|name| (*name).to_owned()).collect();
    for row in std::iter::once(&head).chain(rows) {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Aligned pairs of name and value.
pub(crate) fn card(lines: &[(&str, String)]) -> String {
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    lines.iter().fold(String::new(), |text, (name, value)| {
        format!("{text}{name:<width$}  {value}\n")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned() {
        let rows = vec![
            vec!["ten_1".to_owned(), "Acme".to_owned()],
            vec!["ten_22".to_owned(), String::new()],
        ];
        assert_eq!(
            table(&["id", "name"], &rows),
            "id      name\nten_1   Acme\nten_22\n"
        );
        assert_eq!(table(&["id"], &[]), "none\n");
        assert_eq!(
            card(&[("id", "1".into()), ("name", "x".into())]),
            "id    1\nname  x\n"
        );
    }

    #[test]
    fn a_reader_that_went_away_is_no_failure() {
        struct Gone(io::ErrorKind);
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(self.0.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        assert!(write(&mut Gone(io::ErrorKind::BrokenPipe), "x").is_ok());
        assert!(write(&mut Gone(io::ErrorKind::StorageFull), "x").is_err());
    }
}
