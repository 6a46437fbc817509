//! Checks of the database, its schema and clock, the master key, the apps, and Redis.

use std::time::Duration;

use chrono::{DateTime, Utc};
use coord::{Clock, Coord, FARTHEST, Off, Sample};
use delivery::TokenStatus;
use domain::seal::MasterKey;
use store::{App, Engine, MigrationState, Rights, SealedColumn, Store, StoreError};
use tokio::time::{Instant, timeout};

use super::Finding;
use crate::{
    commands::{all, configure},
    config::Mode,
    embedded,
    failure::Failure,
    master_key, replica,
    settings::Settings,
    timekeeper,
};

/// The longest wait for the database or Redis.
const PATIENCE: Duration = Duration::from_secs(10);
/// The reasons of pauses that end without a repair.
const PASSING: [&str; 4] = [
    "quota_exhausted",
    "throttled",
    "token_fetches_spent",
    "no_token",
];

/// Runs all checks of this module.
pub(super) async fn look(settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    let clock = Clock::system();
    let store = match open(settings).await {
        Ok((store, opened)) => {
            findings.push(opened);
            Some(store)
        }
        Err(finding) => {
            findings.push(*finding);
            None
        }
    };
    let is_current = match &store {
        Some(store) => {
            let (finding, is_current) = schema(store).await;
            findings.push(finding);
            findings.push(writes(store, is_current).await);
            findings.push(compare(store, &clock).await);
            is_current
        }
        None => false,
    };
    let coord = redis(settings, clock, &mut findings).await;
    let tables = store.as_ref().filter(|_| is_current);
    let (finding, key) = sealed(settings, tables).await;
    findings.push(finding);
    match (tables, key, coord) {
        (Some(store), Some(_), Some(coord)) => findings.extend(apps(settings, store, coord).await),
        _ => findings.push(Finding::skipped(
            "apps",
            "not checked: repair the database, the master key or Redis first",
        )),
    }
    if let Some(store) = store
        && let Err(error) = store.close().await
    {
        tracing::debug!(%error, "the database did not close cleanly");
    }
    findings
}

async fn open(settings: &Settings) -> Result<(Store, Finding), Box<Finding>> {
    let file = master_key::database_file(&settings.database_url);
    if settings.mode == Mode::Embedded && !file.exists() {
        let shown = embedded::absolute(&file);
        let words = format!("the file {} does not exist yet", shown.display());
        let finding = Finding::warning("database", words);
        return Err(Box::new(finding.next(
            "run `wxgate migrate up` or `wxgate serve` to make the file; or check WXGATE_DATABASE_URL and the current folder",
        )));
    }
    let began = Instant::now();
    let opened = timeout(PATIENCE, replica::open(&settings.database_url));
    let kind = settings.mode.as_str();
    match opened.await {
        Ok(Ok(store)) => {
            let took = began.elapsed().as_millis();
            let what = match settings.mode {
                Mode::Embedded => embedded::absolute(&file).display().to_string(),
                Mode::Production { .. } => String::from("the server"),
            };
            let words = format!("{what} answers ({kind} mode, {took} ms)");
            Ok((store, Finding::ok("database", words)))
        }
        Ok(Err(error)) => Err(Box::new(Finding::failed("database", error.to_string()))),
        Err(_) => {
            let finding = Finding::failed(
                "database",
                format!("no answer within {} s", PATIENCE.as_secs()),
            );
            Err(Box::new(finding.next(
                "check WXGATE_DATABASE_URL, the server, and the firewalls on the way",
            )))
        }
    }
}

/// Whether the schema is the one of this program.
async fn schema(store: &Store) -> (Finding, bool) {
    match store.migrations().await {
        Ok(states) => {
            if let Err(newer) = MigrationState::refuse_newer(&states) {
                return (Finding::failed("schema", newer.to_string()), false);
            }
            let pending = states.iter().filter(|state| !state.applied).count();
            if pending == 0 {
                (Finding::ok("schema", "is the schema of this program"), true)
            } else {
                let finding =
                    Finding::warning("schema", format!("{pending} migrations are pending"));
                (
                    finding.next(
                        "run `wxgate migrate up`, or `wxgate serve`, which applies the migrations",
                    ),
                    false,
                )
            }
        }
        Err(error) => (Finding::failed("schema", error.to_string()), false),
    }
}

/// Whether a gateway could accept and record messages, which a read alone does not show. If the schema is not current,
/// whether migrations could run.
async fn writes(store: &Store, is_current: bool) -> Finding {
    let name = "database writes";
    let look = async {
        let rights = store.rights().await?;
        if is_current {
            store.beat().await?;
        }
        Ok::<_, StoreError>(rights)
    };
    match timeout(PATIENCE, look).await {
        Ok(Ok(None)) if !is_current => {
            Finding::skipped(name, "not checked: migrate the schema first")
        }
        Ok(Ok(None)) => Finding::ok(name, "the database takes writes"),
        Ok(Ok(Some(rights))) => judge(&rights, is_current),
        Ok(Err(error)) => Finding::failed(name, error.to_string()),
        Err(_) => Finding::failed(name, format!("no answer within {} s", PATIENCE.as_secs())).next(
            "find out which session locks the table `message`, and whether the server responds",
        ),
    }
}

