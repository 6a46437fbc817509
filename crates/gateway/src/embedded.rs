//! The file of an embedded database: its path, its existence, and the lock that allows one gateway only.

use std::{
    fs::{File, OpenOptions, Permissions, TryLockError},
    io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use crate::{
    config::Mode,
    failure::Failure,
    master_key::{database_file, make_folder},
    settings::Settings,
};

const SQLITE: &str = "sqlite://";

/// The absolute form of a path.
pub(crate) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// The URL of a database, with an absolute path if the database is a file.
pub(crate) fn absolute_url(url: &str) -> String {
    match url.strip_prefix(SQLITE) {
        Some(path) if !path.starts_with('/') && !path.starts_with(':') => {
            format!("{SQLITE}{}", absolute(Path::new(path)).display())
        }
        _ => url.to_owned(),
    }
}

/// Refuses to continue if the database file is missing: a short command in the wrong folder would create a database
/// that stays unused.
pub(crate) fn must_exist(settings: &Settings) -> Result<(), Failure> {
    let file = database_file(&settings.database_url);
    if settings.mode != Mode::Embedded || file.exists() {
        return Ok(());
    }
    Err(Failure::new(
        "no_database",
        format!(
            "there is no database at {}: go to the folder of the database, or set WXGATE_DATABASE_URL=sqlite:///FOLDER/wxgate.db; `wxgate migrate up` and the first `wxgate serve` make a new database",
            absolute(&file).display()
        ),
    ))
}

/// The exclusive lock of the one gateway on an embedded database. The system releases the lock with the end of the
/// process, also after a crash.
#[derive(Debug)]
pub(crate) struct InstanceLock {
    _lock: Option<File>,
}

impl InstanceLock {
    /// Takes the lock. In production mode there is no lock: replicas coordinate through Redis.
    pub(crate) fn on(settings: &Settings) -> Result<Self, Failure> {
        if settings.mode != Mode::Embedded {
            return Ok(Self { _lock: None });
        }
        make_folder(&settings.database_url)?;
        let file = database_file(&settings.database_url);
        // Two paths of the same file are the same database.
        let file = file.canonicalize().unwrap_or_else(|_| absolute(&file));
        let path = beside(&file);
        let opened = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path);
        let lock = opened.map_err(|error| cannot(&path, &error))?;
        // A user that can open the lock file could take the lock. The call fails for a file of another user, and then
        // the lock below decides.
        let _ = lock.set_permissions(Permissions::from_mode(0o600));
        match lock.try_lock() {
            Ok(()) => Ok(Self { _lock: Some(lock) }),
            Err(TryLockError::WouldBlock) => Err(Failure::new(
                "database_in_use",
                format!(
                    "another wxgate runs on this database ({}): stop that one, or set another WXGATE_DATABASE_URL for this one",
                    file.display()
                ),
            )),
            // Some network file systems have no locks.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                tracing::warn!(file = %path.display(), "this file system cannot lock files: make sure that only one gateway runs on this database");
                Ok(Self { _lock: None })
            }
            Err(TryLockError::Error(error)) => Err(cannot(&path, &error)),
        }
    }
}

fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".lock");
    PathBuf::from(name)
}

fn cannot(path: &Path, error: &io::Error) -> Failure {
    Failure::new(
        "settings",
        format!(
            "cannot lock {} ({error}): choose a writable folder with WXGATE_DATABASE_URL=sqlite://FOLDER/wxgate.db",
            path.display()
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_from_everywhere_and_a_server_as_it_is() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(
            absolute_url("sqlite://wxgate-data/wxgate.db"),
            format!("sqlite://{}/wxgate-data/wxgate.db", here.display())
        );
        for as_it_is in ["sqlite:///var/wxgate.db", "postgres://db/wxgate"] {
            assert_eq!(absolute_url(as_it_is), as_it_is);
        }
    }
}
