//! The errors of coordination.

/// Why a call of Redis failed. No error may stop a message: the caller continues without coordination.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum CoordError {
    /// Redis does not answer, or refuses.
    #[error(
        "Redis is unavailable ({detail}): replicas still send, but each replica counts limits for itself; check that the server of WXGATE_REDIS_URL runs and can be reached"
    )]
    Unavailable {
        /// The text of the failure, without the URL.
        detail: String,
    },
    /// Redis shows a certificate that is not trusted.
    #[error(
        "the certificate of Redis is not trusted ({detail}): set WXGATE_REDIS_CA_FILE to the certificate of the CA that signed it, and use the host name of the certificate in WXGATE_REDIS_URL"
    )]
    Certificate {
        /// The text of the failure, without the URL.
        detail: String,
    },
    /// Redis answers, but does not do what replicas need.
    #[error(
        "Redis refuses a command that replicas need ({detail}): allow its user to run scripts and to write keys (`ACL SETUSER … ~wxgate:* &wxgate:* +@read +@write +@pubsub +@scripting +@connection +@hash +time +ping`), set WXGATE_REDIS_URL to the primary, and give Redis enough memory"
    )]
    Refused {
        /// The answer of Redis.
        detail: String,
    },
    /// Redis is a cluster, and this server does not have every key.
    #[error(
        "the server of WXGATE_REDIS_URL is part of a cluster ({detail}), but the gateway connects to one server: use a Redis without cluster mode, or a cluster of one master that has all 16384 slots"
    )]
    Cluster {
        /// The part of the cluster that the masters serve.
        detail: String,
    },
    /// The URL cannot be used for a connection to Redis.
    #[error(
        "WXGATE_REDIS_URL cannot be used ({detail}): write the URL as redis://[user:password@]host[:port][/database], or rediss:// for TLS, where / ? # @ : and % in the password are %2F %3F %23 %40 %3A and %25"
    )]
    BadUrl {
        /// What is wrong with the URL, without the URL.
        detail: String,
    },
}
