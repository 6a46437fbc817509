//! `make bench`: how fast messages go through the gateway, and how fast the bare WeChat client sends the same
//! messages to the same simulator in the same run. What the gateway adds is in the ratio.
//!
//! Everything shares this machine: the load, the gateway, its database and the simulator, which answers at once. So
//! the numbers are a floor for the gateway and no promise for a network. Three phases for each mode:
//!
//! - *bare*: the typed client alone, as many sends at once as the gateway has slots;
//! - *accept*: messages over HTTP, one a request, into the database; nothing can be sent meanwhile, because WeChat
//!   refuses tokens;
//! - *drain*: WeChat gives a token, and the queue is sent.

#![expect(clippy::print_stdout, reason = "it prints its results")]
#![expect(
    clippy::expect_used,
    reason = "a benchmark that cannot run has nothing to recover"
)]

mod load;
mod place;

use std::time::{Duration, Instant};

use load::{Load, Rate};
use place::{Place, Production};

/// Messages, where no number is given.
const DEFAULT: usize = 20_000;

#[tokio::main]
async fn main() {
    let count = std::env::args()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .unwrap_or(DEFAULT);
    println!(
        "{count} messages each; {} processors",
        std::thread::available_parallelism().map_or(0, usize::from)
    );
    println!(
        "{:<12} {:>12} {:>12} {:>12} {:>14}",
        "mode", "bare/s", "accept/s", "drain/s", "drain : bare"
    );
    measure("embedded", count, None).await;
    measure("production", count, Some(Production::start())).await;
}

async fn measure(name: &str, count: usize, production: Option<Production>) {
    let place = Place::start(production).await;
    let bare = Rate::of(count, load::bare(&place, count).await);

    let load = Load::prepare(&place).await;
    place.refuse_tokens();
    let accept = Rate::of(count, load.accept(count).await);
    let drain = Rate::of(count, drain(&place, count).await);

    let ratio = drain.per_second / bare.per_second;
    println!("{name:<12} {bare:>12} {accept:>12} {drain:>12} {ratio:>14.2}");
    place.stop().await;
}

/// Lets WeChat take messages, and waits until it has all of them.
async fn drain(place: &Place, count: usize) -> Duration {
    let before = place.accepted();
    let started = Instant::now();
    place.give_tokens();
    place.until_accepted(before + count as u64).await;
    started.elapsed()
}
