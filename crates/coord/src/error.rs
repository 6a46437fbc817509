//! Why an agreement could not be reached.

/// Why a call did not work. None of them may stop a message: whoever gets one goes on alone.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum CoordError {
    /// Redis does not answer, or refuses.
    #[error(
        "Redis is unavailable ({detail}): sending goes on, but each replica counts for itself; check that the server of WXGATE_REDIS_URL runs and can be reached"
    )]
    Unavailable {
        /// What the connection says, without the URL.
        detail: String,
    },
    /// Redis shows a certificate that is not trusted.
    #[error(
        "the certificate of Redis is not trusted ({detail}): set WXGATE_REDIS_CA_FILE to the certificate of the CA that signed it, and name the host in WXGATE_REDIS_URL as the certificate does"
    )]
    Certificate {
        /// What the connection says, without the URL.
        detail: String,
    },
    /// Redis answers, and does not do what replicas need.
    #[error(
        "Redis does not do what replicas need ({detail}): let its user run scripts and write keys (`ACL SETUSER … ~wxgate:* &wxgate:* +@read +@write +@pubsub +@scripting +@connection +@hash +time +ping`), let WXGATE_REDIS_URL name the primary, and give it memory"
    )]
    Refused {
        /// What Redis says.
        detail: String,
    },
    /// Redis is a cluster, and this server does not have every key.
    #[error(
        "the server of WXGATE_REDIS_URL is part of a cluster ({detail}), and the gateway talks to one server: use a Redis without cluster mode, or a cluster of one master that has all 16384 slots"
    )]
    Cluster {
        /// What it has of the cluster.
        detail: String,
    },
    /// The URL names no Redis.
    #[error(
        "WXGATE_REDIS_URL cannot be used ({detail}): write it as redis://[user:password@]host[:port][/database], or rediss:// for TLS, where / ? # @ : and % in the password are %2F %3F %23 %40 %3A and %25"
    )]
    BadUrl {
        /// What is wrong with it, without the URL.
        detail: String,
    },
}

/// What a caller may make of a [`CoordError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CoordErrorKind {
    /// Passes by itself.
    Unavailable,
    /// Stays until the settings change.
    Settings,
}

impl CoordError {
    /// The kind of failure.
    pub fn kind(&self) -> CoordErrorKind {
        match self {
            Self::Unavailable { .. } => CoordErrorKind::Unavailable,
            Self::BadUrl { .. }
            | Self::Certificate { .. }
            | Self::Refused { .. }
            | Self::Cluster { .. } => CoordErrorKind::Settings,
        }
    }
}
