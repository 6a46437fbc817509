//! The connection to Redis, and the time that a caller waits for Redis.
//!
//! A circuit breaker protects callers from a Redis that does not answer. The first exchange without an answer in time,
//! or with a lost connection, opens the breaker. From then on every call fails at once, including the calls in
//! progress. No caller ever tests Redis: one background task, [`Link::probe`], sends a PING once a second and closes
//! the breaker at the first answer.

use std::{future::Future, sync::Arc, time::Duration};

use redis::{
    Client, ConnectionInfo, IntoConnectionInfo, RedisError, RedisResult, Script, TlsCertificates,
    aio::{ConnectionManager, ConnectionManagerConfig},
    io::tcp::TcpSettings,
};
use tokio::sync::watch;

use super::standing::RedisState;
use crate::{Clock, CoordError};

/// The longest time that a call waits for an answer: long enough for a busy Redis, short enough to go on without Redis.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);
/// The time between two probes. In real time under every clock, because the network uses real time.
const REST: Duration = Duration::from_secs(1);
/// Data that stays unacknowledged for this long ends a connection, where a peer vanished silently.
const USER_TIMEOUT: Duration = Duration::from_secs(5);

/// One connection that all calls share. The connection restores itself, and clones share the connection.
#[derive(Clone)]
pub(super) struct Link {
    client: Client,
    manager: ConnectionManager,
    /// Why the breaker is open; none: the breaker is closed, and calls are made.
    breaker: Arc<watch::Sender<Option<Arc<str>>>>,
    standing: RedisState,
}

