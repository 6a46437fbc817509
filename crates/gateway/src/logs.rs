//! Log lines, to standard error.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt};

use crate::{
    failure::Failure,
    settings::{LogFormat, Settings},
};

/// Starts logging. A command that ends by itself is `quiet`: unless somebody asked for more, it only warns.
pub(crate) fn start(settings: &Settings, quiet: bool) -> Result<(), Failure> {
    let directives = if quiet && !settings.log_is_set {
        "warn"
    } else {
        &settings.log
    };
    // PostgreSQL's notices are for those who write SQL; whoever wants them names `sqlx` in the setting.
    let filter = EnvFilter::try_new(format!("sqlx=warn,{directives}"))
        .map_err(|error| Failure::new("settings", format!("WXGATE_LOG: {error}")))?;
    let lines = fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let started = match settings.log_format {
        LogFormat::Json => lines.json().try_init(),
        LogFormat::Text => lines.try_init(),
    };
    started.map_err(|error| Failure::new("internal", format!("logging cannot start: {error}")))?;
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    Ok(())
}
