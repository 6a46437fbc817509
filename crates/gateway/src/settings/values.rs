//! Checks of single values. Each refusal names the setting in the form of its source.

use std::{cmp::Ordering, net::SocketAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

use delivery::Retention;
use reqwest::{Url, header::HeaderValue};

use super::{LogFormat, SettingsError, filter, keys::variable, layers::Layers};
use crate::{config::Mode, proxies::TrustedProxies};

/// The time in which load balancers usually notice that a replica is not ready.
const GRACE: Duration = Duration::from_secs(5);

/// Parses an address and a port.
pub(crate) fn address(layers: &Layers, name: &str) -> Result<SocketAddr, SettingsError> {
    let text = layers.get(name).unwrap_or_default();
    let numeric = text
        .strip_prefix("localhost:")
        .map(|port| format!("127.0.0.1:{port}"));
    numeric.as_deref().unwrap_or(text).parse().map_err(|_| {
        SettingsError::new(format!(
            "{} is `{text}`, but must be an address and a port, such as 127.0.0.1:8080 or, for all networks, 0.0.0.0:8080",
            layers.name(name)
        ))
    })
}

/// Parses an http or https URL, and removes a trailing slash.
pub(crate) fn url(layers: &Layers, name: &str) -> Result<Option<String>, SettingsError> {
    url_like(layers, name, "https://host[:port][/path]")
}

fn url_like(layers: &Layers, name: &str, form: &str) -> Result<Option<String>, SettingsError> {
    let Some(text) = layers.get(name) else {
        return Ok(None);
    };
    let refused = |why: &str| {
        SettingsError::new(format!(
            "{} {why}: write the URL as {form}",
            layers.name(name)
        ))
    };
    let parsed = Url::parse(text).map_err(|error| refused(&format!("is not a URL ({error})")))?;
    if !matches!(parsed.scheme(), "http" | "https") {
        return Err(refused("must begin with http:// or https://"));
    }
    if parsed.query().is_some()
        || parsed.fragment().is_some()
        || !parsed.username().is_empty()
        || parsed.password().is_some()
    {
        return Err(refused("must have no query, fragment, user or password"));
    }
    Ok(Some(parsed.as_str().trim_end_matches('/').to_owned()))
}

/// Parses an http or https URL without a path, and removes a trailing slash.
pub(crate) fn root_url(layers: &Layers, name: &str) -> Result<Option<String>, SettingsError> {
    let url = url_like(layers, name, "https://host[:port]")?;
    let path = url.as_deref().and_then(|text| Url::parse(text).ok());
    match path.as_ref().map(Url::path) {
        None | Some("/") => Ok(url),
        Some(path) => Err(SettingsError::new(format!(
            "{} has the path {path}, but the gateway answers at the root of its host, and a proxy that strips a prefix breaks its links: give the gateway its own host name, and write the URL as https://host[:port]",
            layers.name(name)
        ))),
    }
}

/// Parses a time in seconds: `5`, `5s`, `2m`. Refuses other units, such as `500ms`.
pub(crate) fn seconds(
    layers: &Layers,
    name: &str,
    range: RangeInclusive<u64>,
) -> Result<Duration, SettingsError> {
    let text = layers.get(name).unwrap_or_default().trim();
    let (digits, unit) = text.split_at(
        text.find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len()),
    );
    let factor = match unit.trim() {
        "" | "s" => Some(1),
        "m" => Some(60),
        _ => None,
    };
    let seconds = digits
        .parse::<u64>()
        .ok()
        .zip(factor)
        .and_then(|(number, factor)| number.checked_mul(factor));
    match seconds.filter(|seconds| range.contains(seconds)) {
        Some(seconds) => Ok(Duration::from_secs(seconds)),
        None => Err(SettingsError::new(format!(
            "{} is `{text}`, but must be {} to {} seconds, such as {}s",
            layers.name(name),
            range.start(),
            range.end(),
            range.start() * 5
        ))),
    }
}

/// The time for which a stop of at most `timeout` still accepts connections. The default is [`GRACE`] in production
/// mode, at most half of `timeout`, and zero in embedded mode, where no other replica could take over.
pub(crate) fn grace(
    layers: &Layers,
    name: &str,
    mode: &Mode,
    timeout: Duration,
) -> Result<Duration, SettingsError> {
    let most = timeout / 2;
    if layers.get(name).is_none() {
        return Ok(match mode {
            Mode::Embedded => Duration::ZERO,
            Mode::Production { .. } => GRACE.min(most),
        });
    }
    let grace = seconds(layers, name, 0..=300)?;
    if grace > most {
        return Err(SettingsError::new(format!(
            "{} is longer than half of {}, but running requests need the other half: lower the first or raise the second",
            layers.name(name),
            layers.name("shutdown_timeout")
        )));
    }
    Ok(grace)
}

/// The times for which messages, payloads and the lines of the audit log are kept.
pub(crate) fn retention(layers: &Layers) -> Result<Retention, SettingsError> {
    let messages = days(layers, "message_retention")?.unwrap_or_default();
    let payloads = days(layers, "payload_retention")?.unwrap_or(messages);
    if payloads > messages {
        return Err(SettingsError::new(format!(
            "{} is longer than {}, but a payload is deleted with its message at the latest: lower the first or raise the second",
            layers.name("payload_retention"),
            layers.name("message_retention")
        )));
    }
    let audit = days(layers, "audit_retention")?.unwrap_or_default();
    Ok(Retention {
        messages,
        payloads,
        audit,
    })
}

