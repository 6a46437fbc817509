//! The environment of one test: a WeChat simulator, a database, gateways and an operator.

mod client;
mod document;
mod fleet;
mod home;
mod load;
mod program;
mod replica;
mod switch;
mod tenant;
mod wait;

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use chrono::{DateTime, TimeZone, Utc};
use coord::Clock;
use gateway::ClientTimeouts;
use serde_json::{Value, json};
use simulator::{Control, Options, Simulator};
use store::Store;

pub(crate) use client::{Answer, Client, Key, finish};
pub(crate) use load::{Load, reckon};
pub(crate) use program::{Ended, Running, free_port, run, wxgate};
pub(crate) use replica::MASTER_KEY;
pub(crate) use tenant::{SCOPES, SECRET, TEMPLATE, Tenant, id, message, message_with, outcomes};
pub(crate) use wait::{Time, eventually, until};

use fleet::Roster;
use home::{Home, Server};
use replica::{Place, Replica};
use testkit::{Postgres, Redis};

/// The two modes of the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// SQLite, coordination in process.
    Embedded,
    /// PostgreSQL and Redis.
    Production,
}

/// Codes that WeChat answers only when the gateway made a mistake: a request that WeChat cannot read, or two sends to
/// one user at the same time.
const OUR_FAULT: [i64; 6] = [40033, 41001, 43002, 44002, 47001, 43108];

/// The environment of a scenario. Dropping the world stops all of its parts.
pub(crate) struct World {
    home: Home,
    sending_slots: Option<usize>,
    private_webhooks: bool,
    patience: ClientTimeouts,
    wechat_timeout: Option<Duration>,
    log: &'static str,
    log_format: &'static str,
    grace: u64,
    collector: Option<String>,
    replicas: Vec<Replica>,
    /// The URLs of the running replicas, for callers that continue while replicas start and stop.
    roster: Roster,
    /// `None` while the simulator is stopped.
    simulator: Option<Simulator>,
    address: SocketAddr,
    clock: Clock,
    time: Time,
    operator: Client,
    copies: AtomicBool,
}

/// The settings of a world that is not started yet.
pub(crate) struct Plan {
    mode: Mode,
    by_hand: bool,
    replicas: usize,
    sending_slots: Option<usize>,
    server: Server,
    own_process: bool,
    private_webhooks: bool,
    patience: ClientTimeouts,
    wechat_timeout: Option<Duration>,
    log: &'static str,
    log_format: &'static str,
    grace: u64,
    collector: Option<String>,
}

impl Plan {
    /// The clock stands still at 10:00 in Shanghai until [`World::pass`].
    pub(crate) fn by_hand(mut self) -> Self {
        self.by_hand = true;
        self
    }

    /// The number of gateways on one database. Production mode only.
    pub(crate) fn replicas(mut self, replicas: usize) -> Self {
        self.replicas = replicas;
        self
    }

    /// The number of sending slots of each gateway.
    pub(crate) fn slots(mut self, slots: usize) -> Self {
        self.sending_slots = Some(slots);
        self
    }

    /// The world has a PostgreSQL server of its own, which the test may stop.
    pub(crate) fn breakable(mut self) -> Self {
        self.server = Server::Own;
        self
    }

    /// As [`Plan::breakable`], behind a switch that the test can point at another server.
    pub(crate) fn switched(mut self) -> Self {
        self.server = Server::Switched;
        self
    }

    /// The gateway is the real binary in a separate process, which the test may kill.
    pub(crate) fn own_process(mut self) -> Self {
        self.own_process = true;
        self
    }

    /// The time-outs for clients of a gateway in this process.
    pub(crate) fn patience(mut self, patience: ClientTimeouts) -> Self {
        self.patience = patience;
        self
    }

    /// The log filter of a gateway in a separate process.
    pub(crate) fn log(mut self, log: &'static str) -> Self {
        self.log = log;
        self
    }

    /// A gateway in a separate process logs JSON.
    pub(crate) fn log_json(mut self) -> Self {
        self.log_format = "json";
        self
    }

    /// The seconds during which a gateway in a separate process still accepts connections after the request to stop.
    pub(crate) fn grace(mut self, seconds: u64) -> Self {
        self.grace = seconds;
        self
    }

    /// The URL of the collector to which a gateway in a separate process sends traces.
    pub(crate) fn traces_to(mut self, collector: &str) -> Self {
        self.collector = Some(collector.to_owned());
        self
    }

