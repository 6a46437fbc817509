//! What one tenant waits for while another tenant puts the gateway under load, or Redis is frozen.

use std::{
    sync::Arc,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use simulator::{PushEvent, PushFormat, PushMode, PushReceipt, PushSettings};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
    task::JoinSet,
    time::{interval, timeout},
};

use crate::{
    cost::Cpu,
    load::Load,
    place::{APP, Place, Production},
    run::Run,
    speed::millis,
};

const QUIET: &str = "wx00000000000000c3";
/// Messages of the quiet tenant, one after the other.
const SINGLES: usize = 200;
/// Callers of the busy tenant.
const CALLERS: usize = 2;
/// Messages in each batch of the busy tenant.
const BATCH: usize = 1_000;
/// Endpoints of the busy tenant, none of which ever answers: as many as a tenant may have.
const HANGING: usize = 20;
/// Messages of the busy tenant, each an event for each endpoint.
const EVENTS: usize = 100;
/// Events of the quiet tenant that the measurement waits for.
const TOLD: usize = 20;
/// The longest wait for one of these events.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long the busy tenant sends invented receipts.
const FLOOD: Duration = Duration::from_secs(10);
/// Invented receipts in a callback: as many as a callback may have.
const RECEIPTS: usize = 100;
/// Simultaneous callbacks.
const PUSHERS: usize = 8;
/// The time between two scheduled messages, and between two requests beside a frozen Redis.
const STEP: Duration = Duration::from_millis(200);
/// Requests beside a frozen Redis.
const REQUESTS: usize = 50;

/// One tenant's single messages, alone and beside another's batches without pause. None is sent.
pub(crate) async fn batches(mode: &str, production: Option<Production>) {
    let place = Place::start(production).await;
    let busy = Load::prepare(&place, APP).await;
    let quiet = Load::prepare(&place, QUIET).await;
    for load in [&busy, &quiet] {
        load.let_send("active").await;
    }
    place.refuse_tokens();
    println!("\n{mode}: accepting a message of one tenant, {SINGLES} times");
    head();
    singles(&quiet, SINGLES / 10).await;
    line("alone", &singles(&quiet, SINGLES).await);
    let (stop, taken) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (busy, stop, taken) = (busy.clone(), stop.clone(), taken.clone());
        callers.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                taken.fetch_add(busy.post_batch(BATCH).await, Ordering::Relaxed);
            }
        });
    }
    let began = Instant::now();
    line("beside batches of 1,000", &singles(&quiet, SINGLES).await);
    let seconds = began.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    callers.join_all().await;
    println!(
        "of the batches were taken: {} messages in {seconds:.1} s",
        taken.load(Ordering::Relaxed)
    );
    place.stop().await;
}

async fn singles(load: &Load, count: usize) -> Run {
    let cpu = Cpu::now();
    let mut latencies = Vec::with_capacity(count);
    for number in 0..count {
        let started = Instant::now();
        load.post(number).await;
        latencies.push(started.elapsed());
    }
    Run::new(count, Duration::ZERO, cpu.each(count), latencies)
}

/// One tenant's events, alone and beside another's endpoints that take every connection and never answer.
pub(crate) async fn endpoints(mode: &str, production: Option<Production>) {
    let place = Place::start(production).await;
    let busy = Load::prepare(&place, APP).await;
    let quiet = Load::prepare(&place, QUIET).await;
    let (url, mut heard, mut servers) = receiver().await;
    quiet.hook(&url).await;
    println!("\n{mode}: from a message until its event is at the endpoint, {TOLD} times");
    head();
    line("alone", &events(&quiet, &mut heard).await);
    let deaf = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = deaf.local_addr().expect("an address");
    servers.spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = deaf.accept().await {
            held.push(stream);
        }
    });
    for number in 0..HANGING {
        busy.hook(&format!("http://{address}/{number}")).await;
    }
    for number in 0..EVENTS {
        busy.post(number).await;
    }
    line(
        &format!("beside {HANGING} that hang"),
        &events(&quiet, &mut heard).await,
    );
    // The gateway gives up the hanging posts before the place stops.
    place.stop().await;
}

/// Starts a server that reports each event on a channel. Returns its URL and the channel.
async fn receiver() -> (String, mpsc::UnboundedReceiver<()>, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
    let (told, heard) = mpsc::unbounded_channel();
    let mut servers = JoinSet::new();
    servers.spawn(async move {
        let mut open = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let told = told.clone();
            open.spawn(async move {
                let mut bytes = vec![0; 16 * 1024];
                while stream.read(&mut bytes).await.is_ok_and(|count| count > 0) {
                    let _ = told.send(());
                    let answer = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
                    let _ = stream.write_all(answer).await;
                    let _ = stream.shutdown().await;
                }
            });
        }
    });
    (url, heard, servers)
}

async fn events(quiet: &Load, heard: &mut mpsc::UnboundedReceiver<()>) -> Run {
    let cpu = Cpu::now();
    let mut latencies = Vec::with_capacity(TOLD);
    for number in 0..TOLD {
        let started = Instant::now();
        quiet.post(number).await;
        // A late event counts with the time that the measurement waited.
        let _ = timeout(PATIENCE, heard.recv()).await;
        while heard.try_recv().is_ok() {}
        latencies.push(started.elapsed());
        if latencies.iter().sum::<Duration>() > PATIENCE {
            break;
        }
    }
    Run::new(TOLD, Duration::ZERO, cpu.each(TOLD), latencies)
}

