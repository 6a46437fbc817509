//! The connection to Redis, and how long anybody waits for it.

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use redis::{
    Client, ConnectionInfo, IntoConnectionInfo, RedisError, RedisResult, Script,
    aio::{ConnectionManager, ConnectionManagerConfig},
    io::tcp::TcpSettings,
};

use super::standing::Standing;
use crate::{Clock, CoordError};

/// The longest anybody waits for an answer: long enough for a busy Redis, short enough to go on without it.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);
/// How long calls fail at once after Redis did not answer. In real time under every clock: the network has its own.
const REST: Duration = Duration::from_secs(1);
/// Data that stays unacknowledged for this long ends a connection, where a peer vanished without a word.
const USER_TIMEOUT: Duration = Duration::from_secs(5);

/// A time in which nobody asks.
struct Rest {
    until: Instant,
    why: String,
}

/// One connection that all calls share; it comes back by itself. Clones share it too.
#[derive(Clone)]
pub(super) struct Link {
    client: Client,
    manager: ConnectionManager,
    rest: Arc<Mutex<Option<Rest>>>,
    standing: Standing,
}

impl Link {
    /// Prepares a connection that is made at the first use.
    pub(super) fn open(url: &str) -> Result<Self, CoordError> {
        let tcp = TcpSettings::default()
            .set_nodelay(true)
            .set_user_timeout(USER_TIMEOUT);
        let info = connection(url)?.set_tcp_settings(tcp);
        let client = Client::open(info).map_err(|error| bad_url(&error))?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE))
            // Each probe is one try: the next caller is the retry.
            .set_number_of_retries(0);
        let manager = ConnectionManager::new_lazy_with_config(client.clone(), config)
            .map_err(|error| bad_url(&error))?;
        Ok(Self {
            client,
            manager,
            rest: Arc::default(),
            standing: Standing::default(),
        })
    }

    /// For connections of one's own.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// For building the future that [`Link::ask`] runs.
    pub(super) fn manager(&self) -> ConnectionManager {
        self.manager.clone()
    }

    /// Whether Redis took the last thing that it was asked.
    pub(super) fn is_up(&self) -> bool {
        self.standing.is_up()
    }

    /// Runs one exchange. Fails within [`PATIENCE`], and at once while Redis is known to be away.
    pub(super) async fn ask<T>(
        &self,
        exchange: impl Future<Output = RedisResult<T>>,
    ) -> Result<T, CoordError> {
        self.exchange(exchange, false).await
    }

    /// As [`Link::ask`]; `to_watch`: a refusal is one of everything.
    async fn exchange<T>(
        &self,
        exchange: impl Future<Output = RedisResult<T>>,
        to_watch: bool,
    ) -> Result<T, CoordError> {
        if let Some(why) = self.why_resting() {
            let detail = format!("{why}, a moment ago");
            return Err(CoordError::Unavailable { detail });
        }
        match tokio::time::timeout(PATIENCE, exchange).await {
            Ok(Ok(answer)) => {
                self.set_rest(None);
                self.standing.answers(to_watch);
                Ok(answer)
            }
            Ok(Err(error)) => {
                if error.is_io_error() || error.is_timeout() || error.is_connection_dropped() {
                    self.begin_rest(&error.to_string());
                } else if to_watch {
                    self.standing.is_refusing(&error.to_string());
                }
                Err(unavailable(&error))
            }
            Err(_elapsed) => {
                let detail = format!("no answer within {PATIENCE:?}");
                self.begin_rest(&detail);
                Err(CoordError::Unavailable { detail })
            }
        }
    }

    /// Asks for a sign of life.
    pub(super) async fn ping(&self) -> Result<(), CoordError> {
        let mut manager = self.manager();
        self.ask(async move { redis::cmd("PING").query_async::<()>(&mut manager).await })
            .await
    }

    /// The name that Redis keeps as long as it keeps anything: another one means that it was emptied. `new` is what it is
    /// called from now on if it has none.
    pub(super) async fn name(&self, new: &str) -> Result<String, CoordError> {
        let mut manager = self.manager();
        let script = Script::new(NAME);
        let mut call = script.key("wxgate:name");
        call.arg(new);
        self.exchange(async move { call.invoke_async(&mut manager).await }, true)
            .await
    }

    /// Called by whoever has just seen Redis alive over another connection: ends the rest, and has the shared
    /// connection find out now. Its first try may only report that the last one had failed.
    pub(super) async fn revive(&self) {
        for _ in 0..2 {
            self.set_rest(None);
            if self.ping().await.is_ok() {
                return;
            }
        }
    }

    /// Why to fail at once; none: ask. When the rest is over one caller goes ahead as the probe; the others rest on
    /// until it has an answer, which ends the rest for all.
    fn why_resting(&self) -> Option<String> {
        let mut rest = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = rest.as_mut()?;
        if Instant::now() < rest.until {
            return Some(rest.why.clone());
        }
        rest.until = Instant::now() + REST;
        None
    }

    fn begin_rest(&self, why: &str) {
        self.standing.is_away(why);
        self.set_rest(Some(Rest {
            until: Instant::now() + REST,
            why: why.to_owned(),
        }));
    }

    fn set_rest(&self, rest: Option<Rest>) {
        *self.rest.lock().unwrap_or_else(PoisonError::into_inner) = rest;
    }
}

/// A script that is told the time.
pub(super) struct TimedScript(Script);

impl TimedScript {
    /// `body` finds the time in microseconds as `now` and, in milliseconds as `grace`, how long to keep keys beyond their end.
    pub(super) fn new(body: &str) -> Self {
        Self(Script::new(&format!("{PRELUDE}{body}")))
    }

    /// A call on `key`, to which the arguments from `ARGV[3]` on are added.
    pub(super) fn call<'a>(&'a self, clock: &Clock, key: &str) -> redis::ScriptInvocation<'a> {
        let mut call = self.0.key(key);
        if clock.is_manual() {
            call.arg(clock.now().timestamp_micros())
                .arg(MANUAL_GRACE_MS);
        } else {
            call.arg(-1).arg(0);
        }
        call
    }
}

/// Ends by itself, a day after the last replica has asked.
const NAME: &str = "
redis.call('SET', KEYS[1], ARGV[1], 'NX')
redis.call('EXPIRE', KEYS[1], 86400)
return redis.call('GET', KEYS[1])
";

/// Redis's own clock is the one that all replicas share; only a clock that is turned by hand replaces it.
const PRELUDE: &str = "
local now = tonumber(ARGV[1])
local grace = tonumber(ARGV[2])
if now < 0 then
    local time = redis.call('TIME')
    now = time[1] * 1000000 + time[2]
end
";

/// Redis removes keys by real time; under a manual clock they stay long enough for the scripts to be the judge.
const MANUAL_GRACE_MS: i64 = 86_400_000;

fn unavailable(error: &RedisError) -> CoordError {
    CoordError::Unavailable {
        detail: error.to_string(),
    }
}

/// What a URL says. A bare `/`, `?` or `#` in its password ends the part that names the server: what is left of the password
/// would be taken for something else.
pub(super) fn connection(url: &str) -> Result<ConnectionInfo, CoordError> {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    let server = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if rest[server.len()..].contains('@') {
        return Err(CoordError::BadUrl {
            detail: "an @ comes too late".to_owned(),
        });
    }
    url.into_connection_info().map_err(|error| bad_url(&error))
}

fn bad_url(error: &RedisError) -> CoordError {
    CoordError::BadUrl {
        detail: error.to_string(),
    }
}
