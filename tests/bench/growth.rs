//! What more work due does to the rate: a longer queue, more apps.

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
/// How many of them are sent in a measurement.
const PART: usize = 5_000;
/// How often it is repeated.
const ROUNDS: usize = 3;
/// Apps with due messages.
const APPS: [usize; 3] = [1, 100, 10_000];
/// Requests under way at the same time while apps are registered.
const CALLERS: usize = 16;

/// Drains a part of one app's queue, while the rest lies there.
pub(crate) async fn backlog(mode: &str, production: Option<Production>) {
    let place = Place::start(production).await;
    let bare = Bare::prepare(&place).await;
    let load = Load::prepare(&place, APP).await;
    let app = [AppId::parse(APP).expect("an appid")];
    println!("\n{mode}: the first {PART} messages of a backlog");
    headline("backlog");
    let (mut due, mut sent) = (0, 0);
    for backlog in BACKLOGS.into_iter().flat_map(|backlog| [backlog; ROUNDS]) {
        load.let_send("suspended").await;
        place.until_quiet().await;
        due -= usize::try_from(place.accepted() - sent).unwrap_or(due);
        load.fill(&app, backlog - due, place.now()).await;
        due = backlog;
        let bare = bare.run(PART).await;
        sent = place.accepted();
        line(backlog, &bare, &drain(&place, &load, PART).await);
    }
    // Stopping waits for what is under way only.
    place.stop().await;
}

/// Drains the same number of messages of more and more apps.
pub(crate) async fn apps(mode: &str, production: Option<Production>, count: usize) {
    let place = Place::start(production).await;
    let bare = Bare::prepare(&place).await;
    let load = Load::prepare(&place, APP).await;
    let mut apps = vec![AppId::parse(APP).expect("an appid")];
    println!("\n{mode}: the same messages of more apps");
    headline("apps");
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
        // One message of each first: then every app has its token.
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

fn headline(what: &str) {
    println!("{what:>9}     bare/s    drain/s   of bare   cpu/msg   of it in servers    memory");
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
