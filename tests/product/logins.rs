//! Ten thousand bad logins, from an address of their own: they are limited, and a good tenant does not feel them.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use reqwest::Method;
use tokio::time::{MissedTickBehavior, interval};

use crate::world::{Client, Mode, Tenant, World, finish, message};

const APP: &str = "wx00000000000000a1";
const LOGINS: usize = 10_000;
const ATTACKERS: usize = 16;
/// The time between two requests of one caller of the good tenant.
const PACE: Duration = Duration::from_millis(25);
/// The time between two bad logins: 500 a second, or what the machine can do.
const ATTACK: Duration = Duration::from_millis(2);
/// How many answers the latency without an attack is taken from.
const CALM: usize = 200;

both_modes!(ten_thousand_bad_logins_are_limited_and_harm_nobody);

async fn ten_thousand_bad_logins_are_limited_and_harm_nobody(mode: Mode) {
    let world = World::plan(mode).own_process().start().await;
    let tenant = world.tenant("tea").await;
    tenant.app(APP).await;
    let revoked = world.key_of(&tenant.id, &["apps:read"]).await;
    let path = format!("/v1/keys/{}", revoked.key().client_id);
    tenant.client.delete(&path).await.expect(204);
    work(&tenant, |answers| answers < 20).await;
    let calm = work(&tenant, |answers| answers < CALM).await;

    let over = AtomicBool::new(false);
    let began = Instant::now();
    let attack = async {
        let statuses = attack(&world, &revoked).await;
        over.store(true, Ordering::Relaxed);
        statuses
    };
    let goes_on = work(&tenant, |_| !over.load(Ordering::Relaxed));
    let ([refused, limited], besieged) = futures::join!(attack, goes_on);
    let took = began.elapsed();
    eprintln!(
        "{mode:?}: {LOGINS} bad logins in {took:?}: {refused} refused, {limited} limited\n\
         good tenant, calm:     {}\ngood tenant, besieged: {}",
        shown(&calm),
        shown(&besieged)
    );
    assert_eq!(refused + limited, LOGINS);
    // 20 at once and 10 a minute, at each of the two doors that take a secret; bad tokens 120 and 60.
    let minutes = usize::try_from(took.as_secs() / 60).expect("a few") + 1;
    let most = 20 + 10 * minutes + 120 + 60 * minutes;
    assert!(refused <= most, "{refused} were looked at, not {most}");
    assert!(!besieged.is_empty());
    // Limits of another magnitude than what is measured: for a machine that is busy with other tests.
    let late = besieged[besieged.len() * 95 / 100];
    assert!(late < Duration::from_secs(2), "{late:?}");
    // The same limits let nobody else's login fail: a new client at another address gets in.
    world.key_of(&tenant.id, &["apps:read"]).await.token().await;
}

/// Bad logins of every kind. Returns how many were refused as wrong, and how many for their number.
async fn attack(world: &World, revoked: &Client) -> [usize; 2] {
    let http = reqwest::Client::builder()
        .local_address(IpAddr::from(Ipv4Addr::new(127, 0, 0, 66)))
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .expect("a client");
    let statuses = [const { AtomicUsize::new(0) }; 2];
    let mut ticks = interval(ATTACK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let attempts = stream::unfold((ticks, 0), async |(mut ticks, number)| {
        ticks.tick().await;
        (number < LOGINS).then_some((number, (ticks, number + 1)))
    });
    let url = world.url(0);
    let attempt = async |number: usize| {
        let key = revoked.key();
        let request = match number % 4 {
            0 => {
                let form = [("grant_type", "client_credentials")];
                let request = http.post(format!("{url}/oauth/token")).form(&form);
                request.basic_auth(&key.client_id, Some(&key.client_secret))
            }
            1 => {
                let secret = format!("wxg_{number:065}");
                let form = [
                    ("grant_type", "client_credentials"),
                    ("client_secret", &secret),
                ];
                http.post(format!("{url}/oauth/token")).form(&form)
            }
            2 => {
                let form = [("client_secret", &key.client_secret)];
                let request = http.post(format!("{url}/console/sign-in")).form(&form);
                request.header("origin", url)
            }
            _ => {
                let token = format!("e30.{number}.e30");
                http.get(format!("{url}/v1/apps")).bearer_auth(token)
            }
        };
        let answer = request.send().await.expect("an answer");
        let place = match answer.status().as_u16() {
            401 => 0,
            429 => {
                assert!(answer.headers().contains_key("retry-after"));
                1
            }
            other => panic!("{other} for a bad login"),
        };
        statuses[place].fetch_add(1, Ordering::Relaxed);
    };
    attempts
        .for_each_concurrent(ATTACKERS, async |number| attempt(number).await)
        .await;
    statuses.map(AtomicUsize::into_inner)
}

/// The good tenant works on while `goes_on` says so of the number of answers: it reads, sends and gets tokens, and
/// everything succeeds. Returns how long each answer took, sorted.
async fn work(tenant: &Tenant, goes_on: impl Fn(usize) -> bool) -> Vec<Duration> {
    let mut took = Vec::new();
    let mut ticks = interval(PACE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while goes_on(took.len()) {
        ticks.tick().await;
        let client = &tenant.client;
        let number = took.len();
        let began = Instant::now();
        match number % 10 {
            0 => drop(client.fetch_token(None).await.expect(200)),
            1..=4 => drop(tenant.send(APP, &message(&format!("o{number}"))).await),
            _ => {
                let request = client.request(Method::GET, "/v1/apps").await;
                finish(request).await.expect(200);
            }
        }
        took.push(began.elapsed());
    }
    took.sort_unstable();
    took
}

fn shown(sorted: &[Duration]) -> String {
    let part = |hundredths: usize| sorted[(sorted.len() - 1) * hundredths / 100];
    format!(
        "{} answers, p50 {:?}, p95 {:?}, p99 {:?}",
        sorted.len(),
        part(50),
        part(95),
        part(99)
    )
}
