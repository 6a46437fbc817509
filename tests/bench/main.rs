//! `make bench`: how fast messages go through the gateway, and how fast the bare WeChat client sends the same messages
//! to the same simulator in the same run. The ratio shows what the gateway adds.
//!
//! Everything shares this machine: the load, the gateway, its database and the simulator, which answers at once. So the
//! numbers are a floor for the gateway and no promise for a network. Each measurement is made in both modes:
//!
//! - `rate`: the bare client, as many sends at once as the gateway has slots; messages accepted over HTTP; the queue
//!   drained through the whole engine;
//! - `sync`: one message after the other, each waited for, beside one call of the bare client each;
//! - `logins`: one request after the other of a tenant, alone and beside 10,000 bad logins;
//! - `fairness`: one tenant's single messages beside 200,000 of another's;
//! - `batches`: accepting one tenant's single messages beside another's batches;
//! - `endpoints`: one tenant's events beside another's endpoints that hang;
//! - `receipts`: one tenant's scheduled messages beside another's invented receipts;
//! - `hang`: a tenant's requests while Redis is frozen;
//! - `backlog`: draining with ten thousand, a hundred thousand and a million messages due;
//! - `apps`: draining the messages of one, a hundred and ten thousand apps;
//! - `grants`: draining messages that take a form id or a grant, counting and estimating, with ten thousand, a hundred
//!   thousand and a million of each.

#![expect(clippy::print_stdout, reason = "it prints its results")]
#![expect(
    clippy::expect_used,
    reason = "a benchmark that cannot run has nothing to recover"
)]

mod asks;
mod cost;
mod grants;
mod growth;
mod load;
mod logins;
mod place;
mod pressure;
mod run;
mod speed;

use std::process::ExitCode;

use place::Production;

/// The allocator of the product, so that memory costs the same here.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The number of messages, if the command line gives none.
const DEFAULT: usize = 20_000;
const MODES: [&str; 2] = ["embedded", "production"];
const MEASUREMENTS: [&str; 11] = [
    "rate",
    "sync",
    "logins",
    "fairness",
    "batches",
    "endpoints",
    "receipts",
    "hang",
    "backlog",
    "apps",
    "grants",
];

#[tokio::main]
async fn main() -> ExitCode {
    let (mut count, mut words) = (DEFAULT, Vec::new());
    for word in std::env::args().skip(1) {
        match word.parse() {
            Ok(number) => count = number,
            Err(_)
                if MODES
                    .iter()
                    .chain(&MEASUREMENTS)
                    .any(|known| *known == word) =>
            {
                words.push(word);
            }
            Err(_) => {
                println!(
                    "unknown: {word}; give a number of messages, and any of {MEASUREMENTS:?} and {MODES:?}"
                );
                return ExitCode::FAILURE;
            }
        }
    }
    // If the arguments name nothing of a kind, all of that kind are measured.
    let named = |kind: &[&str], what: &str| {
        words.iter().any(|word| word == what)
            || !words.iter().any(|word| kind.contains(&word.as_str()))
    };
    println!(
        "{count} messages; {} processors",
        std::thread::available_parallelism().map_or(0, usize::from)
    );
    for mode in MODES.into_iter().filter(|mode| named(&MODES, mode)) {
        let production = || (mode == "production").then(Production::start);
        for what in MEASUREMENTS
            .into_iter()
            .filter(|what| named(&MEASUREMENTS, what))
        {
            match what {
                "rate" => speed::rate(mode, production(), count).await,
                "sync" => speed::sync(mode, production()).await,
                "logins" => logins::logins(mode, production()).await,
                "fairness" => speed::fairness(mode, production()).await,
                "batches" => pressure::batches(mode, production()).await,
                "endpoints" => pressure::endpoints(mode, production()).await,
                "receipts" => pressure::receipts(mode, production()).await,
                "hang" => pressure::hang(mode, production()).await,
                "backlog" => growth::backlog(mode, production).await,
                "apps" => growth::apps(mode, production(), count).await,
                _ => grants::grants(mode, production(), count).await,
            }
        }
    }
    ExitCode::SUCCESS
}