/// Parses a time in days: `90d`.
fn days(layers: &Layers, name: &str) -> Result<Option<Duration>, SettingsError> {
    let Some(text) = layers.get(name) else {
        return Ok(None);
    };
    let number = text.trim().trim_end_matches('d').trim_end().parse::<u64>();
    match number.ok().filter(|days| (1..=3650).contains(days)) {
        Some(days) => Ok(Some(Duration::from_hours(24 * days))),
        None => Err(SettingsError::new(format!(
            "{} is `{text}`, but must be 1 to 3650 days, such as 30d",
            layers.name(name)
        ))),
    }
}

/// Parses `true` or `false`.
pub(crate) fn switch(layers: &Layers, name: &str) -> Result<bool, SettingsError> {
    match layers.get(name).unwrap_or_default().trim() {
        "true" => Ok(true),
        "false" => Ok(false),
        other => Err(SettingsError::new(format!(
            "{} is `{other}`, but must be true or false",
            layers.name(name)
        ))),
    }
}

/// Parses a number within `range`.
pub(crate) fn number(
    layers: &Layers,
    name: &str,
    range: RangeInclusive<usize>,
) -> Result<usize, SettingsError> {
    let text = layers.get(name).unwrap_or_default();
    let number = text
        .trim()
        .parse()
        .ok()
        .filter(|number| range.contains(number));
    number.ok_or_else(|| {
        SettingsError::new(format!(
            "{} is `{text}`, but must be a number from {} to {}",
            layers.name(name),
            range.start(),
            range.end()
        ))
    })
}

/// Parses proxies: addresses and ranges.
pub(crate) fn proxies(layers: &Layers, name: &str) -> Result<TrustedProxies, SettingsError> {
    let text = layers.get(name).unwrap_or_default();
    text.parse().map_err(|error| {
        SettingsError::new(format!(
            "{} cannot be used: {error}; separate several values with commas",
            layers.name(name)
        ))
    })
}

/// Parses origins in exactly the form that browsers send.
pub(crate) fn origins(layers: &Layers, name: &str) -> Result<Vec<HeaderValue>, SettingsError> {
    let text = layers.get(name).unwrap_or_default();
    let origins = text.split(',').map(str::trim).filter(|one| !one.is_empty());
    let check = |one: &str| {
        let is_origin = Url::parse(one).is_ok_and(|url| {
            matches!(url.scheme(), "http" | "https") && url.origin().ascii_serialization() == one
        });
        let origin = HeaderValue::from_str(one).ok().filter(|_| is_origin);
        origin.ok_or_else(|| {
            SettingsError::new(format!(
                "{} has `{one}`, which is not an origin: write scheme and host as in the browser's address bar, such as https://admin.example.com, without a slash at the end; no value stands for all origins",
                layers.name(name)
            ))
        })
    };
    origins.map(check).collect()
}

/// Reads the CA certificates for Redis, in PEM.
pub(crate) fn redis_ca(layers: &Layers, name: &str) -> Result<Option<Vec<u8>>, SettingsError> {
    let Some(file) = layers.get(name) else {
        return Ok(None);
    };
    let refused = |why: &str| {
        let setting = layers.name(name);
        Err(SettingsError::new(format!("{setting} is `{file}`, {why}")))
    };
    let is_tls = layers
        .get("redis_url")
        .is_some_and(|url| url.starts_with("rediss://"));
    if !is_tls {
        return refused(
            "but the connection to Redis is not encrypted: begin WXGATE_REDIS_URL with rediss://, or unset the file",
        );
    }
    match std::fs::read(file) {
        Ok(pem) if String::from_utf8_lossy(&pem).contains("-----BEGIN CERTIFICATE-----") => {
            Ok(Some(pem))
        }
        Ok(_) => {
            refused("which has no certificate: name a PEM file that contains BEGIN CERTIFICATE")
        }
        Err(error) => refused(&format!(
            "which cannot be read ({error}): check the path and the permissions of the file"
        )),
    }
}

/// The master key, given as text by `name` or as a path by `file_name`. Both from the same source are an error;
/// otherwise the later source wins.
pub(crate) fn master_key(
    layers: &Layers,
    name: &str,
    file_name: &str,
) -> Result<(Option<String>, Option<PathBuf>), SettingsError> {
    let key = layers.get(name).map(str::to_owned);
    let file = layers.get(file_name).map(PathBuf::from);
    match layers.source(name).cmp(&layers.source(file_name)) {
        _ if key.is_none() || file.is_none() => Ok((key, file)),
        Ordering::Less => Ok((None, file)),
        Ordering::Greater => Ok((key, None)),
        Ordering::Equal => Err(SettingsError::new(format!(
            "{} and {} are both set: unset one of them",
            variable(name),
            variable(file_name)
        ))),
    }
}

/// Checks the filter for log lines.
pub(crate) fn log(layers: &Layers, name: &str) -> Result<String, SettingsError> {
    let text = layers.get(name).unwrap_or_default();
    match filter::check(text) {
        Ok(()) => Ok(text.to_owned()),
        Err(why) => Err(SettingsError::new(format!(
            "{} is `{text}`, but {why}: the value {}",
            layers.name(name),
            filter::advice()
        ))),
    }
}

/// Parses the format of log lines.
pub(crate) fn log_format(layers: &Layers, name: &str) -> Result<LogFormat, SettingsError> {
    match layers.get(name).unwrap_or_default() {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        other => Err(SettingsError::new(format!(
            "{} is `{other}`, but must be text or json",
            layers.name(name)
        ))),
    }
}

/// The warning about a base URL that sends AppSecrets unencrypted over a network.
pub(crate) fn wechat_warning(base_url: &str) -> Option<String> {
    let url = Url::parse(base_url).ok()?;
    let host = url.host_str()?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let local = host == "localhost"
        || bare
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback());
    (url.scheme() == "http" && !local).then(|| {
        format!("WXGATE_WECHAT_BASE_URL is plain http to {host}, so AppSecrets and access tokens cross the network unencrypted: use https")
    })
}
