//! Health of the gateway's dependencies, for operators and load balancers: whether the database takes writes and Redis
//! answers.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use coord::Coord;
use delivery::Delivery;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
    registry::{Registry, Unit},
};
use store::Store;
use tokio::{
    sync::Mutex,
    time::{sleep, timeout},
};
use tokio_util::{future::FutureExt, sync::CancellationToken, task::TaskTracker};

/// The interval of the database checks, in real time under every clock: the network does not follow a manual clock.
const LOOK: Duration = Duration::from_secs(1);
/// The longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Whether the database takes the writes of the gateway. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Health(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    delivery: Delivery,
    is_up: AtomicBool,
    /// Locked while the database is asked, so that concurrent callers share one answer.
    known: Mutex<Option<LastCheck>>,
}

/// The last answer of the database.
#[derive(Clone, Debug)]
struct LastCheck {
    at: Instant,
    answer: Result<(), String>,
}

impl Health {
    /// Health of `store` and of the engine that writes into `store`.
    pub(crate) fn new(store: Store, delivery: Delivery) -> Self {
        Self(Arc::new(Inner {
            store,
            delivery,
            // The database has just been opened, so the initial state is up.
            is_up: AtomicBool::new(true),
            known: Mutex::new(None),
        }))
    }

    /// Returns the reason why the gateway cannot work, if any. Asks the database at most once a second, and again when
    /// a statement has failed since.
    pub(crate) async fn look(&self) -> Result<(), String> {
        let mut known = self.0.known.lock().await;
        let is_good = |known: &LastCheck| {
            known.at.elapsed() < LOOK && !self.0.store.has_failed_since(known.at)
        };
        let answer = if let Some(known) = known.as_ref().filter(|known| is_good(known)) {
            known.answer.clone()
        } else {
            let answer = self.ask().await;
            *known = Some(LastCheck {
                at: Instant::now(),
                answer: answer.clone(),
            });
            answer
        };
        let answer = answer.and_then(|()| self.0.delivery.refusal().map_or(Ok(()), Err));
        self.note(&answer);
        answer
    }

    async fn ask(&self) -> Result<(), String> {
        match timeout(PATIENCE, self.0.store.beat()).await {
            Ok(answer) => answer.map(drop).map_err(|error| error.to_string()),
            Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
        }
    }

    fn note(&self, answer: &Result<(), String>) {
        let was_up = self.0.is_up.swap(answer.is_ok(), Ordering::Relaxed);
        match answer {
            Err(why) if was_up => tracing::error!(
                why,
                "the database takes no writes: the gateway refuses requests and sends nothing until the database takes writes"
            ),
            Ok(()) if !was_up => tracing::info!("the database answers again"),
            _ => {}
        }
    }
}

/// The task that checks the database. `coord` watches Redis, because `coord` uses Redis all the time.
#[derive(Debug)]
pub(crate) struct HealthMonitor {
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl HealthMonitor {
    /// Starts the task and registers its gauges in `registry`.
    pub(crate) fn start(health: Health, coord: Coord, registry: &mut Registry) -> Self {
        registry.register_collector(Box::new(Gauges {
            health: health.clone(),
            coord,
        }));
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let looking = async move {
            loop {
                // `look` logs a change and returns the answer to its other callers; this task needs only the check.
                let _ = health.look().await;
                sleep(LOOK).await;
            }
        };
        tasks.spawn(looking.with_cancellation_token_owned(stop.clone()));
        tasks.close();
        Self { tasks, stop }
    }

    /// Stops the checks.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

/// The gauges of the last known state, read at each scrape of the metrics.
#[derive(Debug)]
struct Gauges {
    health: Health,
    coord: Coord,
}

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        if let Some(off) = self.coord.clock().off() {
            let (name, help) = (
                "wxgate_clock_offset",
                "How far this machine's clock is ahead of the database's clock",
            );
            let unit = Unit::Seconds;
            let encoder = encoder.encode_descriptor(name, help, Some(&unit), MetricType::Gauge)?;
            ConstGauge::new(off.as_seconds_f64()).encode(encoder)?;
        }
        let is_database_up = self.health.0.is_up.load(Ordering::Relaxed);
        let database = ("wxgate_database_up", "Whether the database takes writes");
        let redis = ("wxgate_redis_up", "Whether Redis answers and takes writes");
        let known = [
            (database, Some(is_database_up)),
            (redis, self.coord.is_up()),
        ];
        for ((name, help), is_up) in known {
            let Some(is_up) = is_up else { continue };
            let encoder = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(i64::from(is_up)).encode(encoder)?;
        }
        Ok(())
    }
}
