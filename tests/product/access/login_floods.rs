//! Ten thousand bad logins from one address: the gateway limits the logins, and a good tenant notices no effect.

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
/// The interval between two requests of the good tenant.
const PACE: Duration = Duration::from_millis(25);
/// The interval between two bad logins: 500 a second, or as many as the machine can do.
const ATTACK: Duration = Duration::from_millis(2);
/// The number of answers for the latency without an attack.
const CALM: usize = 200;

both_modes!(ten_thousand_bad_logins_are_limited_and_affect_no_other_tenant);

async fn ten_thousand_bad_logins_are_limited_and_affect_no_other_tenant(mode: Mode) {
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
    // Failed secrets: 20 at once and 10 a minute, over all endpoints. Failed tokens: 120 at once and 60 a minute.
    let minutes = usize::try_from(took.as_secs() / 60).expect("a few") + 1;
    let most = 20 + 10 * minutes + 120 + 60 * minutes;
    assert!(refused <= most, "{refused} were looked at, not {most}");
    assert!(!besieged.is_empty());
    // This limit is far above the usual latency, for a machine that runs other tests too.
    let late = besieged[besieged.len() * 95 / 100];
    assert!(late < Duration::from_secs(2), "{late:?}");
    // The limits do not affect logins from other addresses: a new client at another address gets a token.
    world.key_of(&tenant.id, &["apps:read"]).await.token().await;
}

/// Sends bad logins of every kind. Returns the number of refusals with 401, and with 429.
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

/// Reads, sends and gets tokens as the good tenant while `goes_on` is true for the number of answers, and asserts
/// success. Returns the sorted durations of the answers.
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
