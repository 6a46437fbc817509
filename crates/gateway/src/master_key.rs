//! The master key: given by a setting, or, in embedded mode, created once and kept beside the database.

use std::{
    fs::{DirBuilder, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use domain::seal::MasterKey;
use store::Store;

use crate::{config::Mode, failure::Failure, settings::Settings};

const FILE: &str = "master.key";

/// The master key of these settings, which also opens secrets of the previous key if one is set. In embedded mode a
/// missing key is created.
pub(crate) async fn obtain(settings: &Settings) -> Result<MasterKey, Failure> {
    let Settings {
        master_key_previous: text,
        master_key_previous_file: file,
        ..
    } = settings;
    let key = obtain_own(settings).await?;
    Ok(
        match given(
            text.as_deref(),
            file.as_deref(),
            "WXGATE_MASTER_KEY_PREVIOUS",
        )? {
            Some(previous) => key.with_secondary(&previous),
            None => key,
        },
    )
}

/// The key that a setting gives as text or in a file.
fn given(
    text: Option<&str>,
    file: Option<&Path>,
    variable: &str,
) -> Result<Option<MasterKey>, Failure> {
    if let Some(text) = text {
        let key = MasterKey::from_base64(text);
        return key
            .map(Some)
            .map_err(|error| failure(format!("{variable} is not usable: {error}")));
    }
    let Some(path) = file else { return Ok(None) };
    // A file that other users can read is accepted here: container platforms mount secrets in this way.
    let missing = || {
        let shown = path.display();
        failure(format!(
            "the master key file {shown} does not exist: check {variable}_FILE"
        ))
    };
    read(path)?.ok_or_else(missing).map(Some)
}

async fn obtain_own(settings: &Settings) -> Result<MasterKey, Failure> {
    let (text, file) = (&settings.master_key, &settings.master_key_file);
    if let Some(key) = given(text.as_deref(), file.as_deref(), "WXGATE_MASTER_KEY")? {
        return Ok(key);
    }
    match &settings.mode {
        Mode::Production { .. } => Err(failure(
            "PostgreSQL needs a master key, the same on all replicas: make a key with `openssl rand -base64 32`, store the key in a safe place, and set WXGATE_MASTER_KEY or WXGATE_MASTER_KEY_FILE",
        )),
        Mode::Embedded => beside(&settings.database_url).await,
    }
}

/// The master key of these settings. Creates no key. `None`: the first start will create the key.
pub(crate) async fn find(settings: &Settings) -> Result<Option<MasterKey>, Failure> {
    let is_given = settings.master_key.is_some() || settings.master_key_file.is_some();
    let will_be_made = settings.mode == Mode::Embedded && !is_given;
    let file = folder(&settings.database_url).join(FILE);
    if will_be_made && !file.exists() && !seals_something(&settings.database_url).await {
        return Ok(None);
    }
    obtain(settings).await.map(Some)
}

/// The folder of a SQLite database.
pub(crate) fn folder(database_url: &str) -> PathBuf {
    let folder = database_file(database_url)
        .parent()
        .map(Path::to_owned)
        .unwrap_or_default();
    if folder.as_os_str().is_empty() {
        PathBuf::from(".")
    } else {
        folder
    }
}

/// Creates the folder of a SQLite database, accessible for its owner alone.
pub(crate) fn make_folder(database_url: &str) -> Result<PathBuf, Failure> {
    let folder = folder(database_url);
    let made = DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder);
    made.map_err(|error| {
        Failure::new(
            "settings",
            format!("cannot make the folder {} ({error}): choose a writable folder with WXGATE_DATABASE_URL=sqlite://FOLDER/wxgate.db", folder.display()),
        )
    })?;
    Ok(folder)
}

/// Writes `text` into a new file that only its owner can read. Never replaces an existing file.
pub(crate) fn create_private(path: &Path, text: &str) -> io::Result<()> {
    // Writes a temporary file and links the file to its final path: no reader sees a partial file, and a link replaces
    // no file.
    let aside = path.with_extension(format!("{:08x}.tmp", rand::random::<u32>()));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&aside)?;
    let linked = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| std::fs::hard_link(&aside, path));
    std::fs::remove_file(&aside)?;
    linked
}

/// The file of a SQLite database.
pub(crate) fn database_file(database_url: &str) -> PathBuf {
    let file = database_url
        .strip_prefix("sqlite://")
        .unwrap_or(database_url);
    PathBuf::from(file.split('?').next().unwrap_or_default())
}

async fn beside(database_url: &str) -> Result<MasterKey, Failure> {
    let path = folder(database_url).join(FILE);
    check_private(&path)?;
    if let Some(key) = read(&path)? {
        return Ok(key);
    }
    if seals_something(database_url).await {
        return Err(failure(format!(
            "the database has secrets, but the file {} of its master key is missing: restore the file from a backup, or set WXGATE_MASTER_KEY to the key",
            path.display()
        )));
    }
    make_folder(database_url)?;
    let key = MasterKey::from_bytes(rand::random());
    match create_private(&path, &format!("{}\n", key.to_base64().as_str())) {
        Ok(()) => {
            tracing::info!(file = %path.display(), "made a master key: keep a copy of the key apart from the database");
            Ok(key)
        }
        // Another process that started at the same moment has created the file first.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            read(&path)?.ok_or_else(|| {
                failure("another process deleted the master key file: start the command again")
            })
        }
        Err(error) => Err(failure(format!(
            "cannot write the master key to {} ({error}): choose a writable folder with WXGATE_DATABASE_URL=sqlite://FOLDER/wxgate.db",
            path.display()
        ))),
    }
}

