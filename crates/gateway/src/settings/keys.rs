//! All settings, by name.

/// One setting: a key in the file, `WXGATE_` and the name in upper case in the environment, `--the-name` as a flag.
#[derive(Debug)]
pub(crate) struct Setting {
    /// The name in the settings file.
    pub(crate) name: &'static str,
    /// The default value, if any.
    pub(crate) default: Option<&'static str>,
    /// The part of the value that may be shown.
    pub(crate) shown: Shown,
}

/// The part of a value that may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    /// The whole value.
    Plain,
    /// The value without the password of the URL.
    Url,
    /// No part of the value.
    Never,
}

const fn key(name: &'static str, default: Option<&'static str>, shown: Shown) -> Setting {
    Setting {
        name,
        default,
        shown,
    }
}

/// All settings, in the order in which `wxgate config` shows them.
pub(crate) const KEYS: &[Setting] = &[
    key("listen", Some("127.0.0.1:8080"), Shown::Plain),
    key(
        "database_url",
        Some("sqlite://wxgate-data/wxgate.db"),
        Shown::Url,
    ),
    key("redis_url", None, Shown::Url),
    key("redis_ca_file", None, Shown::Plain),
    key("master_key", None, Shown::Never),
    key("master_key_file", None, Shown::Plain),
    key("master_key_previous", None, Shown::Never),
    key("master_key_previous_file", None, Shown::Plain),
    key("wechat_base_url", Some(crate::config::WECHAT), Shown::Url),
    key("wechat_timeout", Some("5s"), Shown::Plain),
    key("public_url", None, Shown::Url),
    key("trusted_proxies", None, Shown::Plain),
    key("cors_origins", None, Shown::Plain),
    key("max_connections", Some("10000"), Shown::Plain),
    key("sending_slots", Some("1024"), Shown::Plain),
    key("shutdown_timeout", Some("30s"), Shown::Plain),
    key("shutdown_grace", None, Shown::Plain),
    key("message_retention", Some("90d"), Shown::Plain),
    key("payload_retention", None, Shown::Plain),
    key("audit_retention", Some("400d"), Shown::Plain),
    key("allow_private_webhooks", Some("false"), Shown::Plain),
    key("core_dumps", Some("false"), Shown::Plain),
    key("log", Some("info"), Shown::Plain),
    key("log_format", Some("text"), Shown::Plain),
    key("otlp_endpoint", None, Shown::Url),
];

impl Setting {
    /// The environment variable of the setting.
    pub(crate) fn variable(&self) -> String {
        variable(self.name)
    }
}

/// The setting with this name.
pub(crate) fn find(name: &str) -> Option<&'static Setting> {
    KEYS.iter().find(|key| key.name == name)
}

/// The environment variable of the setting with this name.
pub(crate) fn variable(name: &str) -> String {
    format!("WXGATE_{}", name.to_ascii_uppercase())
}

impl Setting {
    /// Whether a part of this value must not be shown.
    pub(crate) fn hides(&self, value: &str) -> bool {
        mask(self.shown, value) != value
    }
}

/// The value with its secret parts masked.
pub(crate) fn mask(shown: Shown, value: &str) -> String {
    match shown {
        Shown::Plain => value.to_owned(),
        Shown::Url => mask_url(value),
        Shown::Never => "***".to_owned(),
    }
}

/// Masks all text between the user name and the last `@`, and the values of parameters whose names suggest a secret.
/// Where one of these may contain the other, the whole rest of the URL is masked.
fn mask_url(url: &str) -> String {
    let (scheme, rest) = url.split_at(url.find("://").map_or(0, |at| at + 3));
    let Some((who, place)) = rest.rsplit_once('@') else {
        return format!("{scheme}{}", mask_parameters(rest));
    };
    if mask_parameters(who) != who {
        return format!("{scheme}***");
    }
    let user = who.split([':', '/', '?', '#', '@']).next().unwrap_or(who);
    let hidden = if user == who { "" } else { ":***" };
    format!("{scheme}{user}{hidden}@{}", mask_parameters(place))
}

fn mask_parameters(rest: &str) -> String {
    let Some((place, query)) = rest.split_once('?') else {
        return rest.to_owned();
    };
    let hide = |pair: &str| match pair.split_once('=') {
        Some((name, _))
            if ["pass", "token", "secret", "pwd"]
                .iter()
                .any(|word| name.to_ascii_lowercase().contains(word)) =>
        {
            format!("{name}=***")
        }
        _ => pair.to_owned(),
    };
    let query: Vec<_> = query.split('&').map(hide).collect();
    format!("{place}?{}", query.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_in_urls_are_hidden() {
        for (url, shown) in [
            (
                "postgres://wx:s3cret@db:5432/wxgate",
                "postgres://wx:***@db:5432/wxgate",
            ),
            (
                "postgres://wx:p@ss/w:rd@db/wxgate?sslmode=require",
                "postgres://wx:***@db/wxgate?sslmode=require",
            ),
            (
                "postgres://db/wxgate?user=wx&password=s3cret",
                "postgres://db/wxgate?user=wx&password=***",
            ),
            (
                "postgres://db/wxgate?user=wx&password=s3@cret",
                "postgres://***",
            ),
            (
                "postgres://wx:pa?ss@db/wxgate?password=s3cret",
                "postgres://wx:***@db/wxgate?password=***",
            ),
            ("postgres://wx:pa#s/s@db/x", "postgres://wx:***@db/x"),
            ("postgres://wx@db/x", "postgres://wx@db/x"),
            ("wx:s3cret@db", "wx:***@db"),
            (
                "unix:///run/redis.sock?pass=s3cret",
                "unix:///run/redis.sock?pass=***",
            ),
            ("redis://:s3cret@cache:6379/0", "redis://:***@cache:6379/0"),
            ("redis://cache:6379", "redis://cache:6379"),
            (
                "sqlite://wxgate-data/wxgate.db",
                "sqlite://wxgate-data/wxgate.db",
            ),
        ] {
            assert_eq!(mask(Shown::Url, url), shown);
        }
        assert_eq!(mask(Shown::Never, "s3cret"), "***");
    }

    #[test]
    fn a_setting_is_found_by_its_name() {
        assert_eq!(
            find("redis_url").map(Setting::variable).as_deref(),
            Some("WXGATE_REDIS_URL")
        );
    }
}
