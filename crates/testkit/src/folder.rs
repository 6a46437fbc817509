//! A temporary folder that goes with the test process, even when nothing is dropped.

use std::{
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// Waits for the end of its standard input, then removes the folder; a server that is still going down may put
/// files into it for a moment.
const REMOVE: &str =
    r#"read -r _; for _ in 1 2 3 4 5; do rm -rf "$0" 2>/dev/null && exit; sleep 0.2; done"#;

/// A folder of one's own. Removed when dropped; and since statics are never dropped and test processes get killed,
/// by a small process that sees the test process end.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// Its standard input is a pipe that this process alone holds.
    remover: Child,
}

impl Folder {
    /// Makes an empty folder that begins with `prefix`.
    pub(crate) fn new(prefix: &str) -> Self {
        let path = match tempfile::Builder::new().prefix(prefix).tempdir() {
            Ok(folder) => folder.keep(),
            Err(error) => panic!("cannot make a temporary folder: {error}"),
        };
        let mut remover = Command::new("sh");
        remover.args(["-c", REMOVE]).arg(&path).process_group(0);
        let piped = remover
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match piped {
            Ok(remover) => Self { path, remover },
            Err(error) => panic!("cannot run sh: {error}"),
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(self.remover.stdin.take());
        let _ = self.remover.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_with_its_guard() {
        let folder = Folder::new("wxgate-folder-");
        let path = folder.path().to_owned();
        std::fs::write(path.join("file"), "x").unwrap();
        drop(folder);
        assert!(!path.exists());
    }
}