/// Whether the rights of the database user suffice.
fn judge(rights: &Rights, is_current: bool) -> Finding {
    let name = "database writes";
    if rights.is_read_only {
        return Finding::failed(name, "the session is read-only").next(
            "set WXGATE_DATABASE_URL to the primary, and set default_transaction_read_only = off",
        );
    }
    if !rights.closed.is_empty() {
        let closed = rights.closed.join(", ");
        return Finding::failed(name, format!("the user has no right to read and write {closed}")).next(
            "run `GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO …` as the owner of the tables, or connect as their owner",
        );
    }
    if !rights.may_create {
        let finding = if is_current {
            Finding::warning
        } else {
            Finding::failed
        };
        return finding(name, "the user has no right to create tables, which migrations need".to_owned()).next(
            "run `GRANT USAGE, CREATE ON SCHEMA public TO …` as the owner of the database, or connect as the owner",
        );
    }
    Finding::ok(
        name,
        if is_current {
            "the database takes writes"
        } else {
            "the user has the right to create tables"
        },
    )
}

/// The offset of this machine's clock from the database's clock, which all replicas use. From then on `clock` follows
/// the database's clock.
async fn compare(store: &Store, clock: &Clock) -> Finding {
    let name = "database clock";
    let answer = match timekeeper::ask(store).await {
        Ok(answer) => answer.filter(Sample::is_useful),
        Err(error) => return Finding::failed(name, error.to_string()),
    };
    if store.engine() == Engine::Sqlite {
        return Finding::skipped(name, "the database is a file of this machine");
    }
    let led = clock.follow().zip(answer);
    if let Some((leader, sample)) = led {
        leader.take(&sample);
    }
    let Some(off) = clock.off() else {
        let slow = Finding::failed(name, "the database takes over a second to report its time");
        return slow.next("check the network to the database, and the load of the database");
    };
    let words = format!("this machine's clock is {} the database's clock", Off(off));
    let next = "synchronise both clocks (NTP): due times and leases follow the database's clock, and a replica that is more than 30 s off takes no work";
    if off.abs() <= timekeeper::NOTICEABLE {
        Finding::ok(name, words)
    } else if off.abs() <= FARTHEST {
        Finding::warning(name, words).next(next)
    } else {
        Finding::failed(name, words).next(next)
    }
}

