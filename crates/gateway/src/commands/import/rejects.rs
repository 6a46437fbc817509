//! The file with the lines that are refused.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::lines;
use crate::failure::Failure;

/// The file for the lines that are refused.
pub(super) struct Rejects {
    path: PathBuf,
    file: File,
}

impl Rejects {
    /// Makes it, before anything is sent; over no file that is there.
    pub(super) fn create(path: PathBuf) -> Result<Self, Failure> {
        match File::create_new(&path) {
            Ok(file) => Ok(Self { path, file }),
            Err(error) => Err(Self::failed(&path, &error)),
        }
    }

    /// Puts the lines with these numbers into it. Without any there is no such file.
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

    /// Takes it back, for a next run to make it.
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
