//! Checks of the settings, WeChat, the clock, the public URL, proxies, traces, and the machine.

use std::{error::Error, path::Path, time::Duration};

use chrono::{DateTime, Utc};
use coord::Clock;
use nix::{
    sys::{
        resource::{Resource, getrlimit},
        statvfs::statvfs,
    },
    unistd::{AccessFlags, access},
};
use reqwest::{Client, Response, Url, header};

use super::Finding;
use crate::{
    config::{Mode, WECHAT},
    embedded,
    failure::Failure,
    master_key,
    settings::Settings,
};

/// The longest wait for WeChat, the gateway's own URL or the collector.
const PATIENCE: Duration = Duration::from_secs(5);
/// The largest acceptable offset of this machine's clock. The gateway accepts callbacks of WeChat for 5 minutes.
const SKEW: chrono::Duration = chrono::Duration::seconds(30);
/// The free disk space, in bytes, below which the check warns.
const LITTLE: u64 = 1 << 30;
/// The free disk space, in bytes, below which the gateway cannot accept messages.
const FULL: u64 = 16 << 20;
/// Open files in addition to client connections: the database, Redis, WeChat, webhooks.
const OTHER_FILES: u64 = 512;

/// The warnings of the settings. Unreadable settings would have stopped the command earlier.
pub(super) fn settings(settings: &Settings) -> Finding {
    let set = settings
        .shown()
        .iter()
        .filter(|one| one.source != "default");
    match settings.warnings.as_slice() {
        [] => Finding::ok(
            "settings",
            format!("{} set, {} mode", set.count(), settings.mode.as_str()),
        ),
        warnings => Finding::warning("settings", warnings.join("; ")),
    }
}

/// Whether WeChat answers, and the offset of the clock.
pub(super) async fn wechat(settings: &Settings) -> [Finding; 2] {
    let url = &settings.wechat_base_url;
    let answer = match client() {
        Ok(client) => ask(&client, url).await,
        Err(failure) => Err(failure.message),
    };
    match answer {
        Ok(response) => {
            let what = if url == WECHAT { "WeChat" } else { "another server than WeChat's," };
            let found = Finding::ok("wechat", format!("{what} {url} answers"));
            [found, clock(&response, url)]
        }
        Err(why) => [
            Finding::failed("wechat", format!("{url} does not answer: {why}"))
                .next("check WXGATE_WECHAT_BASE_URL, DNS and the firewall: the gateway calls WeChat directly and ignores HTTPS_PROXY"),
            Finding::skipped("clock", "not checked: the check needs an answer of WeChat"),
        ],
    }
}

/// Compares this machine's clock with the `Date` header of the answer.
fn clock(response: &Response, url: &str) -> Finding {
    let theirs = response.headers().get(header::DATE);
    let theirs = theirs.and_then(|date| DateTime::parse_from_rfc2822(date.to_str().ok()?).ok());
    let now = Clock::system().now();
    let Some(theirs) = theirs else {
        return Finding::skipped(
            "clock",
            format!(
                "{url} does not report the time; this machine's time is {}",
                shown(now)
            ),
        );
    };
    let skew = now - theirs.to_utc();
    let words = format!(
        "this machine's time is {}, {} s from WeChat's time",
        shown(now),
        skew.num_seconds()
    );
    if skew.abs() <= SKEW {
        Finding::ok("clock", words)
    } else {
        Finding::failed("clock", words).next(
            "synchronise the clock (NTP): signatures, tokens and callbacks depend on the time",
        )
    }
}

fn shown(time: DateTime<Utc>) -> String {
    let shanghai = chrono::FixedOffset::east_opt(8 * 3600);
    let local = shanghai.map(|zone| time.with_timezone(&zone).format("%H:%M").to_string());
    format!(
        "{} ({} in Shanghai, the time zone of WeChat's daily limits)",
        time.format("%Y-%m-%dT%H:%M:%SZ"),
        local.unwrap_or_default()
    )
}

