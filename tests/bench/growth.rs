//! What more due work does to the rate: a longer queue, more apps.

use std::time::Instant;

use domain::app::AppId;

use crate::{
    cost::{Cpu, memory},
    load::{Bare, Load},
    place::{APP, Place, Production},
    run::Run,
};

/// Messages due in one app, at the start of a measurement.
const BACKLOGS: [usize; 3] = [10_000, 100_000, 1_000_000];
/// How many of these messages one measurement sends.
const PART: usize = 5_000;
/// How often each queue is measured, in turn, so that other load on the machine affects all queues alike.
const ROUNDS: usize = 20;
/// Apps with due messages.
const APPS: [usize; 3] = [1, 100, 10_000];
/// Simultaneous requests while apps are registered.
const CALLERS: usize = 16;

/// Drains a part of one app's queue, while the rest stays; in turn at gateways with shorter and longer queues.
pub(crate) async fn backlog(mode: &str, production: impl Fn() -> Option<Production>) {
    let mut queues = Vec::new();
    for length in BACKLOGS {
        queues.push(Queue::fill(length, production()).await);
    }
    println!("\n{mode}: the first {PART} messages of a backlog, medians of {ROUNDS}");
    println!(
        "  backlog     bare/s    drain/s   of bare   of the shortest   cpu/msg   of it in servers"
    );
    println!("memory of all gateways, full: {} MiB", memory());
    for round in 1..=ROUNDS {
        for queue in &mut queues {
            queue.measure().await;
        }
        if round == 1 || round == ROUNDS / 2 || round == ROUNDS {
            println!("and after round {round}: {} MiB", memory());
        }
    }
    for queue in &queues {
        let rounds = || queue.rounds.iter();
        let beside = rounds().zip(&queues[0].rounds);
        println!(
            "{:>9} {:>10.0} {:>10.0} {:>9.2} {:>17.2} {:>6.0} µs {:>15.0} µs",
            queue.length,
            median(rounds().map(|(bare, _)| bare.rate())),
            median(rounds().map(|(_, drain)| drain.rate())),
            median(rounds().map(|(bare, drain)| drain.rate() / bare.rate())),
            median(beside.map(|((_, this), (_, first))| this.rate() / first.rate())),
            median(rounds().map(|(_, drain)| micros(drain.cpu.total()))),
            median(rounds().map(|(_, drain)| micros(drain.cpu.servers))),
        );
    }
    for queue in queues {
        // The stop waits only for messages in flight.
        queue.place.stop().await;
    }
}

/// A gateway with `length` due messages.
struct Queue {
    length: usize,
    /// The results of the bare client and of the gateway.
    rounds: Vec<(Run, Run)>,
    place: Place,
    bare: Bare,
    load: Load,
    app: [AppId; 1],
}

impl Queue {
    async fn fill(length: usize, production: Option<Production>) -> Self {
        let place = Place::start(production).await;
        let bare = Bare::prepare(&place).await;
        let load = Load::prepare(&place, APP).await;
        let app = [AppId::parse(APP).expect("an appid")];
        load.let_send("suspended").await;
        load.fill(&app, length, place.now()).await;
        Self {
            length,
            rounds: Vec::new(),
            place,
            bare,
            load,
            app,
        }
    }

    /// Measures the bare client, then the gateway, and refills the queue.
    async fn measure(&mut self) {
        let before = self.place.accepted();
        let bare = self.bare.run(PART).await;
        let drained = drain(&self.place, &self.load, PART).await;
        self.load.let_send("suspended").await;
        self.place.until_quiet().await;
        let sent = usize::try_from(self.place.accepted() - before).expect("a count") - PART;
        self.load.fill(&self.app, sent, self.place.now()).await;
        self.rounds.push((bare, drained));
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Drains the same number of messages of more and more apps.
pub(crate) async fn apps(mode: &str, production: Option<Production>, count: usize) {
    let place = Place::start(production).await;
    let bare = Bare::prepare(&place).await;
    let load = Load::prepare(&place, APP).await;
    let mut apps = vec![AppId::parse(APP).expect("an appid")];
    println!("\n{mode}: the same messages of more apps");
    println!("     apps     bare/s    drain/s   of bare   cpu/msg   of it in servers    memory");
    for wanted in APPS {
        let new = (apps.len()..wanted).map(|number| format!("wx1{number:015x}"));
        let new: Vec<String> = new.collect();
        for some in new.chunks(CALLERS) {
            futures::future::join_all(some.iter().map(|appid| load.register(appid))).await;
        }
        apps.extend(
            new.iter()
                .map(|appid| AppId::parse(appid).expect("an appid")),
        );
        // First one message of each app, so that every app has its token.
        for (count, measured) in [(apps.len(), false), (count.max(apps.len()), true)] {
            load.let_send("suspended").await;
            load.fill(&apps, count, place.now()).await;
            let bare = bare.run(count).await;
            let drain = drain(&place, &load, count).await;
            if measured {
                line(apps.len(), &bare, &drain);
            }
        }
    }
    place.stop().await;
}

/// Lets the gateway send, and waits until WeChat has `count` messages more.
pub(crate) async fn drain(place: &Place, load: &Load, count: usize) -> Run {
    let wanted = place.accepted() + count as u64;
    let cpu = Cpu::now();
    let started = Instant::now();
    load.let_send("active").await;
    place.leap();
    place.until_accepted(wanted).await;
    Run::new(count, started.elapsed(), cpu.each(count), Vec::new())
}

fn micros(cpu: u64) -> f64 {
    u32::try_from(cpu).map_or(f64::MAX, f64::from)
}

fn line(what: usize, bare: &Run, drain: &Run) {
    println!(
        "{what:>9} {:>10.0} {:>10.0} {:>9.2} {:>6} µs {:>15} µs {:>5} MiB",
        bare.rate(),
        drain.rate(),
        drain.rate() / bare.rate(),
        drain.cpu.total(),
        drain.cpu.servers,
        memory(),
    );
}
