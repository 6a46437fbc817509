//! The commands, one module each: its arguments, and a `run` that reads like a sentence.

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
    config::{Config, Mode, Patience},
    embedded,
    failure::Failure,
    gateway::StartError,
    master_key::obtain,
    replica,
    settings::Settings,
    timekeeper::Timekeeper,
};

/// How many items of a list are read at once.
const PAGE: u64 = 200;
/// The exit code of a program that was interrupted.
const INTERRUPTED: i32 = 130;

/// What a gateway is started with by these settings.
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
        patience: Patience::default(),
        allow_private_webhooks: settings.allow_private_webhooks,
        traced: settings.otlp_endpoint.is_some(),
        migrate,
    })
}

/// What a short command works with.
struct Desk {
    config: Config,
    store: Store,
    coord: Coord,
    tenancy: Tenancy,
    clock: Clock,
    timekeeper: Timekeeper,
}

impl Desk {
    /// Opens the database, which must be there. An embedded one is migrated on the way; a production one must be up
    /// to date, because a short command is no occasion to migrate it.
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

    /// Becomes a replica that sends, for a moment.
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

    /// Opens the onboarding desk.
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

/// A tenant on the command line: by its id, or by its name where no other tenant has it.
#[derive(Clone, Debug)]
pub(crate) enum TenantWord {
    Id(TenantId),
    Name(String),
}

/// Reads one.
fn tenant_word(text: &str) -> Result<TenantWord, &'static str> {
    const WRONG: &str = "give a tenant's id, which begins with ten_, or its name; `wxgate tenant list` shows them all";
    let text = text.trim();
    if text.starts_with("ten_") {
        text.parse().map(TenantWord::Id).map_err(|_| WRONG)
    } else if text.is_empty() {
        Err(WRONG)
    } else {
        Ok(TenantWord::Name(text.to_owned()))
    }
}

impl Desk {
    /// The tenant that is meant.
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
                format!("no tenant is called `{name}`: `wxgate tenant list` shows all"),
            )),
            several => {
                let ids: Vec<_> = several.iter().map(|one| one.id.to_string()).collect();
                let ids = ids.join(", ");
                Err(Failure::new(
                    "conflict",
                    format!(
                        "several tenants are called `{name}`: give the id of the one that you mean ({ids})"
                    ),
                ))
            }
        }
    }
}

/// A key's id on the command line.
fn key_id(text: &str) -> Result<KeyId, &'static str> {
    text.parse()
        .map_err(|_| "a key's id begins with key_; `wxgate key list` shows an owner's")
}

/// All items of a list, page by page.
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

/// The wishes of whoever runs the process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// The terminal was closed; none: the process was started to outlive it (`nohup`).
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
        // Before a handler takes the place of what the parent asked for.
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

    /// Runs `stopping` to its end, unless a second signal ends the process at once. A closed terminal may say so twice, by the
    /// shell and by the system, so that is no second signal.
    async fn finish<T>(mut self, stopping: impl Future<Output = T>) -> T {
        tokio::select! {
            done = stopping => done,
            _ = self.terminate.recv() => std::process::exit(INTERRUPTED),
            _ = self.interrupt.recv() => std::process::exit(INTERRUPTED),
        }
    }
}

/// Whether the process was started with `SIGHUP` ignored. The system shows it as the lowest bit of a hexadecimal number.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & 1 == 1)
}
