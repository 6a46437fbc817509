//! `wxgate master-key`.

use clap::Subcommand;
use domain::seal::MasterKeyId;
use serde_json::{Map, Value, json};
use tenancy::Resealed;

use super::CommandContext;
use crate::{
    failure::Failure,
    output::{Output, card},
    settings::Settings,
};

/// The subcommands of `wxgate master-key`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Encrypt all secrets with `WXGATE_MASTER_KEY` that are encrypted with `WXGATE_MASTER_KEY_PREVIOUS`. After an
    /// interruption, a second run continues at the same place
    Rotate,
}

/// Runs the subcommand.
pub(crate) async fn run(
    settings: &Settings,
    output: Output,
    command: &Command,
) -> Result<(), Failure> {
    let Command::Rotate = command;
    let context = CommandContext::open(settings).await?;
    let done = rotate(&context).await;
    context.close().await;
    tell(output, &done?)
}

/// The result of a rotation.
struct Rotated {
    key: MasterKeyId,
    previous: MasterKeyId,
    resealed: Resealed,
}

async fn rotate(context: &CommandContext) -> Result<Rotated, Failure> {
    let key = context.config.master_key.id();
    let refused = |why: String| Err(Failure::new("master_key", why));
    let Some(previous) = context.config.master_key.secondary_id() else {
        return refused(format!(
            "WXGATE_MASTER_KEY_PREVIOUS is not set, and WXGATE_MASTER_KEY is {key}: set WXGATE_MASTER_KEY to the new key and WXGATE_MASTER_KEY_PREVIOUS to the replaced key"
        ));
    };
    if previous == key {
        return refused(format!(
            "WXGATE_MASTER_KEY and WXGATE_MASTER_KEY_PREVIOUS are the same key, {key}: set WXGATE_MASTER_KEY to the new key and WXGATE_MASTER_KEY_PREVIOUS to the replaced key"
        ));
    }
    let resealed = context.tenancy.reseal().await?;
    if resealed.total() == 0 && !context.tenancy.has_resealed(previous).await? {
        return refused(format!(
            "no secret is sealed under WXGATE_MASTER_KEY_PREVIOUS ({previous}), and all secrets are sealed under WXGATE_MASTER_KEY ({key}): check whether the two keys are swapped, and set WXGATE_MASTER_KEY to the new key. Destroy neither key: {key} opens this database"
        ));
    }
    Ok(Rotated {
        key,
        previous,
        resealed,
    })
}

fn tell(output: Output, done: &Rotated) -> Result<(), Failure> {
    let Rotated {
        key,
        previous,
        resealed,
    } = done;
    let places = resealed.0.iter();
    let counts: Map<String, Value> = places
        .clone()
        .map(|(place, count)| (place.as_str().replace(' ', "_"), json!(count)))
        .collect();
    let value = json!({
        "master_key": key.to_string(), "previous_master_key": previous.to_string(),
        "resealed": resealed.total(), "places": counts,
    });
    output.result(&value, || {
        let lines: Vec<_> = places
            .map(|(place, count)| (place.as_str(), count.to_string()))
            .collect();
        let what = if resealed.total() == 0 {
            "No secret was resealed: this rotation is already complete.\n".to_owned()
        } else {
            card(&lines)
        };
        format!(
            "{what}All secrets are sealed under WXGATE_MASTER_KEY ({key}), none under WXGATE_MASTER_KEY_PREVIOUS ({previous}). When \
             every replica runs with {key} as WXGATE_MASTER_KEY, unset WXGATE_MASTER_KEY_PREVIOUS and restart all replicas.\n"
        )
    })
}
