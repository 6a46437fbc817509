//! What ten thousand bad logins do to a tenant that continues to work.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use reqwest::{Client, RequestBuilder, StatusCode, redirect::Policy};
use tokio::{
    sync::Mutex,
    time::{Interval, MissedTickBehavior, interval},
};

use crate::{
    cost::Cpu,
    load::{Load, at_once},
    place::{APP, Place, Production},
    run::Run,
    speed::millis,
};

/// Bad logins of each attack.
const LOGINS: usize = 10_000;
/// The number of connections of an attack.
const ATTACKERS: u8 = 64;
/// The time between two bad logins of an attack with a pace; the other attacks send as many as fit.
const PACE: Duration = Duration::from_millis(1);
/// Answers that the tenant waits for without an attack.
const ALONE: usize = 2_000;
/// Answers before the measurement, to warm up.
const WARM: usize = 200;

/// Measures a tenant's requests, alone and beside four attacks.
pub(crate) async fn logins(mode: &str, production: Option<Production>) {
    let place = Place::start(production).await;
    let load = Load::prepare(&place, APP).await;
    let villain = Villain::prepare(&load).await;
    work(&load, |answers| answers < WARM).await;
    println!("\n{mode}: {LOGINS} bad logins, and a tenant's requests one after the other");
    let local = |host: u8| Ipv4Addr::new(127, 0, 0, host);
    let many = (1..=ATTACKERS).map(|host| Ipv4Addr::new(127, 0, 66, host));
    let attack = villain.attack([local(65)], None);
    let (cpu, began) = (Cpu::now(), Instant::now());
    let answers = attack.run().await;
    let cost = cpu.each(LOGINS);
    println!(
        "without the tenant: {:.0} a second, {answers}; {} µs of the processors each, their caller's among it, {} µs of \
         it in servers",
        Run::new(LOGINS, began.elapsed(), cost, Vec::new()).rate(),
        cost.total(),
        cost.servers,
    );
    println!("                                          p50       p99   answers   bad logins");
    let alone = work(&load, |answers| answers < ALONE).await;
    line("alone", &alone, "none");
    for (name, attack) in [
        (
            "1,000 a second, another address",
            villain.attack([local(66)], Some(PACE)),
        ),
        (
            "as many as fit, another address",
            villain.attack([local(67)], None),
        ),
        (
            "as many as fit, its own address",
            villain.attack([local(1)], None),
        ),
        ("as many as fit, 64 addresses", villain.attack(many, None)),
    ] {
        let over = AtomicBool::new(false);
        let attack = async {
            let answers = attack.run().await;
            over.store(true, Ordering::Relaxed);
            answers
        };
        let goes_on = work(&load, |_| !over.load(Ordering::Relaxed));
        let (answers, beside) = futures::join!(attack, goes_on);
        line(name, &beside, &answers);
    }
    place.stop().await;
}

fn line(name: &str, run: &(usize, Run), bad: &str) {
    let (count, run) = run;
    let (p50, p99) = (millis(run, 50), millis(run, 99));
    println!("{name:<36} {p50:>9} {p99:>9} {count:>9}   {bad}");
}

/// Posts a message and reads the message, repeatedly, while `goes_on` accepts the number of answers.
async fn work(load: &Load, goes_on: impl Fn(usize) -> bool) -> (usize, Run) {
    let cpu = Cpu::now();
    let (mut latencies, mut number) = (Vec::new(), 0);
    while goes_on(latencies.len()) {
        let began = Instant::now();
        let id = load.post(number).await;
        let posted = Instant::now();
        load.read(&id).await;
        latencies.extend([posted - began, posted.elapsed()]);
        number += 1;
    }
    let count = latencies.len();
    let run = Run::new(count, Duration::ZERO, cpu.each(count), latencies);
    (count, run)
}

/// An attacker without a valid credential.
struct Villain {
    url: String,
    /// A revoked key.
    key: (String, String),
    /// A token that is valid except for the end of its signature.
    token: String,
}

impl Villain {
    async fn prepare(load: &Load) -> Self {
        let key = load.new_key().await;
        load.revoke_key(&key.0).await;
        let token = load.token();
        Self {
            url: load.url().to_owned(),
            key,
            token: format!("{}{}", &token[..token.len() - 4], "AAAA"),
        }
    }

    /// An attack from these addresses, at this pace.
    fn attack(
        &self,
        addresses: impl IntoIterator<Item = Ipv4Addr>,
        pace: Option<Duration>,
    ) -> Attack {
        let client = |address| {
            let builder = Client::builder()
                .local_address(IpAddr::V4(address))
                .no_proxy()
                .redirect(Policy::none());
            builder.build().expect("a client")
        };
        let ticks = |pace| {
            let mut ticks = interval(pace);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            Mutex::new(ticks)
        };
        Attack(Arc::new(Plan {
            url: self.url.clone(),
            key: self.key.clone(),
            token: self.token.clone(),
            clients: addresses.into_iter().map(client).collect(),
            ticks: pace.map(ticks),
            refused: AtomicUsize::new(0),
            limited: AtomicUsize::new(0),
            others: AtomicUsize::new(0),
        }))
    }
}

/// Ten thousand bad logins.
struct Attack(Arc<Plan>);

struct Plan {
    url: String,
    key: (String, String),
    token: String,
    /// One client for each address.
    clients: Vec<Client>,
    ticks: Option<Mutex<Interval>>,
    /// Requests refused after a check of the credential (401).
    refused: AtomicUsize,
    /// Requests refused by the rate limit (429).
    limited: AtomicUsize,
    /// Requests with other answers, which should be none.
    others: AtomicUsize,
}

impl Attack {
    /// Makes the bad logins. Returns the counts of the answers as text.
    async fn run(&self) -> String {
        let plan = self.0.clone();
        at_once(ATTACKERS.into(), LOGINS, move |number| {
            let plan = plan.clone();
            async move { plan.attempt(number).await }
        })
        .await;
        let Plan {
            refused,
            limited,
            others,
            ..
        } = &*self.0;
        let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
        format!(
            "401: {}, 429: {}, others: {}",
            count(refused),
            count(limited),
            count(others)
        )
    }
}

impl Plan {
    async fn attempt(&self, number: usize) {
        if let Some(ticks) = &self.ticks {
            ticks.lock().await.tick().await;
        }
        let answer = self.request(number).send().await.expect("an answer");
        match answer.status() {
            StatusCode::UNAUTHORIZED => self.refused.fetch_add(1, Ordering::Relaxed),
            StatusCode::TOO_MANY_REQUESTS => self.limited.fetch_add(1, Ordering::Relaxed),
            _ => self.others.fetch_add(1, Ordering::Relaxed),
        };
        answer.bytes().await.expect("a body");
    }

    /// Wrong secrets and wrong tokens; cheap and expensive checks in turn.
    fn request(&self, number: usize) -> RequestBuilder {
        let client = &self.clients[number % self.clients.len()];
        let form = |secret: &str| {
            [
                ("grant_type", "client_credentials".to_owned()),
                ("client_secret", secret.to_owned()),
            ]
        };
        let login = client.post(format!("{}/oauth/token", self.url));
        let read = client.get(format!("{}/v1/apps", self.url));
        match (number / self.clients.len()) % 4 {
            0 => login.form(&form(&self.key.1)),
            1 => login.form(&form(&format!("wxg_{number:065}"))),
            2 => read.bearer_auth(format!("e30.{number}.e30")),
            _ => read.bearer_auth(&self.token),
        }
    }
}
