//! Settings as flags.

use std::fmt::Write;

use clap::Args;

use super::keys::variable;

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident: $value:literal;)*) => {
        /// Settings given on the command line. The master key is not among them, and URLs with a password are refused:
        /// every user of the machine can read the arguments of a process.
        #[derive(Args, Clone, Debug, Default)]
        pub struct Flags {$(
            $(#[$doc])*
            #[arg(long, global = true, hide = true, value_name = $value)]
            pub $name: Option<String>,
        )*}

        impl Flags {
            const NAMES: &[&str] = &[$(stringify!($name)),*];

            /// Those that were given, by the name of their setting.
            pub(crate) fn values(&self) -> Vec<(&'static str, String)> {
                let all = [$((stringify!($name), &self.$name)),*];
                all.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect()
            }
        }
    };
}

impl Flags {
    /// All settings, as `wxgate help config` explains them.
    pub(crate) fn help(grammar: &clap::Command) -> String {
        let mut text = String::from(
            "Settings, as flags of every command, in the environment, or in the file of --config (the name in lower case without \
             WXGATE_). Flags beat the environment, which beats the file:\n",
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
            "\n\n  WXGATE_MASTER_KEY and WXGATE_MASTER_KEY_PREVIOUS hold a key itself, 32 bytes in base64; WXGATE_CONFIG names the file.",
        );
        text
    }
}

flags! {
    /// Where to listen (default: 127.0.0.1:8080)
    listen: "ADDRESS:PORT";
    /// The database: `sqlite://FILE` or `postgres://…` (default: `sqlite://wxgate-data/wxgate.db`)
    database_url: "URL";
    /// Redis, for replicas on PostgreSQL
    redis_url: "URL";
    /// The certificates that sign that of Redis, where it is of a private CA: PEM, with a `rediss://` URL
    redis_ca_file: "FILE";
    /// The file with the master key: base64 of 32 bytes
    master_key_file: "FILE";
    /// The file with the master key that is exchanged for another
    master_key_previous_file: "FILE";
    /// Where WeChat is (default: `https://api.weixin.qq.com`)
    wechat_base_url: "URL";
    /// The longest that one call of WeChat may take (default: 5s)
    wechat_timeout: "SECONDS";
    /// Where the world reaches the gateway; the same on all replicas
    public_url: "URL";
    /// Proxies whose word on the client's address counts: addresses and ranges, comma-separated
    trusted_proxies: "RANGES";
    /// Origins whose web pages may call the API, such as `https://admin.example.com`: comma-separated, none by default
    cors_origins: "ORIGINS";
    /// Connections at the same time (default: 10000)
    max_connections: "N";
    /// Sends under way at the same time (default: 1024)
    sending_slots: "N";
    /// How long a stop takes at most (default: 30s)
    shutdown_timeout: "SECONDS";
    /// How long of that connections are still accepted (default: 5s in production mode, else 0s)
    shutdown_grace: "SECONDS";
    /// How long messages are kept after they have ended (default: 90d)
    message_retention: "DAYS";
    /// How long the values and metadata of messages are kept (default: as long as the messages)
    payload_retention: "DAYS";
    /// How long the lines of the audit log are kept (default: 400d)
    audit_retention: "DAYS";
    /// Whether webhooks may be in private networks, also without https (default: false)
    allow_private_webhooks: "true|false";
    /// Whether a crash may write the memory of the process, secrets among it, into a file (default: false)
    core_dumps: "true|false";
    /// What to log (default: info)
    log: "FILTER";
    /// How to log it: text or json (default: text)
    log_format: "FORMAT";
    /// An OpenTelemetry collector that takes OTLP over HTTP, such as `http://127.0.0.1:4318`
    otlp_endpoint: "URL";
}