/// Whether a gateway answers at the public URL.
pub(super) async fn public_url(settings: &Settings) -> Finding {
    let name = "public URL";
    let Some(url) = &settings.public_url else {
        return match settings.mode {
            Mode::Embedded => Finding::skipped(name, "not set: only clients on this machine reach the gateway"),
            Mode::Production { .. } => Finding::warning(name, "not set").next(
                "set the same WXGATE_PUBLIC_URL on all replicas: replicas accept each other's access tokens only with the same URL, and WeChat sends callbacks there",
            ),
        };
    };
    let is_https = Url::parse(url).is_ok_and(|url| url.scheme() == "https");
    let answer = match client() {
        Ok(client) => ask(&client, &format!("{url}/healthz")).await,
        Err(failure) => Err(failure.message),
    };
    match answer {
        Ok(response) if response.status().is_success() => match issuer(url).await {
            Some(issuer) if issuer == *url && is_https => {
                Finding::ok(name, format!("a gateway answers at {url}"))
            }
            Some(issuer) if issuer == *url => {
                Finding::warning(name, format!("a gateway answers at {url}, unencrypted"))
                    .next("put a proxy with TLS in front: secrets and tokens cross the network")
            }
            Some(issuer) => Finding::failed(name, format!("the gateway at {url} has the public URL {issuer}"))
                .next("set the same WXGATE_PUBLIC_URL on all replicas: otherwise replicas refuse each other's access tokens"),
            None => Finding::failed(name, format!("the server that answers at {url} is not a wxgate gateway"))
                .next("check WXGATE_PUBLIC_URL, and that the proxy forwards all paths to the gateway"),
        },
        Ok(response) => Finding::warning(name, format!("{url}/healthz answers {}", response.status()))
            .next("check that the proxy forwards all paths to the gateway"),
        Err(why) => Finding::warning(name, format!("{url} does not answer from here: {why}"))
            .next("not a fault while no gateway runs, or where this machine cannot reach its own public address"),
    }
}

/// The issuer of access tokens at this URL, from the gateway's metadata (RFC 8414). `None`: no gateway answers.
async fn issuer(url: &str) -> Option<String> {
    let place = format!("{url}/.well-known/oauth-authorization-server");
    let answer = ask(&client().ok()?, &place).await.ok()?;
    let metadata: serde_json::Value = answer.json().await.ok()?;
    metadata["issuer"].as_str().map(str::to_owned)
}

/// Whether the gateway can distinguish the clients behind a proxy.
pub(super) fn proxies(settings: &Settings) -> Finding {
    let name = "proxies";
    let is_fronted = settings
        .public_url
        .as_ref()
        .is_some_and(|url| url.starts_with("https://"));
    let shown = settings
        .shown()
        .iter()
        .find(|one| one.name == "trusted_proxies");
    match shown.and_then(|one| one.value.as_deref()) {
        Some(proxies) => Finding::ok(name, format!("the gateway trusts {proxies} to report the client's address")),
        None if is_fronted => Finding::warning(name, "the public URL is https, so a proxy is in front, but the gateway trusts no proxy").next(
            "set WXGATE_TRUSTED_PROXIES to the addresses of the proxy, or all clients share one address and its limits on failures",
        ),
        None => Finding::skipped(name, "the gateway trusts no proxy: right where clients connect directly"),
    }
}

/// Whether the collector of traces answers.
pub(super) async fn traces(settings: &Settings) -> Finding {
    let name = "traces";
    let Some(url) = &settings.otlp_endpoint else {
        return Finding::skipped(
            name,
            "WXGATE_OTLP_ENDPOINT is not set: the gateway sends no traces",
        );
    };
    let answer = match client() {
        Ok(client) => ask(&client, url).await,
        Err(failure) => Err(failure.message),
    };
    match answer {
        Ok(_) => Finding::ok(name, format!("{url} answers")),
        Err(why) => Finding::warning(name, format!("{url} does not answer: {why}")).next(
            "check WXGATE_OTLP_ENDPOINT and the collector (OTLP over HTTP, usually port 4318); without the collector only spans are lost",
        ),
    }
}

