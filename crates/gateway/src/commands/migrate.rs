//! `wxgate migrate`.

use clap::Subcommand;
use domain::seal::MasterKey;
use serde_json::json;
use store::MigrationState;

use super::consent::Consent;
use crate::{
    config::{ClientTimeouts, Config, Mode},
    embedded,
    failure::Failure,
    master_key,
    output::{Output, table},
    replica,
    settings::Settings,
};

/// The subcommands of `wxgate migrate`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Apply all pending migrations
    Up,
    /// Revert the last migration: its data is lost
    Down(Consent),
    /// List all migrations and their states
    Status,
}

/// Runs the subcommand, and prints the resulting state of the schema.
pub(crate) async fn run(
    settings: &Settings,
    output: Output,
    command: &Command,
) -> Result<(), Failure> {
    match command {
        Command::Up if settings.mode == Mode::Embedded => {
            master_key::make_folder(&settings.database_url)?;
        }
        Command::Up => {}
        Command::Down(_) | Command::Status => embedded::must_exist(settings)?,
    }
    let store = match command {
        Command::Up => replica::open_store(&schema_only(settings)).await?,
        Command::Down(_) | Command::Status => replica::open(&settings.database_url).await?,
    };
    if let Command::Down(consent) = command {
        let states = store.migrations().await?;
        let last = states.iter().rfind(|state| state.applied);
        let name = last.map_or("no migration", |state| state.name.as_str());
        consent.to(&format!(
            "`wxgate migrate down` reverts the migration {name} and deletes the data in its tables and columns"
        ))?;
        store.migrate_down().await?;
    }
    let states = store.migrations().await?;
    store.close().await?;
    tell(output, &states)
}

/// A configuration that can only open the database. The schema holds no secrets, so the master key is a dummy.
fn schema_only(settings: &Settings) -> Config {
    Config {
        listen: settings.listen,
        database_url: settings.database_url.clone(),
        mode: settings.mode.clone(),
        redis_ca: settings.redis_ca.clone(),
        master_key: MasterKey::from_bytes([0; 32]),
        wechat_base_url: settings.wechat_base_url.clone(),
        wechat_timeout: settings.wechat_timeout,
        public_url: None,
        sending_slots: settings.sending_slots,
        shutdown_timeout: settings.shutdown_timeout,
        shutdown_grace: settings.shutdown_grace,
        retention: settings.retention,
        trusted_proxies: settings.trusted_proxies.clone(),
        cors_origins: settings.cors_origins.clone(),
        max_connections: settings.max_connections,
        patience: ClientTimeouts::default(),
        allow_private_webhooks: settings.allow_private_webhooks,
        traced: settings.otlp_endpoint.is_some(),
        migrate: true,
    }
}

fn tell(output: Output, states: &[MigrationState]) -> Result<(), Failure> {
    let values: Vec<_> = states
        .iter()
        .map(|state| json!({"name": state.name, "applied": state.applied, "known": state.known}))
        .collect();
    output.result(&json!({"data": values}), || {
        let word = |state: &MigrationState| match (state.applied, state.known) {
            (_, false) => "applied by a newer wxgate",
            (true, true) => "applied",
            (false, true) => "pending",
        };
        let rows: Vec<_> = states
            .iter()
            .map(|state| vec![state.name.clone(), word(state).to_owned()])
            .collect();
        table(&["migration", "state"], &rows)
    })
}