/// How late one tenant's scheduled messages are, alone and beside another's invented receipts.
pub(crate) async fn receipts(mode: &str, production: Option<Production>) {
    let place = Place::start(production).await;
    let busy = Load::prepare(&place, APP).await;
    let quiet = Load::prepare(&place, QUIET).await;
    busy.hear("gatewayTestToken01").await;
    place.simulator.control().change_app(APP, |app| {
        app.push = Some(PushSettings {
            url: String::from("http://127.0.0.1:9"),
            token: "gatewayTestToken01".into(),
            aes_key: None,
            mode: PushMode::Plain,
            format: PushFormat::Json,
            receipts: false,
        });
    });
    println!("\n{mode}: how late a scheduled message is, one each {STEP:?} for {FLOOD:?}");
    head();
    line("alone", &scheduled(&place, &quiet, "alone").await);
    let stop = Arc::new(AtomicBool::new(false));
    let mut pushers = JoinSet::new();
    for number in 0..PUSHERS {
        let (busy, stop, control) = (
            busy.clone(),
            stop.clone(),
            place.simulator.control().clone(),
        );
        pushers.spawn(async move {
            let mut answers = [0u64; 3];
            for round in 0u64.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let event = invented(number as u64 * 1_000_000_000 + round * 1_000);
                let letter = control.letter(APP, &event).expect("a letter");
                let status = busy.push(&letter).await;
                answers[match status {
                    200 => 0,
                    429 => 1,
                    _ => 2,
                }] += 1;
            }
            answers
        });
    }
    let late = scheduled(&place, &quiet, "beside").await;
    stop.store(true, Ordering::Relaxed);
    line("beside invented receipts", &late);
    let answers = pushers.join_all().await;
    let of = |what: usize| answers.iter().map(|answers| answers[what]).sum::<u64>();
    println!(
        "pushes of {RECEIPTS} receipts: {} answered 200, {} 429, {} otherwise",
        of(0),
        of(1),
        of(2),
    );
    place.stop().await;
}

fn invented(from: u64) -> PushEvent {
    let receipts = (from..from + RECEIPTS as u64).map(|number| PushReceipt {
        template_id: "t".into(),
        msgid: 1 << 60 | number,
        error_code: 0,
        error_status: "success".into(),
    });
    PushEvent::Sent {
        openid: format!("o{from}"),
        receipts: receipts.collect(),
    }
}

async fn scheduled(place: &Place, quiet: &Load, name: &str) -> Run {
    let cpu = Cpu::now();
    let count = FLOOD.as_millis() / STEP.as_millis();
    let count = usize::try_from(count).expect("few");
    let first = place.now() + Duration::from_secs(10);
    let due: Vec<DateTime<Utc>> = (0..count)
        .map(|number| first + STEP * u32::try_from(number).expect("few"))
        .collect();
    let before = place.accepted();
    for (number, at) in due.iter().enumerate() {
        quiet.schedule(&format!("{name}{number}"), at).await;
    }
    // Nothing else is sent, and due messages are sent in order.
    let mut late = Vec::with_capacity(count);
    let mut ticks = interval(Duration::from_millis(5));
    let began = Instant::now();
    while late.len() < count && began.elapsed() < FLOOD * 2 + PATIENCE {
        ticks.tick().await;
        let sent = usize::try_from(place.accepted() - before).unwrap_or(count);
        let sent = &due[late.len().min(sent)..sent.min(count)];
        let now = place.now();
        late.extend(
            sent.iter()
                .map(|due| (now - due).to_std().unwrap_or_default()),
        );
    }
    late.resize(count, PATIENCE);
    Run::new(count, Duration::ZERO, cpu.each(count), late)
}

/// A tenant's requests while Redis answers, and while Redis is frozen.
pub(crate) async fn hang(mode: &str, production: Option<Production>) {
    let Some(production) = production else { return };
    let place = Place::start(Some(production)).await;
    let quiet = Load::prepare(&place, QUIET).await;
    place.refuse_tokens();
    println!("\n{mode}: accepting a message of one tenant, one each {STEP:?}, {REQUESTS} times");
    head();
    line("Redis answers", &paced(&quiet).await);
    place.production().redis.freeze();
    line("Redis stands still", &paced(&quiet).await);
    place.production().redis.thaw();
    line("Redis answers again", &paced(&quiet).await);
    place.stop().await;
}

async fn paced(load: &Load) -> Run {
    let mut requests = JoinSet::new();
    let mut ticks = interval(STEP);
    for number in 0..REQUESTS {
        ticks.tick().await;
        let load = load.clone();
        requests.spawn(async move {
            let started = Instant::now();
            load.post(number).await;
            started.elapsed()
        });
    }
    let latencies = requests.join_all().await;
    let slow = latencies
        .iter()
        .filter(|one| **one > Duration::from_millis(500));
    println!("          over 0.5 s: {} of {REQUESTS}", slow.count());
    Run::new(
        REQUESTS,
        Duration::ZERO,
        Cpu::now().each(REQUESTS),
        latencies,
    )
}

fn head() {
    println!("                                    p50       p99       max");
}

fn line(name: &str, run: &Run) {
    println!(
        "{name:<30} {:>9} {:>9} {:>9}",
        millis(run, 50),
        millis(run, 99),
        millis(run, 100)
    );
}
