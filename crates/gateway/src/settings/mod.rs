//! Settings: from a TOML file, over it the environment, over both the flags. Read once, checked once.
//!
//! To add a setting: its line in `keys`, its flag in [`Flags`], its field and its check here.

mod filter;
mod flags;
mod keys;
mod layers;
mod values;

use std::{
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use delivery::Retention;
use reqwest::header::HeaderValue;
use serde::Serialize;

pub use flags::Flags;
pub use layers::Source;

use self::{keys::KEYS, layers::Layers};
use crate::{config::Mode, proxies::TrustedProxies};

/// Why the settings cannot be used, as a sentence that says how to fix it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(String);

impl SettingsError {
    pub(crate) fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines, one object a line.
    Json,
}

/// Everything that can be set, checked.
#[derive(Debug)]
pub struct Settings {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The database.
    pub database_url: String,
    /// What follows from the two URLs.
    pub mode: Mode,
    /// The certificates that the one of Redis is to be signed by, in PEM; none: those that the system trusts.
    pub(crate) redis_ca: Option<Vec<u8>>,
    /// The master key itself, base64.
    pub(crate) master_key: Option<String>,
    /// The file with the master key.
    pub(crate) master_key_file: Option<PathBuf>,
    /// The master key that is exchanged for another, base64.
    pub(crate) master_key_previous: Option<String>,
    /// The file with that key.
    pub(crate) master_key_previous_file: Option<PathBuf>,
    /// Where WeChat is.
    pub wechat_base_url: String,
    /// The longest that one call of WeChat may take.
    pub wechat_timeout: Duration,
    /// Where the world reaches the gateway.
    pub public_url: Option<String>,
    /// The proxies that are believed when they say whom they speak for.
    pub trusted_proxies: TrustedProxies,
    /// Origins whose web pages may call the API.
    pub cors_origins: Vec<HeaderValue>,
    /// Connections at the same time.
    pub max_connections: usize,
    /// Sends under way at the same time.
    pub sending_slots: usize,
    /// How long a stop takes at most.
    pub shutdown_timeout: Duration,
    /// How long of that connections are still accepted.
    pub shutdown_grace: Duration,
    /// How long messages are kept after they have ended.
    pub retention: Retention,
    /// Whether webhooks may be in private networks, also without https.
    pub allow_private_webhooks: bool,
    /// Whether a crash may write the memory of the process into a file.
    pub core_dumps: bool,
    /// What to log: `info`, or directives such as `warn,wxgate_broker=debug`.
    pub log: String,
    /// Whether somebody set `log`.
    pub log_is_set: bool,
    /// How to log it.
    pub log_format: LogFormat,
    /// The collector that takes traces.
    pub otlp_endpoint: Option<String>,
    /// What does not stop the program but should be seen.
    pub warnings: Vec<String>,
    /// All of it, as it may be shown.
    shown: Vec<Shown>,
}

/// One setting as `wxgate config` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// Its name.
    pub name: &'static str,
    /// Its value, with secrets masked; none: not set.
    pub value: Option<String>,
    /// Where it came from.
    pub source: String,
}

impl Settings {
    /// Reads the settings of this process.
    pub fn read(file: Option<&Path>, flags: &Flags) -> Result<Self, SettingsError> {
        Self::from_layers(file, std::env::vars_os(), flags)
    }

    /// Reads the settings from these places.
    pub(crate) fn from_layers(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        flags: &Flags,
    ) -> Result<Self, SettingsError> {
        let layers = Layers::read(file, environment, flags.values())?;
        let text = |name| layers.get(name).unwrap_or_default().to_owned();
        let mode = Mode::of(&text("database_url"), layers.get("redis_url"))
            .map_err(|error| SettingsError::new(error.to_string()))?;
        let (master_key, master_key_file) =
            values::master_key(&layers, "master_key", "master_key_file")?;
        let (master_key_previous, master_key_previous_file) =
            values::master_key(&layers, "master_key_previous", "master_key_previous_file")?;
        let shutdown_timeout = values::seconds(&layers, "shutdown_timeout", 1..=600)?;
        let mut warnings = layers.warnings.clone();
        warnings.extend(values::wechat_warning(&text("wechat_base_url")));
        Ok(Self {
            listen: values::address(&layers, "listen")?,
            shutdown_grace: values::grace(&layers, "shutdown_grace", &mode, shutdown_timeout)?,
            mode,
            redis_ca: values::redis_ca(&layers, "redis_ca_file")?,
            master_key,
            master_key_file,
            master_key_previous,
            master_key_previous_file,
            wechat_base_url: values::url(&layers, "wechat_base_url")?.unwrap_or_default(),
            wechat_timeout: values::seconds(&layers, "wechat_timeout", 1..=60)?,
            public_url: values::root_url(&layers, "public_url")?,
            trusted_proxies: values::proxies(&layers, "trusted_proxies")?,
            cors_origins: values::origins(&layers, "cors_origins")?,
            max_connections: values::number(&layers, "max_connections", 1..=1_000_000)?,
            sending_slots: values::number(&layers, "sending_slots", 1..=10_000)?,
            shutdown_timeout,
            retention: values::retention(&layers)?,
            allow_private_webhooks: values::switch(&layers, "allow_private_webhooks")?,
            core_dumps: values::switch(&layers, "core_dumps")?,
            log: values::log(&layers, "log")?,
            log_is_set: layers.source("log") != Source::Default,
            log_format: values::log_format(&layers, "log_format")?,
            otlp_endpoint: values::url(&layers, "otlp_endpoint")?,
            warnings,
            shown: show(&layers),
            database_url: text("database_url"),
        })
    }

    /// All settings with where they came from; secrets are masked.
    pub fn shown(&self) -> &[Shown] {
        &self.shown
    }
}

fn show(layers: &Layers) -> Vec<Shown> {
    let one = |key: &keys::Key| {
        let value = layers
            .get(key.name)
            .map(|value| keys::mask(key.shown, value));
        Shown {
            name: key.name,
            value,
            source: layers.source(key.name).to_string(),
        }
    };
    KEYS.iter().map(one).collect()
}

#[cfg(test)]
mod tests;
