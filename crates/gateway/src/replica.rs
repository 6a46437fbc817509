//! The parts of a process that works on the database: of the gateway itself, and of commands that act as a replica for
//! a short time.

use std::{sync::Arc, time::Duration};

use broker::Broker;
use chrono::TimeDelta;
use coord::{Cell, Clock, Coord};
use delivery::{Apps, Delivery, Parts, StoredCredentials, TokenAudit};
use prometheus_client::registry::Registry;
use store::{MigrationState, Store, StoreError};
use tenancy::{Tenancy, TenancyOptions};

use crate::{
    config::{Config, Mode},
    gateway::StartError,
};

/// The longest wait for a database that does not answer yet, because the database may be starting too.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// The longest wait for one connection.
const PROBE: Duration = Duration::from_secs(5);
/// The shortest lease of a claimed message.
const LEASE: Duration = Duration::from_mins(1);
/// The longest wait at a stop for token fetches in progress.
const FETCHES: Duration = Duration::from_secs(5);

/// Opens the database and checks that its schema is the current one, or applies pending migrations.
pub(crate) async fn open_store(config: &Config) -> Result<Store, StartError> {
    let store = connect(config).await?;
    if config.migrate {
        store.migrate_up().await?;
        return Ok(store);
    }
    let states = store.migrations().await?;
    MigrationState::refuse_newer(&states)?;
    let pending = states.iter().filter(|migration| !migration.applied).count();
    if pending > 0 {
        Err(StartError::Pending { pending })
    } else {
        Ok(store)
    }
}

/// Opens coordination: in process or through Redis, by the mode.
pub(crate) fn open_coord(config: &Config, clock: Clock) -> Result<Coord, StartError> {
    match &config.mode {
        Mode::Embedded => Ok(Coord::in_process(clock)),
        Mode::Production { redis_url } => {
            let ca = config.redis_ca.as_deref();
            Ok(Coord::redis_trusting(redis_url, ca, clock)?)
        }
    }
}

/// Opens tenancy, with `base_url` as issuer and audience of access tokens.
pub(crate) async fn open_tenancy(
    config: &Config,
    store: Store,
    coord: Coord,
    base_url: &str,
) -> Result<Tenancy, StartError> {
    Ok(Tenancy::start(
        store,
        coord,
        config.master_key.clone(),
        TenancyOptions::at(base_url),
    )
    .await?)
}

/// The shared cell in which the last started replica publishes its public URL.
const SHOWN_URL: &str = "public-url";
/// The lifetime of that cell.
const SHOWN_FOR: TimeDelta = TimeDelta::days(400);

/// Logs a warning if the replica that started last has another public URL. Without Redis the comparison is skipped.
pub(crate) async fn compare_urls(coord: &Coord, base_url: &str) {
    let cells = coord.cells();
    let now = coord.clock().now();
    if let Ok(Some(shown)) = cells.get(SHOWN_URL).await
        && shown.value != base_url.as_bytes()
    {
        tracing::warn!(
            base_url,
            other = %String::from_utf8_lossy(&shown.value),
            "another replica has another WXGATE_PUBLIC_URL, so the replicas refuse each other's access tokens: set the same URL on all replicas"
        );
    }
    let own = Cell {
        value: base_url.into(),
        generation: now.timestamp_millis().unsigned_abs(),
    };
    // The cell is only a hint for the next replica that starts, so a failed write is ignored.
    let _ = cells.put(SHOWN_URL, own, now + SHOWN_FOR).await;
}

/// Creates the client of WeChat's API.
fn open_wechat(config: &Config) -> Result<wechat::Client, StartError> {
    Ok(wechat::Client::new(wechat::ClientOptions {
        base_url: config.wechat_base_url.clone(),
        connect_timeout: Duration::from_secs(2).min(config.wechat_timeout / 2),
        timeout: config.wechat_timeout,
        ..wechat::ClientOptions::default()
    })?)
}

