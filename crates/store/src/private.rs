//! Makes the files of an embedded database accessible to the owner alone, independently of the umask.

use std::{
    fs::{DirBuilder, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// The permissions of the owner alone, for a folder and for a file.
const FOLDER: u32 = 0o700;
const FILE: u32 = 0o600;
/// The permissions of all other users, and the write permission among these.
const OTHERS: u32 = 0o077;
const WRITE: u32 = 0o022;

/// Creates the folder and the file where missing, and removes the permissions of other users from existing files. SQLite
/// gives the log (`-wal`) and the index (`-shm`) the permissions of the database file.
pub(crate) fn prepare(file: &Path) -> io::Result<()> {
    if let Some(folder) = file
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        DirBuilder::new()
            .recursive(true)
            .mode(FOLDER)
            .create(folder)?;
        if rights(folder) & WRITE != 0 {
            tracing::warn!(
                folder = %folder.display(),
                "other users can put files into the folder of the database: run `chmod 700` on the folder, or choose another folder with WXGATE_DATABASE_URL"
            );
        }
    }
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(FILE)
        .open(file);
    match made {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    for name in ["", "-wal", "-shm"] {
        tighten(&beside(file, name));
    }
    Ok(())
}

/// Removes the permissions of other users from an existing file.
fn tighten(file: &Path) {
    if rights(file) & OTHERS == 0 {
        return;
    }
    match std::fs::set_permissions(file, Permissions::from_mode(FILE)) {
        Ok(()) => {
            tracing::warn!(file = %file.display(), "other users could open a file of the database: now only its owner can");
        }
        Err(error) => {
            tracing::warn!(%error, file = %file.display(), "other users can open a file of the database: run `chmod 600` on the file as its owner");
        }
    }
}

fn rights(path: &Path) -> u32 {
    path.metadata()
        .map_or(0, |found| found.permissions().mode())
}

fn beside(file: &Path, name: &str) -> PathBuf {
    let mut path = file.as_os_str().to_owned();
    path.push(name);
    path.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_is_private_and_what_is_there_becomes_so() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("data/new/wxgate.db");
        prepare(&file).unwrap();
        assert_eq!(rights(&file) & 0o777, 0o600);
        assert_eq!(rights(file.parent().unwrap()) & 0o777, 0o700);
        std::fs::write(&file, "kept").unwrap();
        std::fs::write(beside(&file, "-wal"), "kept").unwrap();
        for name in ["", "-wal"] {
            std::fs::set_permissions(beside(&file, name), Permissions::from_mode(0o666)).unwrap();
        }
        prepare(&file).unwrap();
        for name in ["", "-wal"] {
            let file = beside(&file, name);
            assert_eq!(rights(&file) & 0o777, 0o600, "{name}");
            assert_eq!(std::fs::read_to_string(file).unwrap(), "kept");
        }
    }
}