    /// Webhook URLs must be on the public internet, the product's default. Other worlds allow URLs on this machine.
    pub(crate) fn public_webhooks_only(mut self) -> Self {
        self.private_webhooks = false;
        self
    }

    /// Starts the world.
    pub(crate) async fn start(self) -> World {
        let simulator = Simulator::start(Options::default())
            .await
            .expect("a simulator");
        let (clock, time) = if self.by_hand {
            let morning = Utc.with_ymd_and_hms(2026, 3, 2, 2, 0, 0).unwrap();
            simulator.control().clock().pin(morning.timestamp_millis());
            let (clock, hand) = Clock::manual(morning);
            (clock, Time::of(hand))
        } else {
            (Clock::system(), Time::default())
        };
        let home = Home::new(self.mode, self.server).await;
        let nobody = Client::anonymous("http://127.0.0.1:9", &time);
        let mut world = World {
            home,
            sending_slots: self.sending_slots,
            private_webhooks: self.private_webhooks,
            patience: self.patience,
            wechat_timeout: self.wechat_timeout,
            log: self.log,
            log_format: self.log_format,
            grace: self.grace,
            collector: self.collector,
            replicas: Vec::new(),
            roster: Roster::default(),
            address: simulator.address(),
            simulator: Some(simulator),
            clock,
            time,
            operator: nobody,
            copies: AtomicBool::new(false),
        };
        for _ in 0..self.replicas {
            world.add_replica(self.own_process).await;
        }
        let key = world.replicas[0].operator_key(&world.place()).await;
        world.operator = world.anonymous().with_key(key);
        world
    }
}

impl World {
    /// Starts a world with one gateway, the machine's clock and the default settings.
    pub(crate) async fn start(mode: Mode) -> Self {
        Self::plan(mode).start().await
    }

    /// A plan with the default settings, to be changed before the start.
    pub(crate) fn plan(mode: Mode) -> Plan {
        Plan {
            mode,
            by_hand: false,
            replicas: 1,
            sending_slots: None,
            server: Server::Shared,
            own_process: false,
            private_webhooks: true,
            patience: ClientTimeouts::default(),
            wechat_timeout: None,
            log: "info",
            log_format: "text",
            grace: 0,
            collector: None,
        }
    }

    // --- callers ---

    /// A client with the operator's key, at the first gateway.
    pub(crate) fn operator(&self) -> Client {
        self.anonymous().with_key(self.operator.key().clone())
    }

    /// A client without a credential, at the first gateway.
    pub(crate) fn anonymous(&self) -> Client {
        Client::anonymous(self.url(0), &self.time)
    }

    /// A new tenant with a rate limit that no test reaches.
    pub(crate) async fn tenant(&self, name: &str) -> Tenant {
        self.tenant_with(name, json!({"requests_per_second": 100_000}))
            .await
    }

    /// A new tenant with these limits.
    pub(crate) async fn tenant_with(&self, name: &str, limits: Value) -> Tenant {
        let operator = self.operator();
        let new = json!({"name": name, "limits": limits});
        let tenant = operator.post("/v1/tenants", &new).await.expect(201);
        let id = id(&tenant).to_owned();
        let client = self.key_of(&id, &SCOPES).await;
        Tenant { id, client }
    }

    /// A client with a new key of the tenant.
    pub(crate) async fn key_of(&self, tenant: &str, scopes: &[&str]) -> Client {
        let new = json!({"name": "test", "scopes": scopes});
        let path = format!("/v1/tenants/{tenant}/keys");
        let created = self.operator().post(&path, &new).await.expect(201);
        self.anonymous().with_key(Key::of(&created))
    }

    /// The same tenant at the gateway with this number.
    pub(crate) fn at(&self, replica: usize, tenant: &Tenant) -> Tenant {
        let client = self
            .anonymous()
            .at(self.url(replica))
            .with_key(tenant.client.key().clone());
        Tenant {
            client,
            ..tenant.clone()
        }
    }

    // --- WeChat ---

    /// The control handle of the WeChat simulator.
    pub(crate) fn wechat(&self) -> Control {
        self.simulator
            .as_ref()
            .expect("WeChat is there")
            .control()
            .clone()
    }

    /// The URL of the WeChat simulator, for tests that call WeChat directly.
    pub(crate) fn wechat_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Stops the WeChat simulator: connections are refused.
    pub(crate) async fn wechat_goes_away(&mut self) {
        self.simulator.take().expect("WeChat is there").stop().await;
    }

