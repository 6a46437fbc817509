//! The place of a measurement: a simulator, a database, a gateway.

use std::time::Duration;

use chrono::{DateTime, Utc};
use coord::{Clock, ManualClock};
use domain::seal::MasterKey;
use gateway::{Config, Gateway};
use simulator::{Effect, Fault, Options, Simulator};
use tempfile::TempDir;
use testkit::{Postgres, Redis};
use tokio::{
    task::JoinSet,
    time::{Instant, interval},
};

/// The app that sends.
pub(crate) const APP: &str = "wx00000000000000a1";
/// How often the clock advances.
const TICK: Duration = Duration::from_millis(5);
/// No wait takes this long unless the gateway is stuck.
const PATIENCE: Duration = Duration::from_mins(10);

/// The servers of production mode.
pub(crate) struct Production {
    postgres: Postgres,
    pub(crate) redis: Redis,
}

impl Production {
    pub(crate) fn start() -> Self {
        Self {
            postgres: Postgres::start(),
            redis: Redis::start(),
        }
    }
}

/// Everything that is measured. The gateway's clock runs with the machine's, and can leap over a pause.
pub(crate) struct Place {
    pub(crate) simulator: Simulator,
    pub(crate) gateway: Gateway,
    clock: Clock,
    hand: ManualClock,
    ticking: JoinSet<()>,
    /// Kept for as long as the place.
    home: (TempDir, Option<Production>),
}

impl Place {
    /// Starts a simulator and a gateway in front of the simulator.
    pub(crate) async fn start(production: Option<Production>) -> Self {
        let simulator = Simulator::start(Options::default().lean())
            .await
            .expect("a simulator");
        let folder = tempfile::tempdir().expect("a folder");
        let (database, redis) = match &production {
            Some(Production { postgres, redis }) => {
                (postgres.create_database("bench"), Some(redis.url()))
            }
            None => (
                format!("sqlite://{}/bench.db", folder.path().display()),
                None,
            ),
        };
        let config = Config::new(&database, redis.as_deref(), MasterKey::from_bytes([7; 32]))
            .expect("a mode");
        let config = Config {
            wechat_base_url: simulator.base_url(),
            allow_private_webhooks: true,
            ..config
        };
        let (clock, hand) = Clock::manual(Clock::system().now());
        let gateway = Gateway::start(config, clock.clone())
            .await
            .expect("a gateway");
        let mut ticking = JoinSet::new();
        ticking.spawn(tick(hand.clone()));
        Self {
            simulator,
            gateway,
            clock,
            hand,
            ticking,
            home: (folder, production),
        }
    }

    /// Makes WeChat refuse token fetches, so that the gateway can send nothing.
    pub(crate) fn refuse_tokens(&self) {
        let control = self.simulator.control();
        control.kill_tokens(APP);
        let busy = Effect::Errcode {
            errcode: -1,
            errmsg: None,
        };
        control.add_fault(Fault::always(busy).for_path("/cgi-bin/stable_token"));
    }

    /// Makes WeChat give tokens again, and advances the clock over the app's pause.
    pub(crate) fn give_tokens(&self) {
        self.simulator.control().clear_faults();
        self.hand.advance(Duration::from_mins(15));
    }

    /// The servers of production mode.
    pub(crate) fn production(&self) -> &Production {
        self.home.1.as_ref().expect("production mode")
    }

    /// The gateway's time.
    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    /// Advances the clock by five seconds at once, so that sleeping tasks look again.
    pub(crate) fn leap(&self) {
        self.hand.advance(Duration::from_secs(5));
    }

    /// How many messages WeChat has taken so far.
    pub(crate) fn accepted(&self) -> u64 {
        self.simulator.control().stats().accepted
    }

    /// Waits until WeChat has taken `wanted` messages.
    pub(crate) async fn until_accepted(&self, wanted: u64) {
        let deadline = Instant::now() + PATIENCE;
        let mut ticks = interval(Duration::from_millis(2));
        while self.accepted() < wanted {
            ticks.tick().await;
            assert!(
                Instant::now() < deadline,
                "{} of {wanted} messages arrived",
                self.accepted()
            );
        }
    }

    /// Waits until WeChat has taken no message for a second.
    pub(crate) async fn until_quiet(&self) {
        let mut ticks = interval(Duration::from_millis(500));
        let mut before = None;
        while before != Some(self.accepted()) {
            before = Some(self.accepted());
            ticks.tick().await;
            ticks.tick().await;
        }
    }

    /// Stops everything.
    pub(crate) async fn stop(self) {
        assert!(self.gateway.stop().await, "something was left unrecorded");
        drop(self.ticking);
        self.simulator.stop().await;
    }
}

async fn tick(hand: ManualClock) {
    let mut ticks = interval(TICK);
    let mut last = ticks.tick().await;
    loop {
        let now = ticks.tick().await;
        hand.advance(now - last);
        last = now;
    }
}
