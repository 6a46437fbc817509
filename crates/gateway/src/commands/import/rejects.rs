//! The file with the refused lines.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::lines;
use crate::failure::Failure;

/// The file for the refused lines.
pub(super) struct Rejects {
    path: PathBuf,
    file: File,
}

impl Rejects {
    /// Creates the file before any message is sent. Refuses an existing file.
    pub(super) fn create(path: PathBuf) -> Result<Self, Failure> {
        match File::create_new(&path) {
            Ok(file) => Ok(Self { path, file }),
            Err(error) => Err(Self::failed(&path, &error)),
        }
    }

    /// Writes the lines with these numbers. Without refused lines the file is removed.
    pub(super) fn write(
        mut self,
        head: &str,
        lines: lines::Lines<'_>,
        numbers: &HashSet<u64>,
    ) -> Result<(), Failure> {
        if numbers.is_empty() {
            return self.discard();
        }
        let refused = lines.filter(|line| numbers.contains(&line.number));
        let mut text = head.to_owned();
        for line in refused {
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(line.text);
        }
        text.push('\n');
        let written = self.file.write_all(text.as_bytes());
        written.map_err(|error| Self::failed(&self.path, &error))
    }

    /// Removes the file, so that the next run can create it.
    pub(super) fn discard(self) -> Result<(), Failure> {
        std::fs::remove_file(&self.path).map_err(|error| Self::failed(&self.path, &error))
    }

    fn failed(path: &Path, error: &io::Error) -> Failure {
        let shown = path.display();
        let words = format!(
            "cannot write the refused lines to {shown} ({error}): name a new file with --rejects"
        );
        Failure::new("usage", words)
    }
}