    /// Starts a new WeChat simulator at the same address, without the state of the former one.
    pub(crate) async fn wechat_comes_back(&mut self) {
        let options = Options::at(self.address);
        self.simulator = Some(
            Simulator::start(options)
                .await
                .expect("WeChat's address is free"),
        );
    }

    /// States that WeChat gets a message twice in this scenario, and that the copies are correct.
    pub(crate) fn expect_copies(&self) {
        self.copies.store(true, Ordering::Relaxed);
    }

    // --- time ---

    /// The time of the gateways' clock.
    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    /// Advances the clocks of the gateways and of WeChat.
    pub(crate) fn pass(&self, time: Duration) {
        self.wechat().clock().advance(time);
        self.time.pass(time);
    }

    /// Advances the clock by `time` and stops the clock there. Only gateways that start afterwards use the new clock.
    pub(crate) fn leap(&mut self, time: Duration) {
        let later = self.clock.now() + time;
        self.wechat().clock().pin(later.timestamp_millis());
        let (clock, hand) = Clock::manual(later);
        (self.clock, self.time) = (clock, Time::of(hand));
    }

    // --- gateways ---

    /// The URL of the gateway with this number.
    pub(crate) fn url(&self, replica: usize) -> &str {
        self.replicas[replica].url()
    }

    /// The database, through the first gateway.
    pub(crate) fn store(&self) -> &Store {
        self.replicas[0].store()
    }

    /// Starts one more gateway on the same database.
    pub(crate) async fn add_replica(&mut self, own_process: bool) {
        let place = self.place();
        let replica = if own_process {
            Replica::process(&place).await
        } else {
            Replica::in_process(&place, &self.clock).await
        };
        self.replicas.push(replica);
        self.roster.enter(&self.replicas);
    }

    /// Stops the last gateway gracefully.
    pub(crate) async fn stop_replica(&mut self) {
        let replica = self.replicas.pop().expect("a gateway");
        self.roster.enter(&self.replicas);
        replica.stop().await;
    }

    /// Ends the last gateway with `kill -9`.
    pub(crate) fn kill_replica(&mut self) {
        self.replicas.pop().expect("a gateway").kill();
        self.roster.enter(&self.replicas);
    }

    /// Sends SIGTERM to the last gateway, which runs in a separate process. Returns the exit code.
    pub(crate) fn terminate_replica(&mut self) -> Option<i32> {
        let replica = self.replicas.pop().expect("a gateway");
        self.roster.enter(&self.replicas);
        replica.terminate()
    }

    /// The PostgreSQL server of a breakable world in production mode.
    pub(crate) fn postgres(&self) -> &Postgres {
        self.home.postgres()
    }

    /// The Redis server of a world in production mode.
    pub(crate) fn redis(&self) -> &Redis {
        self.home.redis()
    }

    /// The settings that all gateways of this world share.
    fn place(&self) -> Place {
        Place {
            database_url: self.home.database_url.clone(),
            redis_url: self.home.redis_url.clone(),
            wechat_url: self.wechat_url(),
            sending_slots: self.sending_slots,
            private_webhooks: self.private_webhooks,
            patience: self.patience,
            wechat_timeout: self.wechat_timeout,
            log: self.log,
            log_format: self.log_format,
            grace: self.grace,
            clock: None,
            collector: self.collector.clone(),
            folder: self.home.folder().to_owned(),
        }
    }
}

impl Drop for World {
    /// Checks what must hold after every scenario.
    fn drop(&mut self) {
        let replicas = std::mem::take(&mut self.replicas);
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                for replica in replicas {
                    replica.stop().await;
                }
            });
        });
        let Some(wechat) = self
            .simulator
            .as_ref()
            .filter(|_| !std::thread::panicking())
        else {
            return;
        };
        let control = wechat.control();
        for (path, outcomes) in control.stats().calls {
            for code in OUR_FAULT {
                let count = outcomes.get(&code).copied().unwrap_or(0);
                assert_eq!(
                    count, 0,
                    "WeChat answered {code} on {path}: that is the gateway's fault"
                );
            }
        }
        if !self.copies.load(Ordering::Relaxed) {
            for appid in control.appids() {
                let copies = control.duplicates(&appid).markers;
                assert!(copies.is_empty(), "sent more than once: {copies:?}");
            }
        }
    }
}
