//! The connection to Redis, and how long a caller waits for it.
//!
//! A breaker stands before the connection. The first exchange that is not answered in time, or that loses its connection,
//! opens it: from then on every call fails at once, those that are under way among them. No caller ever tries Redis out:
//! one background task, [`Link::probe`], asks for a sign of life until there is one and closes the breaker.

use std::{future::Future, sync::Arc, time::Duration};

use redis::{
    Client, ConnectionInfo, IntoConnectionInfo, RedisError, RedisResult, Script, TlsCertificates,
    aio::{ConnectionManager, ConnectionManagerConfig},
    io::tcp::TcpSettings,
};
use tokio::sync::watch;

use super::standing::Standing;
use crate::{Clock, CoordError};

/// The longest that a call waits for an answer: long enough for a busy Redis, short enough to go on without it.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);
/// The time between two probes. In real time under every clock: the network has its own.
const REST: Duration = Duration::from_secs(1);
/// Data that stays unacknowledged for this long ends a connection, where a peer vanished without a word.
const USER_TIMEOUT: Duration = Duration::from_secs(5);

/// One connection that all calls share; it comes back by itself. Clones share it too.
#[derive(Clone)]
pub(super) struct Link {
    client: Client,
    manager: ConnectionManager,
    /// Why the breaker is open; none: it is closed, and calls are made.
    breaker: Arc<watch::Sender<Option<Arc<str>>>>,
    standing: Standing,
}

impl Link {
    /// Prepares a connection that is made at the first use. `ca`: the certificates that the server's is to be signed by, in
    /// PEM; none: those that the system trusts.
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

    /// Runs one exchange. Fails within [`PATIENCE`], and at once while the breaker is open.
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

    /// Runs one exchange whatever the breaker says. One that is lost opens it.
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

    /// Asks for a sign of life.
    pub(super) async fn ping(&self) -> Result<(), CoordError> {
        self.ask(ping(self.manager())).await
    }

    /// Asks for all that replicas need of Redis, and leaves nothing in it.
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

    /// Called where Redis was just seen alive over another connection: has the shared connection find out now. Its first
    /// try may only report that the last one had failed.
    pub(super) async fn revive(&self) {
        for _ in 0..2 {
            if self.try_out().await {
                return;
            }
        }
    }

    /// The background task of the breaker: closes it when Redis answers.
    pub(super) async fn probe(self) {
        let mut breaker = self.breaker.subscribe();
        while breaker.wait_for(Option::is_some).await.is_ok() {
            if !self.try_out().await {
                tokio::time::sleep(REST).await;
            }
        }
    }

    /// Whether Redis answers: then the breaker is closed.
    async fn try_out(&self) -> bool {
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

/// Whether an exchange ended without an answer of Redis's.
fn is_lost(error: &RedisError) -> bool {
    error.is_io_error() || error.is_timeout() || error.is_connection_dropped()
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
        if clock.is_manual() {
            return self.call_by(clock, key);
        }
        let mut call = self.0.key(key);
        call.arg(-1).arg(0);
        call
    }

    /// The same, which goes by `clock` instead of Redis's own: where what is compared is a time that a replica gave.
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

/// What the scripts of this crate do, on a key that is gone afterwards.
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

/// What keeps a server that has told this of its cluster from having every key.
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

/// Ends by itself, a day after the last replica has asked.
const NAME: &str = "
redis.call('SET', KEYS[1], ARGV[1], 'NX')
redis.call('EXPIRE', KEYS[1], 86400)
return redis.call('GET', KEYS[1])
";

/// Redis's own clock judges what Redis alone has timed, such as leases and limits: it is one for all replicas. A clock that is
/// turned by hand replaces it.
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
    lost(error.to_string())
}

/// Why there is no connection, by what was said of it.
fn lost(detail: String) -> CoordError {
    // What rustls says of one that it does not trust, or that is for another host.
    if detail.contains("certificate") {
        return CoordError::Certificate { detail };
    }
    CoordError::Unavailable { detail }
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
