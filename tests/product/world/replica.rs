//! A gateway of a world: in this process, or the real program in a separate process.

use std::{
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use coord::Clock;
use domain::{scope::ScopeSet, seal::MasterKey};
use gateway::{ClientTimeouts, Config, Gateway};
use store::Store;
use tenancy::{KeyOwner, NewKey};

use super::{
    client::Key,
    program::{self, Running, free_port},
    tenant::SECRET,
};

/// The settings of a gateway.
pub(crate) struct Place {
    pub(crate) database_url: String,
    pub(crate) redis_url: Option<String>,
    pub(crate) wechat_url: String,
    /// `None`: the default.
    pub(crate) sending_slots: Option<usize>,
    pub(crate) private_webhooks: bool,
    /// Only for a gateway in this process.
    pub(crate) patience: ClientTimeouts,
    /// Only for a gateway in this process; `None`: the default.
    pub(crate) wechat_timeout: Option<Duration>,
    /// Only for a gateway in a separate process: the log filter.
    pub(crate) log: &'static str,
    /// Only for a gateway in a separate process: `text` or `json`.
    pub(crate) log_format: &'static str,
    /// Only for a gateway in a separate process: the seconds during which connections are accepted after SIGTERM.
    pub(crate) grace: u64,
    /// Only for a gateway in a separate process: the file with the clock's offset; `None`: the machine's clock.
    pub(crate) clock: Option<PathBuf>,
    /// Only for a gateway in a separate process: the collector of traces; `None`: no traces.
    pub(crate) collector: Option<String>,
    pub(crate) folder: PathBuf,
}

impl Place {
    /// Sets these settings in the environment of the program.
    pub(crate) fn tell(&self, command: &mut Command) {
        command
            .env("WXGATE_DATABASE_URL", &self.database_url)
            .env("WXGATE_MASTER_KEY", BASE64_STANDARD.encode(MASTER_KEY))
            .env("WXGATE_WECHAT_BASE_URL", &self.wechat_url)
            .env(
                "WXGATE_ALLOW_PRIVATE_WEBHOOKS",
                self.private_webhooks.to_string(),
            );
        if let Some(redis_url) = &self.redis_url {
            command.env("WXGATE_REDIS_URL", redis_url);
        }
        if let Some(slots) = self.sending_slots {
            command.env("WXGATE_SENDING_SLOTS", slots.to_string());
        }
    }
}

/// The same for all replicas of all worlds.
pub(crate) const MASTER_KEY: [u8; 32] = [7; 32];

/// The issuer and audience of the gateway's tokens: the same URL for all replicas.
const PUBLIC_URL: &str = "http://wxgate.test";

pub(crate) enum Replica {
    /// A gateway in this process, with the clock of the test, and its URL.
    InProcess(Box<Gateway>, String),
    /// The program in a separate process, which a test can kill, and its URL.
    Process(Running, String),
}

impl Replica {
    /// Starts a gateway in this process.
    pub(crate) async fn in_process(place: &Place, clock: &Clock) -> Self {
        let key = MasterKey::from_bytes(MASTER_KEY);
        let config =
            Config::new(&place.database_url, place.redis_url.as_deref(), key).expect("a mode");
        let config = Config {
            wechat_base_url: place.wechat_url.clone(),
            public_url: Some(PUBLIC_URL.to_owned()),
            allow_private_webhooks: place.private_webhooks,
            patience: place.patience,
            wechat_timeout: place.wechat_timeout.unwrap_or(config.wechat_timeout),
            sending_slots: place.sending_slots.unwrap_or(config.sending_slots),
            ..config
        };
        let gateway = Gateway::start(config, clock.clone())
            .await
            .expect("a gateway");
        let url = gateway.local_url();
        Self::InProcess(Box::new(gateway), url)
    }

    /// Starts the program and waits until the gateway is ready, or only alive if the clock is off.
    pub(crate) async fn process(place: &Place) -> Self {
        static LOGS: AtomicUsize = AtomicUsize::new(0);
        let address = format!("127.0.0.1:{}", free_port());
        let mut command = program::wxgate(&place.folder);
        place.tell(&mut command);
        command
            .args(["serve", "--listen", &address])
            .env("WXGATE_PUBLIC_URL", PUBLIC_URL)
            .env("WXGATE_LOG", place.log)
            .env("WXGATE_LOG_FORMAT", place.log_format)
            .env("WXGATE_SHUTDOWN_GRACE", place.grace.to_string());
        if let Some(collector) = &place.collector {
            command.env("WXGATE_OTLP_ENDPOINT", collector);
        }
        let log = place.folder.join(format!(
            "gateway-{}.log",
            LOGS.fetch_add(1, Ordering::Relaxed)
        ));
        let url = format!("http://{address}");
        if let Some(file) = &place.clock {
            program::with_clock(&mut command, file);
        }
        let mut running = Running::start(command, log);
        if place.clock.is_none() {
            running.wait_ready(&url).await;
        } else {
            running.wait_alive(&url).await;
        }
        Self::Process(running, url)
    }

    pub(crate) fn url(&self) -> &str {
        match self {
            Self::InProcess(_, url) | Self::Process(_, url) => url,
        }
    }

    /// The gateway, which must run in this process.
    pub(crate) fn gateway(&self) -> &Gateway {
        match self {
            Self::InProcess(gateway, _) => gateway,
            Self::Process(..) => panic!("not in this process"),
        }
    }

    /// The database, through the gateway in this process.
    pub(crate) fn store(&self) -> &Store {
        self.gateway().store()
    }

    /// The log of the process.
    pub(crate) fn said(&self) -> String {
        match self {
            Self::InProcess(..) => panic!("not a process: World::plan(mode).own_process()"),
            Self::Process(running, _) => running.said(),
        }
    }

    /// Creates the first operator's key: through the library, or on the command line as every operator does.
    pub(crate) async fn operator_key(&self, place: &Place) -> Key {
        match self {
            Self::InProcess(gateway, _) => {
                let new = NewKey {
                    name: "operator".into(),
                    scopes: ScopeSet::all(),
                    expires_at: None,
                };
                let created = gateway
                    .tenancy()
                    .create_key(KeyOwner::Operator, new, None)
                    .await;
                let created = created.expect("an operator's key");
                Key {
                    client_id: created.key.id.to_string(),
                    client_secret: created.secret.expose().to_owned(),
                }
            }
            Self::Process(..) => {
                let mut command = program::wxgate(&place.folder);
                place.tell(&mut command);
                command.args([
                    "key",
                    "create",
                    "--operator",
                    "--name",
                    "operator",
                    "--json",
                ]);
                Key::of(&program::run(command).expect(0).json())
            }
        }
    }

    /// Stops the gateway gracefully. Asserts nothing after a failure of the test: a second panic would abort all tests.
    pub(crate) async fn stop(self) {
        let has_failed = std::thread::panicking();
        match self {
            Self::InProcess(gateway, _) => {
                let is_recorded = gateway.stop().await;
                assert!(is_recorded || has_failed, "something was left unrecorded");
            }
            Self::Process(mut running, _) => {
                let code = running.terminate();
                if !has_failed {
                    assert_eq!(code, Some(0), "{}", running.said());
                    assert_no_secrets(&running.said());
                }
            }
        }
    }

    /// Sends SIGTERM to the process, and returns the exit code.
    pub(crate) fn terminate(self) -> Option<i32> {
        match self {
            Self::InProcess(..) => panic!("not a process: World::plan(mode).own_process()"),
            Self::Process(mut running, _) => {
                let code = running.terminate();
                assert_no_secrets(&running.said());
                code
            }
        }
    }

    /// As [`Replica::terminate`], without blocking the test.
    pub(crate) async fn wait_terminated(self) -> Option<i32> {
        match self {
            Self::InProcess(..) => panic!("not a process: World::plan(mode).own_process()"),
            Self::Process(mut running, _) => {
                let code = running.wait_terminated().await;
                assert_no_secrets(&running.said());
                code
            }
        }
    }

    pub(crate) fn kill(self) {
        match self {
            Self::InProcess(..) => {
                panic!("only a process can be killed: World::plan(mode).own_process()")
            }
            Self::Process(mut running, _) => running.kill(),
        }
    }
}

impl super::World {
    /// The first gateway, which must run in a separate process.
    pub(crate) fn process(&self) -> &Running {
        match &self.replicas[0] {
            Replica::InProcess(..) => panic!("not a process: World::plan(mode).own_process()"),
            Replica::Process(running, _) => running,
        }
    }
}

/// Checks that the log has no AppSecret, no client secret and no access token of WeChat or of the gateway.
fn assert_no_secrets(log: &str) {
    for secret in [SECRET, "wxg_", "access_token=", "eyJ"] {
        assert!(!log.contains(secret), "`{secret}` is in the log: {log}");
    }
}
