//! What the gateway stands on, for its operators: whether the database and Redis answer, in metrics and in the log.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use coord::Coord;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
    registry::{Registry, Unit},
};
use store::Store;
use tokio::time::{sleep, timeout};
use tokio_util::{future::FutureExt, sync::CancellationToken, task::TaskTracker};

/// How often the database is looked at. In real time under every clock: the network has its own.
const LOOK: Duration = Duration::from_secs(5);
/// And while it is away.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// The longest that an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The task that looks. Redis is watched by `coord`, which talks to it all the time.
#[derive(Debug)]
pub(crate) struct Watch {
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Watch {
    /// Starts it; its gauges go into `registry`.
    pub(crate) fn start(store: Store, coord: Coord, registry: &mut Registry) -> Self {
        // Who starts has just opened it.
        let is_database_up = Arc::new(AtomicBool::new(true));
        registry.register_collector(Box::new(Gauges {
            is_database_up: is_database_up.clone(),
            coord,
        }));
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        tasks.spawn(look(store, is_database_up).with_cancellation_token_owned(stop.clone()));
        tasks.close();
        Self { tasks, stop }
    }

    /// Looks no more.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

async fn look(store: Store, is_up: Arc<AtomicBool>) {
    loop {
        let pause = if is_up.load(Ordering::Relaxed) {
            LOOK
        } else {
            LOOK_AGAIN
        };
        sleep(pause).await;
        let answer = match timeout(PATIENCE, store.ping()).await {
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
        };
        let was_up = is_up.swap(answer.is_ok(), Ordering::Relaxed);
        match answer {
            Err(why) if was_up => tracing::error!(
                why,
                "the database is lost: requests are refused and nothing is sent until it answers"
            ),
            Ok(()) if !was_up => tracing::info!("the database answers again"),
            _ => {}
        }
    }
}

/// What is known when the metrics are read.
#[derive(Debug)]
struct Gauges {
    is_database_up: Arc<AtomicBool>,
    coord: Coord,
}

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        if let Some(off) = self.coord.clock().off() {
            let (name, help) = (
                "wxgate_clock_offset",
                "How far this machine's clock is ahead of the database's",
            );
            let unit = Unit::Seconds;
            let encoder = encoder.encode_descriptor(name, help, Some(&unit), MetricType::Gauge)?;
            ConstGauge::new(off.as_seconds_f64()).encode(encoder)?;
        }
        let database = ("wxgate_database_up", "Whether the database answers");
        let redis = ("wxgate_redis_up", "Whether Redis takes what it is asked");
        let known = [
            (database, Some(self.is_database_up.load(Ordering::Relaxed))),
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
