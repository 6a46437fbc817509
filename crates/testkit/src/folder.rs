//! A temporary folder that is removed when the test process ends, also where no destructor runs.

use std::{
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// A shell script that waits for the end of its standard input and then removes the folder. The script tries five times,
/// because a server that is shutting down may still write files into the folder.
const REMOVE: &str =
    r#"read -r _; for _ in 1 2 3 4 5; do rm -rf "$0" 2>/dev/null && exit; sleep 0.2; done"#;

/// A private temporary folder. A drop removes the folder. Statics are never dropped and test processes get killed, so a
/// small child process notices the end of the test process and removes the folder.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// The child process that removes the folder. Only this process holds the other end of the child's standard input.
    remover: Child,
}

impl Folder {
    /// Makes an empty folder with a name that begins with `prefix`.
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

    /// The path of the folder.
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