/// Creates the broker of access tokens for the apps in `store`.
fn open_broker(
    config: &Config,
    wechat: &wechat::Client,
    store: &Store,
    coord: &Coord,
    registry: &mut Registry,
) -> Broker {
    let credentials = StoredCredentials::new(store.clone(), config.master_key.clone());
    Broker::new(
        wechat.clone(),
        coord.clone(),
        Arc::new(credentials),
        config.master_key.clone(),
        broker::BrokerMetrics::register(registry),
    )
    .with_observer(Arc::new(TokenAudit::new(store.clone(), coord.clone())))
}

async fn close_broker(broker: &Broker) {
    if tokio::time::timeout(FETCHES, broker.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("the stop interrupted a token fetch that was still running");
    }
}

/// The onboarding of apps, for a process that sends no messages.
pub(crate) struct Onboarding {
    /// Registers, verifies and removes apps.
    pub(crate) apps: Apps,
    broker: Broker,
}

impl Onboarding {
    /// Opens the onboarding of apps.
    pub(crate) fn open(config: &Config, store: Store, coord: Coord) -> Result<Self, StartError> {
        let wechat = open_wechat(config)?;
        let broker = open_broker(config, &wechat, &store, &coord, &mut Registry::default());
        let apps = Apps::new(store, coord, broker.clone(), config.master_key.clone());
        Ok(Self { apps, broker })
    }

    /// Waits for the token fetches in progress.
    pub(crate) async fn close(self) {
        close_broker(&self.broker).await;
    }
}

/// The parts that send messages.
pub(crate) struct Sending {
    /// The delivery engine.
    pub(crate) delivery: Delivery,
    broker: Broker,
}

impl Sending {
    /// Starts the engine and registers its counters in `registry`.
    pub(crate) fn start(
        config: &Config,
        store: Store,
        coord: Coord,
        registry: &mut Registry,
    ) -> Result<Self, StartError> {
        let wechat = open_wechat(config)?;
        let broker = open_broker(config, &wechat, &store, &coord, registry);
        let parts = Parts {
            store,
            coord,
            wechat,
            broker: broker.clone(),
            master_key: config.master_key.clone(),
            metrics: delivery::DeliveryMetrics::register(registry),
            show_message: Arc::new(show_message),
        };
        let options = delivery::EngineOptions {
            slots: config.sending_slots,
            lease: LEASE.max(config.wechat_timeout * 3),
            send_timeout: config.wechat_timeout,
            retention: config.retention,
            allow_private_webhooks: config.allow_private_webhooks,
            ..delivery::EngineOptions::default()
        };
        Ok(Self {
            delivery: Delivery::start(parts, options)?,
            broker,
        })
    }

    /// Stops claiming and waits for the sends in flight. Returns whether all were recorded.
    pub(crate) async fn stop(self, deadline: Duration) -> bool {
        let recorded = self.delivery.stop(deadline).await;
        close_broker(&self.broker).await;
        recorded
    }
}

impl std::fmt::Debug for Sending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sending")
            .field("delivery", &self.delivery)
            .finish_non_exhaustive()
    }
}

/// Gives webhooks the same view of a message as the API.
fn show_message(message: store::Message) -> serde_json::Value {
    serde_json::to_value(api::views::Message::from(message)).unwrap_or_default()
}

async fn connect(config: &Config) -> Result<Store, StoreError> {
    let waits = matches!(config.mode, Mode::Production { .. });
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match open(&config.database_url).await {
            Err(StoreError::Unavailable(cause))
                if waits && tokio::time::Instant::now() < deadline =>
            {
                tracing::warn!(%cause, "the database does not answer yet");
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            connected => return connected,
        }
    }
}

/// Tests one connection first, so that a refusal has a precise reason, and then opens the pool.
pub(crate) async fn open(database_url: &str) -> Result<Store, StoreError> {
    let probed = tokio::time::timeout(PROBE, Store::probe(database_url)).await;
    probed.unwrap_or_else(|_| {
        let words = format!("no answer within {} s", PROBE.as_secs());
        Err(StoreError::Unavailable(words.as_str().into()))
    })?;
    Store::connect(database_url).await
}
