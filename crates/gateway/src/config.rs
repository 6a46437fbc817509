//! The configuration of a gateway as values, independent of environment and files.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use coord::Coord;
use delivery::Retention;
use domain::seal::MasterKey;
use reqwest::header::HeaderValue;
use store::Engine;

use crate::proxies::TrustedProxies;

/// The base URL of the real WeChat.
pub(crate) const WECHAT: &str = "https://api.weixin.qq.com";

/// The mode of the gateway, which follows from the URLs of the database and of Redis. Evaluated once, at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// SQLite and a single process: coordination in this process.
    Embedded,
    /// PostgreSQL and any number of replicas, which coordinate through Redis.
    Production {
        /// The URL of Redis.
        redis_url: String,
    },
}

/// The reason why two URLs give no mode.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModeError {
    /// The database URL names no supported database.
    #[error("{0}")]
    DatabaseUrl(String),
    /// The Redis URL is invalid.
    #[error("{0}")]
    RedisUrl(String),
    /// SQLite with Redis.
    #[error(
        "a gateway on SQLite runs as a single replica and does not use Redis: unset WXGATE_REDIS_URL, or set WXGATE_DATABASE_URL to a postgres:// URL"
    )]
    SqliteWithRedis,
    /// PostgreSQL without Redis.
    #[error(
        "replicas on PostgreSQL need Redis for coordination: set WXGATE_REDIS_URL, such as redis://127.0.0.1:6379, and the same WXGATE_MASTER_KEY or WXGATE_MASTER_KEY_FILE on all replicas, or use SQLite with WXGATE_DATABASE_URL=sqlite://wxgate-data/wxgate.db"
    )]
    PostgresWithoutRedis,
}

impl Mode {
    /// The mode that follows from these URLs.
    pub fn of(database_url: &str, redis_url: Option<&str>) -> Result<Self, ModeError> {
        let engine =
            Engine::of(database_url).map_err(|error| ModeError::DatabaseUrl(error.to_string()))?;
        if let Some(redis_url) = redis_url {
            Coord::check_url(redis_url).map_err(|error| ModeError::RedisUrl(error.to_string()))?;
        }
        match (engine, redis_url) {
            (Engine::Sqlite, None) => Ok(Self::Embedded),
            (Engine::Postgres, Some(redis_url)) => Ok(Self::Production {
                redis_url: redis_url.to_owned(),
            }),
            (Engine::Sqlite, Some(_)) => Err(ModeError::SqliteWithRedis),
            (Engine::Postgres, None) => Err(ModeError::PostgresWithoutRedis),
        }
    }

    /// The name of the mode.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Production { .. } => "production",
        }
    }
}

/// Time limits for clients, so that slow clients cannot hold resources for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientTimeouts {
    /// For the first bytes of a new connection, until its protocol is known.
    pub silence: Duration,
    /// For a connection on which no request is in progress and no part of an answer is taken. Longer than the minute
    /// after which load balancers close their connections, so that the load balancer closes first.
    pub idle: Duration,
    /// For the head of a request.
    pub head: Duration,
    /// For the body of a request, counted from the end of its head.
    pub body: Duration,
    /// For the client to take more bytes of an answer. The limit does not apply while there are no bytes to send, such
    /// as while a request waits.
    pub answer: Duration,
}

impl Default for ClientTimeouts {
    fn default() -> Self {
        Self {
            silence: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            head: Duration::from_secs(75),
            body: Duration::from_secs(30),
            answer: Duration::from_secs(30),
        }
    }
}

/// The configuration of a gateway.
#[derive(Clone, Debug)]
pub struct Config {
    /// The address on which the gateway listens. Port 0 takes a free port.
    pub listen: SocketAddr,
    /// The URL of the database.
    pub database_url: String,
    /// The mode that follows from the two URLs: see [`Mode::of`].
    pub mode: Mode,
    /// The CA certificates for Redis, in PEM. `None`: the certificates that the system trusts.
    pub redis_ca: Option<Vec<u8>>,
    /// The master key, which encrypts secrets at rest.
    pub master_key: MasterKey,
    /// The base URL of WeChat's API.
    pub wechat_base_url: String,
    /// The time-out of one call of WeChat's API.
    pub wechat_timeout: Duration,
    /// The public URL of the gateway. `None`: the listen address. This URL is the issuer and the audience of access
    /// tokens, so all replicas need the same URL.
    pub public_url: Option<String>,
    /// The largest number of simultaneous sends.
    pub sending_slots: usize,
    /// The longest time that a stop takes.
    pub shutdown_timeout: Duration,
    /// The part of the shutdown time-out in which the gateway still accepts connections, at most half.
    pub shutdown_grace: Duration,
    /// The times for which ended messages, payloads and audit lines are kept.
    pub retention: Retention,
    /// The proxies whose statement about the client's address the gateway trusts.
    pub trusted_proxies: TrustedProxies,
    /// The origins whose web pages may call the API.
    pub cors_origins: Vec<HeaderValue>,
    /// The largest number of simultaneous connections.
    pub max_connections: usize,
    /// The time limits for clients.
    pub patience: ClientTimeouts,
    /// Whether webhook URLs may lead into private networks and may use plain http.
    pub allow_private_webhooks: bool,
    /// Whether requests continue the traces of their callers.
    pub traced: bool,
    /// Whether the start applies pending migrations. If not, a pending migration prevents the start.
    pub migrate: bool,
}

