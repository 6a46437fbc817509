//! Tests of the broker with the real client against the simulator, under a manual clock.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod asking;
mod budgets;
mod checking;
mod days;
mod failing;
mod fetching;
mod foreign;
mod giving_back;
mod idle;
mod repairing;
mod replicas;
mod secrets;
mod storms;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use coord::{Clock, Coord, ManualClock};
use domain::{
    app::{AppId, TokenMode},
    message::Channel,
    seal::MasterKey,
    secret::AppSecret,
};
use simulator::{Effect, Fault, Options, Simulator};
use testkit::Redis;
use wechat::{Client, ClientOptions};
use wxgate_broker::{
    AppCredentials, Broker, BrokerEvent, BrokerMetrics, Credentials, CredentialsError, Observer,
    Token,
};

const SECOND: Duration = Duration::from_secs(1);
/// How long a background task may take on a busy machine before the test fails.
const LOST: Duration = Duration::from_secs(20);
const STABLE: &str = "/cgi-bin/stable_token";
const LEGACY: &str = "/cgi-bin/token";
const CHECK: &str = "/cgi-bin/get_api_domain_ip";
const SECRET: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";

/// The simulator, the time, and the registration of the one app.
struct World {
    wechat: Simulator,
    clock: Clock,
    time: ManualClock,
    appid: AppId,
    app: Arc<Registered>,
}

/// The credentials of the one app, if registered.
#[derive(Default)]
struct Registered(Mutex<Option<AppCredentials>>);

#[async_trait::async_trait]
impl Credentials for Registered {
    async fn credentials(&self, _appid: &AppId) -> Result<AppCredentials, CredentialsError> {
        self.0
            .lock()
            .unwrap()
            .clone()
            .ok_or(CredentialsError::UnknownApp)
    }
}

impl World {
    async fn new(mode: TokenMode) -> Self {
        let wechat = Simulator::start(Options::default()).await.unwrap();
        let (clock, time) = Clock::manual("2026-03-01T10:00:00Z".parse().unwrap());
        wechat.control().clock().pin(clock.now().timestamp_millis());
        let appid = AppId::parse("wx0a1b2c3d4e5f6789").unwrap();
        wechat
            .control()
            .change_app(appid.as_str(), |app| app.secret = Some(SECRET.to_owned()));
        let world = Self {
            wechat,
            clock,
            time,
            appid,
            app: Arc::default(),
        };
        world.register(SECRET, mode);
        world
    }

    fn register(&self, secret: &str, mode: TokenMode) {
        *self.app.0.lock().unwrap() = Some(AppCredentials {
            secret: AppSecret::new(secret),
            mode,
        });
    }

    /// A broker that shares nothing with other replicas.
    fn alone(&self) -> Broker {
        self.replica(&Coord::in_process(self.clock.clone()))
    }

    fn replica(&self, coord: &Coord) -> Broker {
        self.replica_with(coord, BrokerMetrics::default())
    }

    fn client(&self) -> Client {
        let options = ClientOptions {
            base_url: self.wechat.base_url(),
            ..ClientOptions::default()
        };
        Client::new(options).unwrap()
    }

    fn replica_with(&self, coord: &Coord, metrics: BrokerMetrics) -> Broker {
        Broker::new(
            self.client(),
            coord.clone(),
            Arc::clone(&self.app) as _,
            MasterKey::from_bytes([7; 32]),
            metrics,
        )
    }

    /// Moves the gateway's time and the simulator's time.
    fn advance(&self, by: Duration) {
        self.wechat.control().clock().advance(by);
        self.time.advance(by);
    }

    /// The number of token fetches that WeChat has seen, with any answer.
    fn fetches(&self) -> u64 {
        let stats = self.wechat.control().app_stats(self.appid.as_str());
        stats.total(STABLE) + stats.total(LEGACY)
    }

    /// The number of token checks that WeChat has seen.
    fn checks(&self) -> u64 {
        let stats = self.wechat.control().app_stats(self.appid.as_str());
        stats.total(CHECK)
    }

    /// From now on WeChat refuses every token in a token check, but still returns the token to fetches.
    fn refuse_checks(&self) {
        let refused = Effect::Errcode {
            errcode: 40001,
            errmsg: None,
        };
        let control = self.wechat.control();
        control.add_fault(Fault::always(refused).for_path(CHECK));
    }

    /// The number of effective forced refreshes.
    fn forced(&self) -> u64 {
        let stats = self.wechat.control().app_stats(self.appid.as_str());
        stats.total(&format!("{STABLE}#force_refresh"))
    }

    async fn token(&self, broker: &Broker) -> Token {
        broker.token(&self.appid).await.unwrap()
    }

    /// Waits until the background refresh has brought a token later than `generation`.
    async fn later_than(&self, broker: &Broker, generation: u64) -> Token {
        until(async || Some(self.token(broker).await).filter(|token| token.generation > generation))
            .await
    }
}

/// Whether WeChat accepts the token in a call.
async fn accepts(client: &Client, token: &Token) -> bool {
    client.quota(&token.value, Channel::Subscribe).await.is_ok()
}

/// The coordination of replicas that share a Redis.
fn over(redis: &Redis, world: &World) -> Coord {
    Coord::redis(&redis.url(), world.clock.clone()).unwrap()
}

/// Records the events.
#[derive(Default)]
struct Diary(Mutex<Vec<(AppId, BrokerEvent)>>);

#[async_trait::async_trait]
impl Observer for Diary {
    async fn observe(&self, appid: &AppId, event: BrokerEvent) {
        self.0.lock().unwrap().push((appid.clone(), event));
    }
}

impl Diary {
    fn events(&self) -> Vec<BrokerEvent> {
        let entries = self.0.lock().unwrap();
        entries.iter().map(|(_, event)| *event).collect()
    }
}

/// Repeats `ask` until the answer is not `None`.
async fn until<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let answered = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LOST, answered)
        .await
        .expect("it never happens")
}
