//! The time of `token(app)` when the token is in memory, and the memory of an app: `cargo bench -p wxgate-broker`.
//!
//! The bench asks for the tokens of 10,000 apps in a random order, in batches, because one call is shorter than the
//! resolution of the clock. The quantiles are those of the batches' means, so one slow call shows as a tenth of its
//! time. For the memory, brokers are filled from the cells that the first one left, so that no HTTP is in the figure.
//!
//! Without `--bench`, as `cargo test --benches` runs the bench, the bench only shows that the code still works.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a table for a person"
)]

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use coord::{Clock, Coord};
use domain::{
    app::{AppId, TokenMode},
    seal::MasterKey,
    secret::AppSecret,
};
use futures::{FutureExt, StreamExt, stream};
use simulator::{Options, Simulator};
use wechat::{Client, ClientOptions};
use wxgate_broker::{AppCredentials, Broker, BrokerMetrics, Credentials, CredentialsError};

/// Calls in a batch.
const BATCH: usize = 10;
/// Brokers that are filled to measure the memory.
const FILLED: usize = 8;

struct AnySecret;

#[async_trait::async_trait]
impl Credentials for AnySecret {
    async fn credentials(&self, _appid: &AppId) -> Result<AppCredentials, CredentialsError> {
        Ok(AppCredentials {
            secret: AppSecret::new("0f1e2d3c4b5a69788796a5b4c3d2e1f0"),
            mode: TokenMode::Stable,
        })
    }
}

fn main() {
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let (apps, batches) = if is_bench {
        (10_000, 200_000)
    } else {
        (100, 10)
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(measure(apps, batches));
}

async fn measure(apps: usize, batches: usize) {
    let wechat = Simulator::start(Options::default()).await.unwrap();
    let client = Client::new(ClientOptions {
        base_url: wechat.base_url(),
        ..ClientOptions::default()
    })
    .unwrap();
    let coord = Coord::in_process(Clock::system());
    let broker = || {
        Broker::new(
            client.clone(),
            coord.clone(),
            Arc::new(AnySecret),
            MasterKey::from_bytes([7; 32]),
            BrokerMetrics::default(),
        )
    };
    let appids: Vec<_> = (0..apps)
        .map(|n| AppId::parse(format!("wx{n:016x}")).unwrap())
        .collect();

    let first = broker();
    let filling = Instant::now();
    fill(&first, &appids).await;
    println!(
        "{apps} apps, cold, from WeChat's simulator: {:?}",
        filling.elapsed()
    );
    println!(
        "\n| token(app), in memory | p50 | p99 | p99.9 | worst batch |\n|---|---|---|---|---|"
    );
    let order = shuffled(batches * BATCH, apps);
    row("one thread", &time(&first, &appids, &order));
    row("two threads", &time_on_two(&first, &appids, &order).await);

    let before = resident();
    let mut filled = Vec::new();
    for _ in 0..FILLED {
        let broker = broker();
        fill(&broker, &appids).await;
        filled.push(broker);
    }
    let grown = resident().saturating_sub(before) * 1024;
    println!(
        "\nmemory for each app in a broker: {} bytes ({FILLED} brokers of {apps} apps: {} KiB)",
        grown / u64::try_from(FILLED * apps).unwrap(),
        grown / 1024
    );
    black_box(filled);
}

/// Loads every app's token into memory.
async fn fill(broker: &Broker, appids: &[AppId]) {
    let tokens = stream::iter(appids)
        .map(|appid| broker.token(appid))
        .buffer_unordered(64);
    let filled = tokens.filter(|token| std::future::ready(token.is_ok()));
    assert_eq!(filled.count().await, appids.len());
}

/// Returns the mean time of a call in each batch, in nanoseconds, sorted.
fn time(broker: &Broker, appids: &[AppId], order: &[usize]) -> Vec<u64> {
    let mut means: Vec<_> = order
        .chunks_exact(BATCH)
        .map(|batch| {
            let started = Instant::now();
            for n in batch {
                let token = broker.token(&appids[*n]).now_or_never();
                black_box(token.expect("in memory").unwrap());
            }
            nanoseconds(started.elapsed()) / u64::try_from(BATCH).unwrap()
        })
        .collect();
    means.sort_unstable();
    means
}

async fn time_on_two(broker: &Broker, appids: &[AppId], order: &[usize]) -> Vec<u64> {
    let timed = [(); 2].map(|()| {
        let (broker, appids, order) = (broker.clone(), appids.to_vec(), order.to_vec());
        tokio::task::spawn_blocking(move || time(&broker, &appids, &order))
    });
    let mut means = Vec::new();
    for timed in timed {
        means.extend(timed.await.unwrap());
    }
    means.sort_unstable();
    means
}

/// Returns `count` pseudo-random numbers less than `below`, the same ones in each run.
fn shuffled(count: usize, below: usize) -> Vec<usize> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 1).unwrap() % below
    };
    (0..count).map(|_| next()).collect()
}

fn row(name: &str, sorted: &[u64]) {
    let quantile = |permille: usize| sorted[(sorted.len() - 1) * permille / 1_000];
    println!(
        "| {name} | {} ns | {} ns | {} ns | {} ns |",
        quantile(500),
        quantile(990),
        quantile(999),
        quantile(1_000)
    );
}

/// Returns the resident memory of this process, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let words = line.expect("VmRSS").split_whitespace().next();
    words.expect("a number").parse().unwrap()
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
