//! `wxgate signing-key`.

use api::views::{Page, Timestamp};
use clap::Subcommand;
use serde_json::{Value, json};
use tenancy::SigningKey;

use super::CommandContext;
use crate::{
    failure::Failure,
    output::{Output, table},
    settings::Settings,
};

/// The subcommands of `wxgate signing-key`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create a new signing key. The key is published at once and signs ten minutes later. All issued tokens remain
    /// valid
    Rotate {
        /// For stolen keys: refuse every token that the old keys signed, on all replicas within 5 seconds. The new key
        /// signs at once, and clients must fetch new tokens
        #[arg(long)]
        revoke_old: bool,
    },
    /// List the keys that sign or verify
    List,
}

/// Runs the subcommand.
pub(crate) async fn run(
    settings: &Settings,
    output: Output,
    command: &Command,
) -> Result<(), Failure> {
    let context = CommandContext::open(settings).await?;
    match command {
        Command::Rotate { revoke_old } => {
            let key = if *revoke_old {
                context.tenancy.replace_signing_keys().await?
            } else {
                context.tenancy.rotate_signing_key().await?
            };
            context.close().await;
            output.result(&value(&key), || {
                format!(
                    "{} signs access tokens from {} on",
                    key.kid,
                    Timestamp(key.signs_from)
                )
            })
        }
        Command::List => {
            let keys = context.tenancy.signing_keys().await?;
            context.close().await;
            let rows: Vec<_> = keys.iter().map(row).collect();
            output.result(&Page::all(keys.iter().map(value).collect()), || {
                table(&["kid", "created", "signs from", "verifies until"], &rows)
            })
        }
    }
}

fn value(key: &SigningKey) -> Value {
    json!({
        "kid": key.kid,
        "created_at": Timestamp(key.created_at),
        "signs_from": Timestamp(key.signs_from),
        "verifies_until": key.retired_at.map(Timestamp),
    })
}

fn row(key: &SigningKey) -> Vec<String> {
    let until = key.retired_at.map(|at| Timestamp(at).to_string());
    vec![
        key.kid.clone(),
        Timestamp(key.created_at).to_string(),
        Timestamp(key.signs_from).to_string(),
        until.unwrap_or_else(|| "the key has no successor".to_owned()),
    ]
}
