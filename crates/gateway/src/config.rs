//! What a gateway is started with, as values: no environment, no files.

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

/// Where the real WeChat is.
pub(crate) const WECHAT: &str = "https://api.weixin.qq.com";

/// How the gateway runs, as it follows from the two URLs. Matched once, when it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// SQLite, alone: coordination in this process.
    Embedded,
    /// PostgreSQL, any number of replicas, which agree through Redis.
    Production {
        /// Where Redis is.
        redis_url: String,
    },
}

/// Why two URLs make no mode.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModeError {
    /// The database URL names no database that is known.
    #[error("{0}")]
    DatabaseUrl(String),
    /// The Redis URL names no Redis.
    #[error("{0}")]
    RedisUrl(String),
    /// SQLite with Redis.
    #[error(
        "SQLite is for a single gateway, which needs no Redis: unset WXGATE_REDIS_URL, or set WXGATE_DATABASE_URL to a postgres:// URL"
    )]
    SqliteWithRedis,
    /// PostgreSQL without Redis.
    #[error(
        "PostgreSQL is for replicas, which agree through Redis: set WXGATE_REDIS_URL, such as redis://127.0.0.1:6379, and the same WXGATE_MASTER_KEY or WXGATE_MASTER_KEY_FILE for all, or use SQLite with WXGATE_DATABASE_URL=sqlite://wxgate-data/wxgate.db"
    )]
    PostgresWithoutRedis,
}

impl Mode {
    /// The mode that these URLs ask for.
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

    /// Its name.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Production { .. } => "production",
        }
    }
}

/// How long clients may take, so that slow ones hold nothing for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// A new connection, to say its first word, or to leave open which protocol it speaks.
    pub silence: Duration,
    /// A connection on which no request is worked on and no answer taken. Longer than the minute after which load balancers
    /// close theirs: they must be the ones to hang up.
    pub idle: Duration,
    /// A request, to send its head.
    pub head: Duration,
    /// A request, to send its body, counted from the end of its head.
    pub body: Duration,
    /// Who is answered, to take some more of the answer. While there is nothing to send, as while a request waits, nobody is
    /// hurried.
    pub answer: Duration,
}

impl Default for Patience {
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

/// What a gateway is started with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// The database.
    pub database_url: String,
    /// What follows from the two URLs: see [`Mode::of`].
    pub mode: Mode,
    /// The certificates that the one of Redis is to be signed by, in PEM; none: those that the system trusts.
    pub redis_ca: Option<Vec<u8>>,
    /// Seals secrets at rest.
    pub master_key: MasterKey,
    /// Where WeChat is.
    pub wechat_base_url: String,
    /// The longest that one call of WeChat may take.
    pub wechat_timeout: Duration,
    /// Where the world reaches the gateway; none: where it listens. Access tokens are issued by and for this URL,
    /// so replicas must be given the same one.
    pub public_url: Option<String>,
    /// Sends under way at the same time.
    pub sending_slots: usize,
    /// How long a stop takes at most.
    pub shutdown_timeout: Duration,
    /// How long of that connections are still accepted, at most half.
    pub shutdown_grace: Duration,
    /// How long messages are kept after they have ended.
    pub retention: Retention,
    /// The proxies that are believed when they say whom they speak for.
    pub trusted_proxies: TrustedProxies,
    /// Origins whose web pages may call the API.
    pub cors_origins: Vec<HeaderValue>,
    /// Connections at the same time.
    pub max_connections: usize,
    /// How long clients may take.
    pub patience: Patience,
    /// Whether webhooks may be in private networks, also without https.
    pub allow_private_webhooks: bool,
    /// Whether requests go on with the traces of their callers.
    pub traced: bool,
    /// Whether to apply pending migrations; if not, they are a reason not to start.
    pub migrate: bool,
}

impl Config {
    /// The defaults, on a free port of this machine.
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
            patience: Patience::default(),
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
