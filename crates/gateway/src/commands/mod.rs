//! The commands, one module each, with its arguments and a short `run`.

pub(crate) mod app;
pub(crate) mod config;
mod consent;
pub(crate) mod dev;
pub(crate) mod doctor;
pub(crate) mod import;
pub(crate) mod key;
pub(crate) mod master_key;
pub(crate) mod migrate;
pub(crate) mod openapi;
pub(crate) mod send;
pub(crate) mod serve;
pub(crate) mod signing_key;
pub(crate) mod simulate;
pub(crate) mod tenant;

use coord::{Clock, Coord};
use domain::id::{KeyId, TenantId};
use prometheus_client::registry::Registry;
use store::{Listing, Origin, Page, Store};
use tenancy::Tenancy;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    config::{ClientTimeouts, Config, Mode},
    embedded,
    failure::Failure,
    gateway::StartError,
    master_key::obtain,
    replica,
    settings::Settings,
    timekeeper::Timekeeper,
};

/// The number of items in one page of a list.
const PAGE: u64 = 200;
/// The exit code of an interrupted program.
const INTERRUPTED: i32 = 130;

/// The configuration of a gateway from these settings.
async fn configure(settings: &Settings, migrate: bool) -> Result<Config, Failure> {
    Ok(Config {
        listen: settings.listen,
        database_url: settings.database_url.clone(),
        mode: settings.mode.clone(),
        redis_ca: settings.redis_ca.clone(),
        master_key: obtain(settings).await?,
        wechat_base_url: settings.wechat_base_url.clone(),
        wechat_timeout: settings.wechat_timeout,
        public_url: settings.public_url.clone(),
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
        migrate,
    })
}

/// The connections and services that a short command uses.
struct CommandContext {
    config: Config,
    store: Store,
    coord: Coord,
    tenancy: Tenancy,
    clock: Clock,
    timekeeper: Timekeeper,
}

impl CommandContext {
    /// Opens the database, which must exist. An embedded database is migrated. A production database must already have
    /// the current schema, because a short command is no reason to migrate a shared database.
    async fn open(settings: &Settings) -> Result<Self, Failure> {
        embedded::must_exist(settings)?;
        let config = configure(settings, settings.mode == Mode::Embedded).await?;
        let clock = Clock::system();
        let store = replica::open_store(&config).await?;
        let timekeeper = Timekeeper::start(&store, &clock)
            .await
            .map_err(StartError::from)?;
        let coord = replica::open_coord(&config, clock.clone())?;
        let base_url = config
            .public_url
            .clone()
            .unwrap_or_else(|| format!("http://{}", config.listen));
        let tenancy =
            replica::open_tenancy(&config, store.clone(), coord.clone(), &base_url).await?;
        Ok(Self {
            config,
            store,
            coord,
            tenancy: tenancy.by(Origin::CLI),
            clock,
            timekeeper,
        })
    }

    /// Starts the sending part, so that the command acts as a replica for a short time.
    fn sending(&self) -> Result<replica::Sending, Failure> {
        if let Some(trouble) = self.clock.trouble() {
            return Err(Failure::new("clock", trouble.to_string()));
        }
        let registry = &mut Registry::default();
        Ok(replica::Sending::start(
            &self.config,
            self.store.clone(),
            self.coord.clone(),
            registry,
        )?)
    }

    /// Opens the onboarding of apps.
    fn onboarding(&self) -> Result<replica::Onboarding, Failure> {
        Ok(replica::Onboarding::open(
            &self.config,
            self.store.clone(),
            self.coord.clone(),
        )?)
    }

    async fn close(self) {
        drop(self.tenancy);
        self.timekeeper.stop().await;
        if let Err(error) = self.store.close().await {
            tracing::warn!(%error, "the database did not close cleanly");
        }
    }
}

/// A tenant as named on the command line: by id, or by a name that no other tenant has.
#[derive(Clone, Debug)]
pub(crate) enum TenantWord {
    Id(TenantId),
    Name(String),
}

/// Parses the id or name of a tenant.
fn tenant_word(text: &str) -> Result<TenantWord, &'static str> {
    const WRONG: &str = "give a tenant's id, which begins with ten_, or its name; `wxgate tenant list` shows all tenants";
    let text = text.trim();
    if text.starts_with("ten_") {
        text.parse().map(TenantWord::Id).map_err(|_| WRONG)
    } else if text.is_empty() {
        Err(WRONG)
    } else {
        Ok(TenantWord::Name(text.to_owned()))
    }
}

impl CommandContext {
    /// The id of the named tenant.
    async fn tenant(&self, word: &TenantWord) -> Result<TenantId, Failure> {
        let name = match word {
            TenantWord::Id(id) => return Ok(self.tenancy.tenant(*id).await?.id),
            TenantWord::Name(name) => name,
        };
        let tenants = all(async |page| self.tenancy.tenants(&page).await).await?;
        let named: Vec<_> = tenants.iter().filter(|one| one.name == *name).collect();
        match named.as_slice() {
            [one] => Ok(one.id),
            [] => Err(Failure::new(
                "not_found",
                format!("no tenant has the name `{name}`: `wxgate tenant list` shows all tenants"),
            )),
            several => {
                let ids: Vec<_> = several.iter().map(|one| one.id.to_string()).collect();
                let ids = ids.join(", ");
                Err(Failure::new(
                    "conflict",
                    format!(
                        "several tenants have the name `{name}`: give the id of one tenant ({ids})"
                    ),
                ))
            }
        }
    }
}

/// Parses the id of a key.
fn key_id(text: &str) -> Result<KeyId, &'static str> {
    text.parse()
        .map_err(|_| "a key's id begins with key_; `wxgate key list` shows the keys of a tenant or of the operator")
}

/// Reads all items of a list, page by page.
async fn all<T, K, E>(
    mut page_of: impl AsyncFnMut(Page<K>) -> Result<Listing<T, K>, E>,
) -> Result<Vec<T>, E> {
    let mut items = Vec::new();
    let mut after = None;
    loop {
        let listing = page_of(Page { limit: PAGE, after }).await?;
        items.extend(listing.items);
        match listing.next {
            Some(next) => after = Some(next),
            None => return Ok(items),
        }
    }
}

/// The signals that ask the process to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// The terminal was closed. `None`: the process was started to survive the terminal (`nohup`).
    hangup: Option<Signal>,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| {
                let words = format!("cannot listen for signals ({error}): report this as a defect");
                Failure::new("internal", words)
            })
        };
        // Must come before a handler replaces the disposition that the parent has set.
        let outlives = ignores_hangup();
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: if outlives {
                None
            } else {
                Some(listen(SignalKind::hangup())?)
            },
        })
    }

    /// Returns when the process is asked to stop.
    async fn stop(&mut self) {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => drop(hangup.recv().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            () = hangup => {}
        }
    }

    /// Runs `stopping` to its end; a second signal ends the process at once. `SIGHUP` does not count as a second
    /// signal: the shell and the system may each send one for a closed terminal.
    async fn finish<T>(mut self, stopping: impl Future<Output = T>) -> T {
        tokio::select! {
            done = stopping => done,
            _ = self.terminate.recv() => std::process::exit(INTERRUPTED),
            _ = self.interrupt.recv() => std::process::exit(INTERRUPTED),
        }
    }
}

/// Whether the process was started with `SIGHUP` ignored: the lowest bit of the hexadecimal mask `SigIgn`.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & 1 == 1)
}