impl Link {
    /// Prepares a connection that is made at the first use. `ca`: the CA certificates for the server's certificate, in
    /// PEM; none: the certificates that the system trusts.
    pub(super) fn open(url: &str, ca: Option<&[u8]>) -> Result<Self, CoordError> {
        let tcp = TcpSettings::default()
            .set_nodelay(true)
            .set_user_timeout(USER_TIMEOUT);
        let info = connection(url)?.set_tcp_settings(tcp);
        let client = match ca {
            None => Client::open(info),
            Some(pem) => Client::build_with_tls(
                info,
                TlsCertificates {
                    client_tls: None,
                    root_cert: Some(pem.to_vec()),
                },
            ),
        };
        let client = client.map_err(|error| bad_url(&error))?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE))
            // The next probe is the retry.
            .set_number_of_retries(0);
        let manager = ConnectionManager::new_lazy_with_config(client.clone(), config)
            .map_err(|error| bad_url(&error))?;
        Ok(Self {
            client,
            manager,
            breaker: Arc::new(watch::Sender::new(None)),
            standing: RedisState::default(),
        })
    }

    /// The client, for separate connections.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// The shared connection, to build the future that [`Link::ask`] runs.
    pub(super) fn manager(&self) -> ConnectionManager {
        self.manager.clone()
    }

    /// Whether Redis answers and takes writes, as the last calls have shown.
    pub(super) fn is_up(&self) -> bool {
        self.standing.is_up()
    }

    /// Runs one exchange. Fails within [`PATIENCE`], and at once while the breaker is open.
    pub(super) async fn ask<T>(
        &self,
        exchange: impl Future<Output = RedisResult<T>>,
    ) -> Result<T, CoordError> {
        self.exchange(exchange, false).await
    }

    /// As [`Link::ask`]; `to_watch`: a refusal of this exchange means that Redis refuses everything.
    async fn exchange<T>(
        &self,
        exchange: impl Future<Output = RedisResult<T>>,
        to_watch: bool,
    ) -> Result<T, CoordError> {
        let mut breaker = self.breaker.subscribe();
        let opened = async {
            let opened = breaker.wait_for(Option::is_some).await;
            opened.ok().and_then(|why| why.clone())
        };
        tokio::select! {
            biased;
            Some(why) = opened => {
                Err(lost(format!("{why}, a moment ago")))
            }
            answer = self.exchange_alone(exchange, to_watch) => answer,
        }
    }

    /// Runs one exchange even while the breaker is open. An exchange without an answer opens the breaker.
    async fn exchange_alone<T>(
        &self,
        exchange: impl Future<Output = RedisResult<T>>,
        to_watch: bool,
    ) -> Result<T, CoordError> {
        match tokio::time::timeout(PATIENCE, exchange).await {
            Ok(Ok(answer)) => {
                self.standing.answers(to_watch);
                Ok(answer)
            }
            Ok(Err(error)) => {
                if is_lost(&error) {
                    self.open_breaker(&error.to_string());
                } else if to_watch {
                    self.standing.is_refusing(&error.to_string());
                }
                Err(unavailable(&error))
            }
            Err(_elapsed) => {
                let detail = format!("no answer within {PATIENCE:?}");
                self.open_breaker(&detail);
                Err(CoordError::Unavailable { detail })
            }
        }
    }

    /// Sends a PING.
    pub(super) async fn ping(&self) -> Result<(), CoordError> {
        self.ask(ping(self.manager())).await
    }

    /// Checks that Redis can do all that replicas need, and leaves nothing in Redis.
    pub(super) async fn examine(&self) -> Result<(), CoordError> {
        let mut manager = self.manager();
        let cluster = redis::cmd("CLUSTER").arg("INFO").to_owned();
        let asked = async { cluster.query_async::<String>(&mut manager).await };
        // A server that is no cluster refuses the question.
        if let Ok(Ok(told)) = tokio::time::timeout(PATIENCE, asked).await
            && let Some(detail) = incomplete(&told)
        {
            return Err(CoordError::Cluster { detail });
        }
        let mut manager = self.manager();
        let script = Script::new(EXAMINE);
        let call = script.key("wxgate:examined");
        let asked = async { call.invoke_async::<()>(&mut manager).await };
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) if is_lost(&error) => Err(unavailable(&error)),
            Ok(Err(error)) => Err(CoordError::Refused {
                detail: error.to_string(),
            }),
            Err(_elapsed) => Err(CoordError::Unavailable {
                detail: format!("no answer within {PATIENCE:?}"),
            }),
        }
    }

    /// Returns the name that Redis keeps as long as Redis keeps data, and sets the name to `new` if there is none. A
    /// changed name means that Redis was emptied.
    pub(super) async fn name(&self, new: &str) -> Result<String, CoordError> {
        let mut manager = self.manager();
        let script = Script::new(NAME);
        let mut call = script.key("wxgate:name");
        call.arg(new);
        self.exchange(async move { call.invoke_async(&mut manager).await }, true)
            .await
    }

    /// Probes the shared connection at once, after Redis has answered on another connection. The first probe may only
    /// report that the previous one had failed.
    pub(super) async fn revive(&self) {
        for _ in 0..2 {
            if self.probe_once().await {
                return;
            }
        }
    }

    /// The background task that closes the breaker when Redis answers.
    pub(super) async fn probe(self) {
        let mut breaker = self.breaker.subscribe();
        while breaker.wait_for(Option::is_some).await.is_ok() {
            if !self.probe_once().await {
                tokio::time::sleep(REST).await;
            }
        }
    }

    /// Sends a probe. Closes the breaker and returns true if Redis answers.
    async fn probe_once(&self) -> bool {
        let answer = self.exchange_alone(ping(self.manager()), false).await;
        if answer.is_ok() {
            self.breaker.send_replace(None);
        }
        answer.is_ok()
    }

    fn open_breaker(&self, why: &str) {
        self.standing.is_away(why);
        self.breaker.send_if_modified(|open| {
            let opens = open.is_none();
            open.get_or_insert_with(|| why.into());
            opens
        });
    }
}

async fn ping(mut manager: ConnectionManager) -> RedisResult<()> {
    redis::cmd("PING").query_async(&mut manager).await
}

/// Whether an exchange ended without an answer from Redis.
fn is_lost(error: &RedisError) -> bool {
    error.is_io_error() || error.is_timeout() || error.is_connection_dropped()
}

/// A script that gets the time as an argument.
pub(super) struct TimedScript(Script);