/// Whether the database already has secrets under a master key, which a new key could not open.
async fn seals_something(database_url: &str) -> bool {
    if !database_file(database_url).exists() {
        return false;
    }
    let Ok(store) = Store::connect(database_url).await else {
        return false;
    };
    let used = store.platform().newest_signing_key().await.is_ok();
    if let Err(error) = store.close().await {
        tracing::debug!(%error, "the database did not close cleanly");
    }
    used
}

/// The key in a file. `None`: the file does not exist.
fn read(path: &Path) -> Result<Option<MasterKey>, Failure> {
    let shown = path.display();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(None);
        }
        Err(error) => {
            return Err(failure(format!(
                "cannot read the master key file {shown} ({error}): check its permissions"
            )));
        }
    };
    let key = MasterKey::from_base64(&text).map_err(|error| {
        failure(format!(
            "the master key file {shown} is not usable: {error}"
        ))
    })?;
    Ok(Some(key))
}

/// Whether only the owner can read the file, and no user can execute the file.
pub(crate) fn is_private(path: &Path) -> bool {
    let mode = std::fs::metadata(path).map(|metadata| metadata.permissions().mode() & 0o777);
    matches!(mode, Ok(0o600 | 0o400))
}

/// Refuses a file that other users than its owner can access.
fn check_private(path: &Path) -> Result<(), Failure> {
    let open =
        std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0);
    if open {
        let shown = path.display();
        return Err(failure(format!(
            "other users can read the master key file {shown}: run `chmod 600 {shown}`"
        )));
    }
    Ok(())
}

fn failure(message: impl Into<String>) -> Failure {
    Failure::new("master_key", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Flags;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        let pairs = pairs
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()));
        Settings::from_layers(None, pairs, &Flags::default()).unwrap()
    }

    fn embedded(folder: &Path) -> Settings {
        settings(&[(
            "WXGATE_DATABASE_URL",
            &format!("sqlite://{}/data/wxgate.db", folder.display()),
        )])
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn the_embedded_key_is_made_once_and_only_for_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let settings = embedded(folder.path());
        let first = obtain(&settings).await.unwrap();
        let path = folder.path().join("data/master.key");
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert_eq!(obtain(&settings).await.unwrap().id(), first.id());
        let left: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[tokio::test]
    async fn a_key_that_others_can_read_is_refused_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let settings = embedded(folder.path());
        obtain(&settings).await.unwrap();
        let path = folder.path().join("data/master.key");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let refused = obtain(&settings).await.unwrap_err();
        assert!(
            refused
                .message
                .contains(&format!("chmod 600 {}", path.display())),
            "{refused}"
        );
    }

    #[tokio::test]
    async fn a_used_database_gets_no_second_key() {
        let folder = tempfile::tempdir().unwrap();
        let settings = embedded(folder.path());
        let key = obtain(&settings).await.unwrap();
        let store = Store::connect(&settings.database_url).await.unwrap();
        store.migrate_up().await.unwrap();
        let coord = coord::Coord::in_process(coord::Clock::system());
        tenancy::Tenancy::start(
            store.clone(),
            coord,
            key,
            tenancy::TenancyOptions::at("http://x"),
        )
        .await
        .unwrap();
        store.close().await.unwrap();
        std::fs::remove_file(folder.path().join("data/master.key")).unwrap();
        let refused = obtain(&settings).await.unwrap_err();
        assert!(refused.message.contains("backup"), "{refused}");
    }

    #[tokio::test]
    async fn postgres_asks_for_a_key_and_shows_how_to_make_one() {
        let base = [
            ("WXGATE_DATABASE_URL", "postgres://db/wxgate"),
            ("WXGATE_REDIS_URL", "redis://cache"),
        ];
        let refused = obtain(&settings(&base)).await.unwrap_err();
        assert!(
            refused.message.contains("openssl rand -base64 32"),
            "{refused}"
        );
        let text = MasterKey::from_bytes([7; 32]).to_base64();
        let given = [base[0], base[1], ("WXGATE_MASTER_KEY", text.as_str())];
        assert_eq!(
            obtain(&settings(&given)).await.unwrap().id(),
            MasterKey::from_bytes([7; 32]).id()
        );
        let wrong = [base[0], base[1], ("WXGATE_MASTER_KEY", "c2hvcnQ=")];
        assert!(
            obtain(&settings(&wrong))
                .await
                .unwrap_err()
                .message
                .contains("WXGATE_MASTER_KEY")
        );
    }

    #[test]
    fn a_private_file_is_never_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        create_private(&path, "one").unwrap();
        assert_eq!(
            create_private(&path, "two").unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        assert_eq!(
            (
                std::fs::read_to_string(&path).unwrap().as_str(),
                mode(&path)
            ),
            ("one", 0o600)
        );
    }
}