impl Config {
    /// The default configuration, on a free port of this machine.
    pub fn new(
        database_url: &str,
        redis_url: Option<&str>,
        master_key: MasterKey,
    ) -> Result<Self, ModeError> {
        Ok(Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            database_url: database_url.to_owned(),
            mode: Mode::of(database_url, redis_url)?,
            redis_ca: None,
            master_key,
            wechat_base_url: WECHAT.to_owned(),
            wechat_timeout: Duration::from_secs(5),
            public_url: None,
            sending_slots: 1024,
            shutdown_timeout: Duration::from_secs(30),
            shutdown_grace: Duration::ZERO,
            retention: Retention::default(),
            trusted_proxies: TrustedProxies::default(),
            cors_origins: Vec::new(),
            max_connections: 10_000,
            patience: ClientTimeouts::default(),
            allow_private_webhooks: false,
            traced: false,
            migrate: true,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_pairs_are_modes_and_the_others_say_what_to_change() {
        let (sqlite, postgres, redis) = (
            "sqlite://a/b.db",
            "postgres://db/wxgate",
            Some("redis://cache"),
        );
        assert_eq!(Mode::of(sqlite, None), Ok(Mode::Embedded));
        assert_eq!(
            Mode::of(postgres, redis),
            Ok(Mode::Production {
                redis_url: "redis://cache".into()
            })
        );
        assert_eq!(Mode::of(sqlite, redis), Err(ModeError::SqliteWithRedis));
        assert_eq!(
            Mode::of(postgres, None),
            Err(ModeError::PostgresWithoutRedis)
        );
        for wrong in ["mysql://db", "wxgate.db", ""] {
            let refused = Mode::of(wrong, None).unwrap_err().to_string();
            assert!(refused.contains("WXGATE_DATABASE_URL"), "{refused}");
        }
    }

    #[test]
    fn a_url_that_cannot_be_read_is_refused_without_its_password() {
        let redis = Some("redis://cache");
        for password in [
            "Zm9v/YmFy",
            "Zm9v?YmFy",
            "Zm9v#YmFy",
            "123/YmFy",
            "123?YmFy",
        ] {
            let database = format!("postgres://wx:{password}@127.0.0.1:5432/db");
            let refused = Mode::of(&database, redis).unwrap_err().to_string();
            assert!(refused.contains("WXGATE_DATABASE_URL"), "{refused}");
            assert!(
                refused.contains("%2F") && !refused.contains("YmFy"),
                "{refused}"
            );
            let redis = format!("redis://:{password}@127.0.0.1:6379/0");
            let refused = Mode::of("postgres://db/wxgate", Some(&redis));
            let refused = refused.unwrap_err().to_string();
            assert!(refused.contains("WXGATE_REDIS_URL"), "{refused}");
            assert!(
                refused.contains("%2F") && !refused.contains("YmFy"),
                "{refused}"
            );
        }
        for fine in [
            "postgres://wx:Zm9v%2FYmFy@127.0.0.1:5432/db",
            "postgres://wx:p@ss@db/wxgate?sslmode=require",
            "postgresql:///wxgate?host=/var/run/postgresql&user=wx",
        ] {
            assert!(Mode::of(fine, redis).is_ok(), "{fine}");
        }
        for fine in [
            "rediss://wx:Zm9v%2FYmFy@cache:6379/1",
            "unix:///run/redis.sock",
        ] {
            assert!(
                Mode::of("postgres://db/wxgate", Some(fine)).is_ok(),
                "{fine}"
            );
        }
    }
}