impl TimedScript {
    /// `body` gets the time in microseconds as `now`, and how long to keep expired keys in milliseconds as `grace`.
    pub(super) fn new(body: &str) -> Self {
        Self(Script::new(&format!("{PRELUDE}{body}")))
    }

    /// Prepares a call on `key`. The caller adds the arguments from `ARGV[3]` on.
    pub(super) fn call<'a>(&'a self, clock: &Clock, key: &str) -> redis::ScriptInvocation<'a> {
        if clock.is_manual() {
            return self.call_by(clock, key);
        }
        let mut call = self.0.key(key);
        call.arg(-1).arg(0);
        call
    }

    /// As [`TimedScript::call`], by `clock` instead of Redis's own clock: for comparisons with a replica's time.
    pub(super) fn call_by<'a>(&'a self, clock: &Clock, key: &str) -> redis::ScriptInvocation<'a> {
        let mut call = self.0.key(key);
        let grace = if clock.is_manual() {
            MANUAL_GRACE_MS
        } else {
            0
        };
        call.arg(clock.now().timestamp_micros()).arg(grace);
        call
    }
}

/// The kinds of commands that this crate uses, on a key that is deleted again.
const EXAMINE: &str = "
redis.call('TIME')
redis.call('HSET', KEYS[1], 'a', 1)
redis.call('PEXPIRE', KEYS[1], 1000)
redis.call('HGET', KEYS[1], 'a')
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], 1, 'PX', 1000)
redis.call('GET', KEYS[1])
redis.call('DEL', KEYS[1])
redis.call('PUBLISH', 'wxgate:examined', '')
";

/// Why a server with this `CLUSTER INFO` does not have every key; none: the server has every key, or is no cluster.
fn incomplete(told: &str) -> Option<String> {
    const ALL: &str = "16384";
    let of = |name: &str| {
        let line = told.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.strip_prefix(':')).map(str::trim)
    };
    let (slots, masters) = (of("cluster_slots_ok")?, of("cluster_size")?);
    let is_whole = slots == ALL && masters == "1" && of("cluster_state") == Some("ok");
    (!is_whole).then(|| format!("{masters} masters serve {slots} of {ALL} slots"))
}

/// The name expires one day after the last replica has asked.
const NAME: &str = "
redis.call('SET', KEYS[1], ARGV[1], 'NX')
redis.call('EXPIRE', KEYS[1], 86400)
return redis.call('GET', KEYS[1])
";

/// Redis's own clock judges what Redis alone has timed, such as leases and limits, because that clock is the same for
/// all replicas. A manual clock replaces Redis's clock.
const PRELUDE: &str = "
local now = tonumber(ARGV[1])
local grace = tonumber(ARGV[2])
if now < 0 then
    local time = redis.call('TIME')
    now = time[1] * 1000000 + time[2]
end
";

/// Redis removes keys by real time; under a manual clock keys stay long enough for the scripts to judge deadlines.
const MANUAL_GRACE_MS: i64 = 86_400_000;

fn unavailable(error: &RedisError) -> CoordError {
    lost(error.to_string())
}

/// Chooses the error for a lost connection by the text of the failure.
fn lost(detail: String) -> CoordError {
    // The text of rustls for a certificate that is not trusted, or that is for another host.
    if detail.contains("certificate") {
        return CoordError::Certificate { detail };
    }
    CoordError::Unavailable { detail }
}

/// Parses a URL. A bare `/`, `?` or `#` in the password ends the part that names the server, and the rest of the
/// password would be read as something else.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_must_be_one_server_with_all_slots() {
        let told = |state: &str, slots: &str, masters: &str| {
            format!(
                "cluster_state:{state}\r\ncluster_slots_assigned:{slots}\r\ncluster_slots_ok:{slots}\r\ncluster_size:{masters}\r\n"
            )
        };
        assert_eq!(incomplete(&told("ok", "16384", "1")), None);
        for told in [
            told("fail", "8192", "1"),
            told("ok", "8192", "1"),
            told("ok", "16384", "3"),
        ] {
            assert!(incomplete(&told).is_some(), "{told}");
        }
        assert_eq!(incomplete("ERR something else"), None);
    }
}
