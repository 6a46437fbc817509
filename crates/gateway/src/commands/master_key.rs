//! `wxgate master-key`.

use clap::Subcommand;
use serde_json::{Map, Value, json};

use super::Desk;
use crate::{
    failure::Failure,
    output::{Output, card},
    settings::Settings,
};

/// What to do with the key that seals every secret.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Seal everything anew under `WXGATE_MASTER_KEY` that is sealed under `WXGATE_MASTER_KEY_PREVIOUS`. Broken off, it
    /// goes on where it was when it is run again
    Rotate,
}

/// Does it.
pub(crate) async fn run(
    settings: &Settings,
    output: Output,
    command: &Command,
) -> Result<(), Failure> {
    let Command::Rotate = command;
    let desk = Desk::open(settings).await?;
    let key = desk.config.master_key.id();
    let resealed = desk.tenancy.reseal().await?;
    desk.close().await;
    let places = resealed.0.iter();
    let counts: Map<String, Value> = places
        .clone()
        .map(|(place, count)| (place.as_str().replace(' ', "_"), json!(count)))
        .collect();
    let value =
        json!({"master_key": key.to_string(), "resealed": resealed.total(), "places": counts});
    output.result(&value, || {
        let lines: Vec<_> = places
            .map(|(place, count)| (place.as_str(), count.to_string()))
            .collect();
        format!(
            "{}Everything is sealed under master key {key}. When every replica runs with it as WXGATE_MASTER_KEY, unset \
             WXGATE_MASTER_KEY_PREVIOUS and restart them.\n",
            card(&lines)
        )
    })
}
