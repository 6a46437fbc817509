//! The sources of settings: file, environment, flags. A later source overrides an earlier one.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::{
    SettingsError,
    keys::{self, KEYS},
};

const PREFIX: &str = "WXGATE_";
/// Names the settings file where `--config` does not.
const CONFIG: &str = "WXGATE_CONFIG";

/// The source of a value. A later source overrides an earlier one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The default of the program.
    Default,
    /// The settings file.
    File(PathBuf),
    /// The environment.
    Environment,
    /// The command line.
    Flag,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment => f.write_str("environment"),
            Self::Flag => f.write_str("flag"),
        }
    }
}

/// The values of all sources, with warnings.
#[derive(Debug, Default)]
pub(crate) struct Layers {
    values: BTreeMap<&'static str, (String, Source)>,
    /// Faults that do not stop the program but deserve attention.
    pub(crate) warnings: Vec<String>,
}

impl Layers {
    /// Reads the three sources. `environment` holds the variables of the process.
    pub(crate) fn read(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        flags: Vec<(&'static str, String)>,
    ) -> Result<Self, SettingsError> {
        let environment = Environment::read(environment)?;
        let mut layers = Self {
            warnings: environment.warnings,
            ..Self::default()
        };
        for key in KEYS {
            layers.values.extend(
                key.default
                    .map(|value| (key.name, (value.to_owned(), Source::Default))),
            );
        }
        if let Some(path) = file.map(Path::to_owned).or(environment.config) {
            let values = read_file(&path)?;
            layers.warnings.extend(open_secrets(&path, &values));
            for (name, value) in values {
                layers
                    .values
                    .insert(name, (value, Source::File(path.clone())));
            }
        }
        for (name, value) in environment.values {
            layers.values.insert(name, (value, Source::Environment));
        }
        for (name, value) in flags {
            refuse_secret(name, &value)?;
            layers.values.insert(name, (value, Source::Flag));
        }
        for name in layers.values.keys() {
            layers.refuse_control(name)?;
        }
        Ok(layers)
    }

    /// The effective value, without the surrounding blanks and line breaks that files and shells may add.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|(value, _)| value.trim())
    }

    /// Refuses a value that contains a line break or another control character, because the shown value would differ
    /// from the real one.
    fn refuse_control(&self, name: &str) -> Result<(), SettingsError> {
        match self.get(name) {
            Some(value) if value.contains(char::is_control) => Err(SettingsError::new(format!(
                "{} has a line break or another control character: write the value on one line, without control characters",
                self.name(name)
            ))),
            _ => Ok(()),
        }
    }

    /// The source of the effective value.
    pub(crate) fn source(&self, name: &str) -> Source {
        self.values
            .get(name)
            .map_or(Source::Default, |(_, source)| source.clone())
    }

    /// The name of a setting for error messages, in the form of its source: flag, key in the file, or variable.
    pub(crate) fn name(&self, name: &str) -> String {
        match self.source(name) {
            Source::Flag => format!("--{}", name.replace('_', "-")),
            Source::File(path) => format!("`{name}` in {}", path.display()),
            Source::Default | Source::Environment => keys::variable(name),
        }
    }
}

#[derive(Default)]
struct Environment {
    values: Vec<(&'static str, String)>,
    config: Option<PathBuf>,
    warnings: Vec<String>,
}

impl Environment {
    /// Reads the variables. An empty variable counts as unset, because compose files leave a variable out in this way.
    fn read(
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, SettingsError> {
        let mut found = Self::default();
        for (variable, value) in variables {
            let Some(variable) = variable
                .to_str()
                .filter(|variable| variable.starts_with(PREFIX))
            else {
                continue;
            };
            if value.to_str().is_some_and(|value| value.trim().is_empty()) {
                continue;
            }
            if variable == CONFIG {
                found.config = Some(value.into());
                continue;
            }
            let name = variable[PREFIX.len()..].to_ascii_lowercase();
            let Some(key) = keys::find(&name).filter(|key| key.variable() == variable) else {
                found.warnings.push(format!(
                    "{variable} is not a setting and has no effect; `wxgate config` lists all settings"
                ));
                continue;
            };
            let value = value.into_string();
            let value = value.map_err(|_| {
                SettingsError::new(format!(
                    "{variable} is not UTF-8 text: set a value in UTF-8"
                ))
            })?;
            found.values.push((key.name, value));
        }
        Ok(found)
    }
}

/// Refuses a flag that contains a password.
fn refuse_secret(name: &str, value: &str) -> Result<(), SettingsError> {
    if keys::find(name).is_some_and(|key| key.hides(value)) {
        return Err(SettingsError::new(format!(
            "--{} has a password, and every user of this machine can read the arguments of a process: change the password, and set {} in the environment, or `{name}` in a settings file that only its owner can read",
            name.replace('_', "-"),
            keys::variable(name)
        )));
    }
    Ok(())
}

/// The warning about a settings file that contains secrets and that other users can read.
fn open_secrets(path: &Path, values: &[(&'static str, String)]) -> Option<String> {
    let is_secret =
        |(name, value): &(&str, String)| keys::find(name).is_some_and(|key| key.hides(value));
    let rights = path.metadata().ok()?.permissions().mode();
    (rights & 0o077 != 0 && values.iter().any(is_secret)).then(|| {
        format!(
            "other users can read the settings file {0}, which has secrets: run `chmod 600 {0}`",
            path.display()
        )
    })
}

fn read_file(path: &Path) -> Result<Vec<(&'static str, String)>, SettingsError> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| {
        SettingsError::new(format!("cannot read the settings file {shown} ({error}): name a readable file with --config or {CONFIG}"))
    })?;
    let parsed: toml::Table = text.parse().map_err(|error| {
        SettingsError::new(format!(
            "the settings file {shown} is not valid TOML: {}",
            fault(&text, &error)
        ))
    })?;
    let mut values = Vec::new();
    for (name, value) in parsed {
        let Some(key) = keys::find(&name) else {
            let known: Vec<_> = KEYS.iter().map(|key| key.name).collect();
            return Err(SettingsError::new(format!(
                "`{name}` in {shown} is not a setting: use one of {}",
                known.join(", ")
            )));
        };
        let value = match value {
            toml::Value::String(text) => text,
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Float(number) => number.to_string(),
            toml::Value::Boolean(switch) => switch.to_string(),
            _ => {
                return Err(SettingsError::new(format!(
                    "`{name}` in {shown} must be a text or a number, such as {name} = \"…\""
                )));
            }
        };
        values.push((key.name, value));
    }
    Ok(values)
}

/// The fault in a settings file and its position. The text omits the content at that position, which may be a secret.
fn fault(text: &str, error: &toml::de::Error) -> String {
    let why = error.message();
    let Some(before) = error.span().and_then(|span| text.get(..span.start)) else {
        return why.to_owned();
    };
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    format!("line {line}, column {column}: {why}")
}
