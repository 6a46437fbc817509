//! `wxgate serve`.

use clap::Args;
use coord::Clock;
use serde_json::json;

use super::{Signals, configure};
use crate::{
    embedded::InstanceLock,
    failure::Failure,
    gateway::{self, Gateway},
    output::Output,
    settings::{LogFormat, Settings},
};

/// The arguments of `wxgate serve`.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Do not apply pending migrations; refuse to start if there are any
    #[arg(long)]
    no_migrate: bool,
}

/// Runs the gateway until the process is stopped.
pub(crate) async fn run(
    settings: &Settings,
    output: Output,
    arguments: &Arguments,
) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    gateway::check_address(settings.listen)?;
    let _alone = InstanceLock::on(settings)?;
    let config = configure(settings, !arguments.no_migrate).await?;
    let mode = config.mode.as_str();
    let gateway = tokio::select! {
        started = Gateway::start(config, Clock::system()) => started?,
        () = signals.stop() => return Ok(()),
    };
    let (address, url) = (gateway.address(), gateway.base_url());
    // The log contains the same fact. A reader of the JSON log may read standard output in the same stream, so text is
    // not printed there.
    if settings.log_format == LogFormat::Text || !output.is_for_people() {
        output.result(
            &json!({"address": address, "base_url": url, "mode": mode}),
            || format!("wxgate listens on {address}, {mode} mode: {url}"),
        )?;
    }
    signals.stop().await;
    tracing::info!("stopping; a second Ctrl-C ends the gateway at once");
    if signals.finish(gateway.stop()).await {
        return Ok(());
    }
    Err(Failure::new(
        "shutdown_timeout",
        "some tasks were not finished in time; no message is lost: another replica or the next start continues when the leases of unfinished sends end. Raise WXGATE_SHUTDOWN_TIMEOUT for more time",
    ))
}
