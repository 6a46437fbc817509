//! How fast: in messages a second, and until one message has been sent.

use std::time::{Duration, Instant};

use domain::app::AppId;

use crate::{
    cost::{Cpu, memory},
    load::{Bare, Load},
    place::{APP, Place, Production},
    run::Run,
};

/// How many messages are waited for, one after the other.
const WAITED: usize = 1_000;
/// Messages before the measurement, to warm up.
const WARM: usize = 100;
/// WeChat's latency while fairness is measured.
const LATENCY: Duration = Duration::from_millis(30);
/// Due messages of the busy tenant meanwhile.
const BACKLOG: usize = 200_000;
/// How many messages of the quiet tenant are waited for.
const SINGLES: usize = 150;
const QUIET: &str = "wx00000000000000c3";

/// Measures the bare client, accepting, and draining.
pub(crate) async fn rate(mode: &str, production: Option<Production>, count: usize) {
    let place = Place::start(production).await;
    let client = Bare::prepare(&place).await;
    client.run(count / 10).await;
    let bare = client.run(count).await;

    let load = Load::prepare(&place, APP).await;
    place.refuse_tokens();
    let accept = load.accept(count).await;
    let before = memory();
    let drain = drain(&place, count).await;
    let after = memory();
    // Other work on the machine changes its speed, so both halves of the ratio come from the same minute.
    let again = client.run(count).await;
    let usual = f64::midpoint(bare.rate(), again.rate());

    println!("\n{mode}: bare client, accept over HTTP, drain through the engine");
    println!("          msg/s   of bare   cpu/msg   of it in servers       p50       p99");
    for (name, run) in [
        ("bare", &bare),
        ("accept", &accept),
        ("drain", &drain),
        ("bare", &again),
    ] {
        println!(
            "{name:<8} {:>6.0} {:>9.2} {:>6} µs {:>15} µs {:>9} {:>9}",
            run.rate(),
            run.rate() / usual,
            run.cpu.total(),
            run.cpu.servers,
            millis(run, 50),
            millis(run, 99),
        );
    }
    println!("memory before and after the drain: {before} MiB, {after} MiB");
    place.stop().await;
}

/// Lets WeChat take messages, and waits until WeChat has all of them.
async fn drain(place: &Place, count: usize) -> Run {
    let wanted = place.accepted() + count as u64;
    let cpu = Cpu::now();
    let started = Instant::now();
    place.give_tokens();
    place.until_accepted(wanted).await;
    Run::new(count, started.elapsed(), cpu.each(count), Vec::new())
}

/// Measures a waited send and a bare call, in turn, with no other load.
pub(crate) async fn sync(mode: &str, production: Option<Production>) {
    let place = Place::start(production).await;
    let bare = Bare::prepare(&place).await;
    let load = Load::prepare(&place, APP).await;
    let (mut calls, mut sends) = (Vec::new(), Vec::new());
    for number in 0..WARM + WAITED {
        let started = Instant::now();
        bare.send(number).await;
        let called = Instant::now();
        load.send(number).await;
        if number >= WARM {
            calls.push(called - started);
            sends.push(called.elapsed());
        }
    }
    let of = |latencies| Run::new(WAITED, Duration::ZERO, Cpu::now().each(WAITED), latencies);
    let (calls, sends) = (of(calls), of(sends));
    println!("\n{mode}: one message at a time, {WAITED} of them");
    println!("                        p50       p99");
    for (name, run) in [("bare call", &calls), ("Prefer: wait=30", &sends)] {
        println!("{name:<18} {:>9} {:>9}", millis(run, 50), millis(run, 99));
    }
    let added = sends.percentile(50).zip(calls.percentile(50));
    let added = added.map_or(0.0, |(send, call)| send - call);
    println!("the gateway adds   {added:>6.2} ms at the median");
    place.stop().await;
}

/// One tenant's single messages, alone and beside another's backlog.
pub(crate) async fn fairness(mode: &str, production: Option<Production>) {
    let place = Place::start(production).await;
    let busy = Load::prepare(&place, APP).await;
    let quiet = Load::prepare(&place, QUIET).await;
    place.simulator.control().set_latency(LATENCY);
    println!("\n{mode}: a message of one tenant, {SINGLES} times, at {LATENCY:?} of WeChat's");
    println!("                                    p50       p99");
    let alone = singles(&quiet).await;
    busy.let_send("suspended").await;
    let app = [AppId::parse(APP).expect("an appid")];
    busy.fill(&app, BACKLOG, place.now()).await;
    let before = place.accepted();
    busy.let_send("active").await;
    place.leap();
    place.until_accepted(before + 1_000).await;
    let beside = singles(&quiet).await;
    let left = (before + BACKLOG as u64 + SINGLES as u64).saturating_sub(place.accepted());
    for (name, run) in [("alone", &alone), ("beside 200,000 of another", &beside)] {
        println!("{name:<30} {:>9} {:>9}", millis(run, 50), millis(run, 99));
    }
    println!("of the backlog were left at the end: {left}");
    place.stop().await;
}

async fn singles(load: &Load) -> Run {
    let cpu = Cpu::now();
    let mut latencies = Vec::with_capacity(SINGLES);
    for number in 0..SINGLES {
        let started = Instant::now();
        load.send(number).await;
        latencies.push(started.elapsed());
    }
    Run::new(SINGLES, Duration::ZERO, cpu.each(SINGLES), latencies)
}

/// The latency that this percentage does not exceed, as text.
pub(crate) fn millis(run: &Run, percent: usize) -> String {
    let millis = run.percentile(percent);
    millis.map_or(String::new(), |millis| format!("{millis:.2} ms"))
}
