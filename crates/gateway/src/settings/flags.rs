//! Settings as flags of the command line.

use std::fmt::Write;

use clap::Args;

use super::keys::variable;

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident: $value:literal;)*) => {
        /// Settings given on the command line. The master key has no flag, and URLs with a password are refused: every
        /// user of the machine can read the arguments of a process.
        #[derive(Args, Clone, Debug, Default)]
        pub struct Flags {$(
            $(#[$doc])*
            #[arg(long, global = true, hide = true, value_name = $value)]
            pub $name: Option<String>,
        )*}

        impl Flags {
            const NAMES: &[&str] = &[$(stringify!($name)),*];

            /// The given flags, with the names of their settings.
            pub(crate) fn values(&self) -> Vec<(&'static str, String)> {
                let all = [$((stringify!($name), &self.$name)),*];
                all.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect()
            }
        }
    };
}

impl Flags {
    /// The help of all settings, for `wxgate help config`.
    pub(crate) fn help(grammar: &clap::Command) -> String {
        let mut text = String::from(
            "Set a setting with a flag of any command, in the environment, or in the file of --config (in lower case without \
             WXGATE_). A flag overrides the environment, and the environment overrides the file:\n",
        );
        for name in Self::NAMES {
            let argument = grammar.get_arguments().find(|one| one.get_id() == *name);
            let about = argument.and_then(|one| one.get_help().map(ToString::to_string));
            let value = argument.and_then(|one| one.get_value_names()?.first().cloned());
            let flag = name.replace('_', "-");
            let _ = write!(
                text,
                "\n  --{flag} <{}>, {}\n          {}",
                value.unwrap_or_default(),
                variable(name),
                about.unwrap_or_default()
            );
        }
        text.push_str(
            "\n\n  WXGATE_MASTER_KEY and WXGATE_MASTER_KEY_PREVIOUS hold a key itself, 32 bytes in base64. WXGATE_CONFIG names the settings file.",
        );
        text
    }
}

flags! {
    /// The address on which the gateway listens (default: 127.0.0.1:8080)
    listen: "ADDRESS:PORT";
    /// The database: `sqlite://FILE` or `postgres://…` (default: `sqlite://wxgate-data/wxgate.db`)
    database_url: "URL";
    /// Redis, for replicas on PostgreSQL
    redis_url: "URL";
    /// The CA certificates for Redis in PEM, if a private CA signed the certificate of Redis; needs a `rediss://` URL
    redis_ca_file: "FILE";
    /// The file with the master key: base64 of 32 bytes
    master_key_file: "FILE";
    /// The file with the previous master key, during the change to a new master key
    master_key_previous_file: "FILE";
    /// The base URL of WeChat's API (default: `https://api.weixin.qq.com`)
    wechat_base_url: "URL";
    /// The time-out of one call of WeChat's API (default: 5s)
    wechat_timeout: "SECONDS";
    /// The public URL of the gateway; the same on all replicas
    public_url: "URL";
    /// Proxies that may report the client's address: addresses and ranges, comma-separated
    trusted_proxies: "RANGES";
    /// Origins whose web pages may call the API, such as `https://admin.example.com`: comma-separated, none by default
    cors_origins: "ORIGINS";
    /// The largest number of simultaneous connections (default: 10000)
    max_connections: "N";
    /// The largest number of simultaneous sends (default: 1024)
    sending_slots: "N";
    /// The longest time that a stop takes (default: 30s)
    shutdown_timeout: "SECONDS";
    /// The part of that time in which the gateway still accepts connections (default: 5s in production mode, else 0s)
    shutdown_grace: "SECONDS";
    /// The time for which ended messages are kept (default: 90d)
    message_retention: "DAYS";
    /// The time for which the values and metadata of messages are kept (default: as long as the messages)
    payload_retention: "DAYS";
    /// The time for which the lines of the audit log are kept (default: 400d)
    audit_retention: "DAYS";
    /// Whether webhook URLs may lead into private networks and may use plain http (default: false)
    allow_private_webhooks: "true|false";
    /// Whether a crash may write the memory of the process, including secrets, into a file (default: false)
    core_dumps: "true|false";
    /// The filter for log lines (default: info)
    log: "FILTER";
    /// The format of log lines: text or json (default: text)
    log_format: "FORMAT";
    /// The URL of an OpenTelemetry collector that accepts OTLP over HTTP, such as `http://127.0.0.1:4318`
    otlp_endpoint: "URL";
}
