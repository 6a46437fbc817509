//! Settings: from a TOML file, overridden by the environment, overridden by flags. Read and checked once.
//!
//! A new setting needs a line in `keys`, a flag in [`Flags`], and a field with its check here.

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

/// The reason why the settings cannot be used, as a sentence that names the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(String);

impl SettingsError {
    pub(crate) fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text for people.
    Text,
    /// JSON for machines, one object a line.
    Json,
}

/// All settings, checked.
#[derive(Debug)]
pub struct Settings {
    /// The address on which the gateway listens.
    pub listen: SocketAddr,
    /// The URL of the database.
    pub database_url: String,
    /// The mode that follows from the URLs of the database and of Redis.
    pub mode: Mode,
    /// The CA certificates for Redis, in PEM. `None`: the certificates that the system trusts.
    pub(crate) redis_ca: Option<Vec<u8>>,
    /// The master key in base64.
    pub(crate) master_key: Option<String>,
    /// The file with the master key.
    pub(crate) master_key_file: Option<PathBuf>,
    /// The previous master key in base64, during the change to a new master key.
    pub(crate) master_key_previous: Option<String>,
    /// The file with the previous master key.
    pub(crate) master_key_previous_file: Option<PathBuf>,
    /// The base URL of WeChat's API.
    pub wechat_base_url: String,
    /// The time-out of one call of WeChat's API.
    pub wechat_timeout: Duration,
    /// The public URL of the gateway.
    pub public_url: Option<String>,
    /// The proxies whose statement about the client's address the gateway trusts.
    pub trusted_proxies: TrustedProxies,
    /// The origins whose web pages may call the API.
    pub cors_origins: Vec<HeaderValue>,
    /// The largest number of simultaneous connections.
    pub max_connections: usize,
    /// The largest number of simultaneous sends.
    pub sending_slots: usize,
    /// The longest time that a stop takes.
    pub shutdown_timeout: Duration,
    /// The part of the shutdown time-out in which the gateway still accepts connections.
    pub shutdown_grace: Duration,
    /// The times for which ended messages, payloads and audit lines are kept.
    pub retention: Retention,
    /// Whether webhook URLs may lead into private networks and may use plain http.
    pub allow_private_webhooks: bool,
    /// Whether a crash may write the memory of the process into a file.
    pub core_dumps: bool,
    /// The filter for log lines: `info`, or directives such as `warn,wxgate_broker=debug`.
    pub log: String,
    /// Whether a source other than the default sets `log`.
    pub log_is_set: bool,
    /// The format of log lines.
    pub log_format: LogFormat,
    /// The URL of the collector that accepts traces.
    pub otlp_endpoint: Option<String>,
    /// Faults that do not stop the program but deserve attention.
    pub warnings: Vec<String>,
    /// All settings as they may be shown.
    shown: Vec<ShownSetting>,
}

/// One setting as `wxgate config` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShownSetting {
    /// The name of the setting.
    pub name: &'static str,
    /// The value with secrets masked. `None`: not set.
    pub value: Option<String>,
    /// The source of the value.
    pub source: String,
}

impl Settings {
    /// Reads the settings of this process.
    pub fn read(file: Option<&Path>, flags: &Flags) -> Result<Self, SettingsError> {
        Self::from_layers(file, std::env::vars_os(), flags)
    }

    /// Reads the settings from the given file, variables and flags.
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

    /// All settings with their sources. Secrets are masked.
    pub fn shown(&self) -> &[ShownSetting] {
        &self.shown
    }
}

fn show(layers: &Layers) -> Vec<ShownSetting> {
    let one = |key: &keys::Setting| {
        let value = layers
            .get(key.name)
            .map(|value| keys::mask(key.shown, value));
        ShownSetting {
            name: key.name,
            value,
            source: layers.source(key.name).to_string(),
        }
    };
    KEYS.iter().map(one).collect()
}

#[cfg(test)]
mod tests;