/// The free space on the database's disk, where the database is a file.
pub(super) fn disk(settings: &Settings) -> Finding {
    if settings.mode != Mode::Embedded {
        return Finding::skipped(
            "disk",
            "the database is on a server: watch the disk of the server",
        );
    }
    let folder = embedded::absolute(&master_key::folder(&settings.database_url));
    let there = folder
        .ancestors()
        .find(|folder| folder.exists())
        .unwrap_or(Path::new("."));
    let file = master_key::database_file(&settings.database_url);
    let needed = [there, if file.exists() { &file } else { there }];
    if let Some(locked) = needed
        .iter()
        .find(|one| access(**one, AccessFlags::W_OK).is_err())
    {
        let shown = embedded::absolute(locked);
        return Finding::failed("disk", format!("{} is not writable", shown.display())).next(
            "make the user that runs the gateway its owner, or choose another place with WXGATE_DATABASE_URL=sqlite:///FOLDER/wxgate.db",
        );
    }
    match statvfs(there) {
        Ok(disk) => room(disk.blocks_available() * disk.fragment_size(), &folder),
        Err(error) => Finding::warning(
            "disk",
            format!("cannot read the free space of {}: {error}", there.display()),
        ),
    }
}

/// Judges the free space.
fn room(free: u64, folder: &Path) -> Finding {
    let words = format!("{:.1} GiB free for {}", gib(free), folder.display());
    let finding = match free {
        LITTLE.. => return Finding::ok("disk", words),
        FULL.. => Finding::warning("disk", words),
        _ => Finding::failed("disk", format!("full: {words}")),
    };
    finding.next("free disk space, or shorten the retention of messages (WXGATE_MESSAGE_RETENTION)")
}

#[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn gib(bytes: u64) -> f64 {
    bytes as f64 / (1u64 << 30) as f64
}

/// Whether the system allows as many open files as the settings need.
pub(super) fn open_files(settings: &Settings) -> Finding {
    let name = "open files";
    let wanted = settings.max_connections as u64 + OTHER_FILES;
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, _)) if soft >= wanted => Finding::ok(name, format!("{soft} allowed")),
        Ok((soft, hard)) => {
            let words = format!(
                "{soft} allowed, {wanted} needed for WXGATE_MAX_CONNECTIONS={}",
                settings.max_connections
            );
            Finding::warning(name, words).next(format!("raise the limit (`ulimit -n {wanted}`, LimitNOFILE; at most {hard} on this machine), or lower WXGATE_MAX_CONNECTIONS"))
        }
        Err(error) => Finding::skipped(name, format!("the limit cannot be read: {error}")),
    }
}

fn client() -> Result<Client, Failure> {
    let client = Client::builder()
        .no_proxy()
        .connect_timeout(PATIENCE)
        .timeout(PATIENCE)
        .build();
    client.map_err(|error| Failure::new("internal", error.to_string()))
}

/// Requests `url`. Any status counts as an answer.
async fn ask(client: &Client, url: &str) -> Result<Response, String> {
    let answer = client.get(url).send().await;
    answer.map_err(|error| {
        let error = error.without_url();
        let mut cause: &dyn Error = &error;
        // The innermost cause is the most precise.
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        cause.to_string()
    })
}

#[cfg(test)]
mod tests {
    use super::{super::CheckStatus, *};

    #[test]
    fn a_disk_that_is_full_fails_and_one_that_fills_warns() {
        let status = |free| room(free, Path::new("/data")).status;
        assert_eq!(status(0), CheckStatus::Failed);
        assert_eq!(status(FULL), CheckStatus::Warning);
        assert_eq!(status(LITTLE), CheckStatus::Ok);
    }
}