async fn redis(settings: &Settings, clock: Clock, findings: &mut Vec<Finding>) -> Option<Coord> {
    let Mode::Production { redis_url } = &settings.mode else {
        findings.push(Finding::skipped("redis", "not used in embedded mode"));
        return Some(Coord::in_process(clock));
    };
    let coord = match Coord::redis_trusting(redis_url, settings.redis_ca.as_deref(), clock) {
        Ok(coord) => coord,
        Err(error) => {
            findings.push(Finding::failed("redis", error.to_string()));
            return None;
        }
    };
    let began = Instant::now();
    let mut why = None;
    // Repeats the check, because a new connection may fail the first time.
    let answered = timeout(PATIENCE, async {
        loop {
            match coord.health().await {
                Ok(()) => break,
                Err(error) => {
                    why.get_or_insert(error);
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    });
    if answered.await.is_ok() {
        let took = began.elapsed().as_millis();
        if let Err(error) = coord.examine().await {
            findings.push(Finding::failed("redis", error.to_string()));
            return None;
        }
        let words = format!("answers, runs scripts and takes writes ({took} ms)");
        findings.push(Finding::ok("redis", words));
        return Some(coord);
    }
    let why = why.map(|error| error.to_string());
    let finding = Finding::failed(
        "redis",
        why.unwrap_or_else(|| "answers too slowly".to_owned()),
    );
    findings.push(finding.next("check WXGATE_REDIS_URL and the server; replicas still send without Redis, but do not share limits and tokens"));
    None
}

/// Whether the master key opens the secrets in the database.
async fn sealed(settings: &Settings, store: Option<&Store>) -> (Finding, Option<MasterKey>) {
    let name = "master key";
    let key = match master_key::find(settings).await {
        Ok(Some(key)) => key,
        Ok(None) => {
            let finding = Finding::warning(name, "no master key exists yet");
            return (
                finding.next(
                    "the first start makes a master key beside the database: keep a copy of the key in another place",
                ),
                None,
            );
        }
        Err(failure) => return (Finding::failed(name, failure.message), None),
    };
    let Some(store) = store else {
        return (judged(settings, "is well formed".to_owned()), Some(key));
    };
    match still_sealed_otherwise(store, &key).await {
        Ok(0) => {
            let words = format!("{} opens the secrets in the database", key.id());
            (judged(settings, words), Some(key))
        }
        Ok(_) => {
            let finding =
                Finding::warning(name, "some secrets are still sealed under the previous key");
            (
                finding.next(
                    "run `wxgate master-key rotate` to seal these secrets under the new key; then unset the previous key",
                ),
                Some(key),
            )
        }
        Err(failure) => (Finding::failed(name, failure.message), None),
    }
}

/// A finding for a valid key, with a warning if other users may read a key file.
fn judged(settings: &Settings, words: String) -> Finding {
    let name = "master key";
    let files = [
        &settings.master_key_file,
        &settings.master_key_previous_file,
    ];
    let open = files
        .into_iter()
        .flatten()
        .find(|file| !master_key::is_private(file));
    let Some(file) = open else {
        return Finding::ok(name, words);
    };
    let shown = embedded::absolute(file);
    let shown = shown.display();
    Finding::warning(name, format!("{words}, but other users can read {shown}")).next(format!(
        "run `chmod 600 {shown}`, or make sure that the machine has no other users"
    ))
}

/// The number of kinds of secrets of which at least one is sealed under another key that also opens. Error: a secret
/// does not open.
async fn still_sealed_otherwise(store: &Store, key: &MasterKey) -> Result<usize, Failure> {
    let mut others = 0;
    for place in SealedColumn::ALL {
        for value in store
            .platform()
            .sealed_with_other_key(place, key.id(), 1)
            .await?
        {
            key.open(&value.owner, &value.sealed).map_err(|error| {
                Failure::new("master_key", format!("{}: {error}", place.as_str()))
            })?;
            others += 1;
        }
    }
    Ok(others)
}

/// One finding for all apps, and one for each app in trouble. Calls no WeChat interface.
async fn apps(settings: &Settings, store: &Store, coord: Coord) -> Vec<Finding> {
    match try_apps(settings, store, coord).await {
        Ok(findings) => findings,
        Err(failure) => vec![Finding::failed("apps", failure.message)],
    }
}

async fn try_apps(
    settings: &Settings,
    store: &Store,
    coord: Coord,
) -> Result<Vec<Finding>, Failure> {
    let config = configure(settings, false).await?;
    let clock = coord.clock().clone();
    let context = replica::Onboarding::open(&config, store.clone(), coord)?;
    let apps = all(async |page| context.apps.list(None, &page).await).await?;
    let mut troubled = Vec::new();
    for app in &apps {
        let report = context.apps.token_state(app.tenant, &app.appid).await?;
        let failure = report
            .failure
            .filter(|_| report.status == TokenStatus::Failing);
        let foreign = report.foreign_refresh.is_some();
        let no_token = failure.map(|failure| failure.detail);
        troubled.extend(trouble(app, no_token, foreign, clock.now()));
    }
    context.close().await;
    let count = apps.len();
    let mut findings = vec![match troubled.len() {
        0 => Finding::ok("apps", format!("{count} registered, none in trouble")),
        some => Finding::warning("apps", format!("{count} registered, {some} in trouble"))
            .next("the lines `app` name each of these apps, with the cause and the remedy"),
    }];
    findings.extend(troubled);
    Ok(findings)
}

/// The fault of an app, if any.
fn trouble(
    app: &App,
    no_token: Option<String>,
    foreign: bool,
    now: DateTime<Utc>,
) -> Option<Finding> {
    let appid = &app.appid;
    let pause = app.pause.as_ref().filter(|pause| pause.until > now);
    if let Some(pause) = pause.filter(|pause| !PASSING.contains(&pause.reason.as_str())) {
        let detail = pause.detail.as_deref().unwrap_or_default();
        let finding = Finding::warning(
            "app",
            format!("{appid} is paused: {} ({detail})", pause.reason),
        );
        return Some(finding.next(format!(
            "repair the cause, then run `wxgate app verify {appid}`"
        )));
    }
    if let Some(detail) = no_token {
        return Some(Finding::warning(
            "app",
            format!("{appid} has no access token: {detail}"),
        ));
    }
    if foreign {
        let finding = Finding::warning(
            "app",
            format!("{appid}: another system fetches tokens with its AppSecret"),
        );
        return Some(
            finding
                .next("let that system use stable_token, or let it get the token from the gateway"),
        );
    }
    if app.verified_at.is_none() {
        let finding = Finding::warning(
            "app",
            format!(
                "the AppSecret of {appid} was never verified with WeChat, or WeChat refused the AppSecret"
            ),
        );
        return Some(finding.next(format!("run `wxgate app verify {appid}`")));
    }
    None
}
