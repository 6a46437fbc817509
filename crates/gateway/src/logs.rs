//! Log lines, to standard error; and beside them traces, to a collector where one is set.

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

/// How much a command says where nobody has set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Voice {
    /// As much as the setting's default: it runs until it is stopped.
    Full,
    /// Warnings: it ends by itself.
    Quiet,
    /// Nothing: it ends by itself, and a program reads its failure from standard error.
    Mute,
}

/// Starts logging.
pub(crate) fn start(
    settings: &Settings,
    voice: Voice,
    runtime: &Handle,
) -> Result<Option<Traces>, Failure> {
    // PostgreSQL's notices are for those who write SQL; whoever wants them names `sqlx` in the setting. The pool has a line
    // for every try to connect; `store` says why it refuses a server.
    let directives = match voice {
        // What WeChat refuses is the failure of the command, which says it once.
        Voice::Quiet if !settings.log_is_set => {
            "warn,wxgate_broker=error,wxgate_delivery=error,wxgate_wechat=error".to_owned()
        }
        Voice::Mute if !settings.log_is_set => "off".to_owned(),
        _ => format!("sqlx=warn,sqlx_core::pool::inner=off,{}", settings.log),
    };
    let filter = EnvFilter::try_new(directives)
        .map_err(|error| Failure::new("settings", format!("WXGATE_LOG: {error}")))?;
    let lines = fmt::layer()
        .with_writer(std::io::stderr)
        // Where nothing can be written, as to a terminal that was closed, there is nobody to say that to.
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
            .with_filter(filter_fn(traces::is_told).with_max_level_hint(LevelFilter::DEBUG))
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
