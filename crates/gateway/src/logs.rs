//! Log lines to standard error, and traces to a collector if one is configured.

use std::io::IsTerminal;

use tokio::runtime::Handle;
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{LevelFilter, filter_fn},
    fmt,
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::{
    failure::Failure,
    settings::{LogFormat, Settings},
    traces::{self, Traces},
};

/// The verbosity of a command if the setting `log` is not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verbosity {
    /// As in the default of the setting: for commands that run until they are stopped.
    Full,
    /// Warnings only: for commands that end by themselves.
    Quiet,
    /// Nothing: for commands that end by themselves and whose failure a program reads from standard error.
    Mute,
}

/// Starts logging, and returns the export of traces if one is configured.
pub(crate) fn start(
    settings: &Settings,
    voice: Verbosity,
    runtime: &Handle,
) -> Result<Option<Traces>, Failure> {
    // PostgreSQL's notices are useful for authors of SQL only; the setting can name `sqlx` to show the notices. The
    // pool logs each attempt to connect, which is redundant: `store` reports why it refuses a server.
    let directives = match voice {
        // A refusal by WeChat is the failure of the command, which prints the failure once.
        Verbosity::Quiet if !settings.log_is_set => {
            "warn,wxgate_broker=error,wxgate_delivery=error,wxgate_wechat=error".to_owned()
        }
        Verbosity::Mute if !settings.log_is_set => "off".to_owned(),
        _ => format!("sqlx=warn,sqlx_core::pool::inner=off,{}", settings.log),
    };
    let filter = EnvFilter::try_new(directives)
        .map_err(|error| Failure::new("settings", format!("WXGATE_LOG: {error}")))?;
    let lines = fmt::layer()
        .with_writer(std::io::stderr)
        // A failed write, such as to a closed terminal, cannot be reported anywhere.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal());
    let lines = match settings.log_format {
        LogFormat::Json => lines.json().with_filter(filter).boxed(),
        LogFormat::Text => lines.with_filter(filter).boxed(),
    };
    let endpoint = settings.otlp_endpoint.as_deref();
    let traces = endpoint
        .map(|endpoint| Traces::to(endpoint, runtime.clone()))
        .transpose()?;
    let spans = traces.as_ref().map(|traces| {
        tracing_opentelemetry::layer()
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_tracer(traces.tracer())
            .with_filter(filter_fn(traces::is_exported).with_max_level_hint(LevelFilter::DEBUG))
    });
    tracing_subscriber::registry()
        .with(lines)
        .with(spans)
        .try_init()
        .map_err(|error| Failure::new("internal", format!("logging cannot start: {error}")))?;
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    Ok(traces)
}
