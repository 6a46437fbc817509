//! Three replicas under load, as real programs; one replica is killed or stopped.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;
use simulator::{Effect, Fault};

use crate::world::{Load, Mode, Tenant, World, eventually, message, reckon, until};

const APP: &str = "wx00000000000000a1";

mod ten_kills_lose_and_repeat_nothing {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn production() {
        super::ten_kills_lose_and_repeat_nothing().await;
    }
}

mod a_stop_under_load_leaves_nothing_uncertain {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn production() {
        super::a_stop_under_load_leaves_nothing_uncertain().await;
    }
}

mod a_killed_fetcher_is_replaced_and_no_dead_token_used {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn production() {
        super::a_killed_fetcher_is_replaced_and_no_dead_token_used().await;
    }
}

/// The number of kills.
const KILLS: usize = 10;
/// The number of messages that WeChat takes between two kills.
const BETWEEN: usize = 150;
/// A small number, so that all slots are in use whenever a replica is killed.
const SLOTS: usize = 16;

/// The number of the app's messages that WeChat has taken.
fn taken(world: &World) -> usize {
    world.wechat().sent(APP).len()
}

async fn until_taken(world: &World, wanted: usize) {
    until(&format!("WeChat has taken {wanted} messages"), || {
        taken(world) >= wanted
    })
    .await;
}

/// 1,650 messages, ten times `kill -9` and a new replica, 16 sending slots each. The in-flight messages of a killed
/// replica stay under lease; a gateway that starts two minutes later finds these messages.
async fn ten_kills_lose_and_repeat_nothing() {
    let mut world = World::plan(Mode::Production)
        .replicas(3)
        .own_process()
        .slots(SLOTS)
        .start()
        .await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    world.wechat().set_latency(Duration::from_millis(100));

    let load = Load::new(&world, &tenant, APP, (KILLS + 1) * BETWEEN).ahead(2 * BETWEEN);
    let kills = async {
        for kill in 1..=KILLS {
            until_taken(&world, kill * BETWEEN).await;
            world.kill_oldest();
            world.add_replica(true).await;
        }
    };
    let (accepted, ()) = futures::join!(load.run(), kills);
    let tenant = world.at(0, &tenant);
    tenant.wait_count(APP, "queued", 0).await;
    world.stop_all().await;
    world.wechat().set_latency(Duration::ZERO);
    world.leap(Duration::from_mins(2));
    world.add_replica(false).await;

    let tenant = world.at(0, &tenant);
    tenant.wait_count(APP, "sending", 0).await;
    let uncertain = reckon(&world, &tenant, APP, &accepted.messages).await;
    eprintln!(
        "{KILLS} kills: {uncertain} uncertain; {} requests without an answer, {} refused",
        accepted.unanswered, accepted.refused
    );
    assert!(
        (1..=KILLS * SLOTS).contains(&uncertain),
        "{uncertain} uncertain after {KILLS} kills of {SLOTS} slots each"
    );
    let next = tenant.send_and_wait(APP, &message("o0")).await;
    assert_eq!(next["status"], "sent", "no user is blocked: {next}");
}

/// 600 messages, 64 sending slots each, answers that take 200 ms; the shutdown time-out is the default of 30 s.
async fn a_stop_under_load_leaves_nothing_uncertain() {
    let mut world = World::plan(Mode::Production)
        .replicas(3)
        .own_process()
        .slots(64)
        .start()
        .await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    world.wechat().set_latency(Duration::from_millis(200));

    let load = Load::new(&world, &tenant, APP, 600).ahead(200);
    let stop = async {
        until_taken(&world, 200).await;
        let asked = Instant::now();
        let code = world.terminate_oldest().await;
        (code, asked.elapsed())
    };
    let (accepted, (code, took)) = futures::join!(load.run(), stop);
    eprintln!(
        "stopped in {took:?}; {} requests without an answer, {} refused",
        accepted.unanswered, accepted.refused
    );
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(30), "{took:?}");

    let tenant = world.at(0, &tenant);
    tenant.wait_count(APP, "queued", 0).await;
    tenant.wait_count(APP, "sending", 0).await;
    let uncertain = reckon(&world, &tenant, APP, &accepted.messages).await;
    assert_eq!(uncertain, 0);
}

/// The call that fetches tokens in legacy mode.
const FETCH: &str = "/cgi-bin/token";
/// The broker's fetch lease, 15 s, and the delay of a busy machine, 10 s.
const TURN: Duration = Duration::from_secs(15 + 10);

/// Makes a replica look for the app's token.
async fn hand_out(replica: &Tenant) {
    let path = format!("/v1/apps/{APP}/access-token");
    let handed = replica.client.call(Method::POST, &path, None).await;
    handed.expect(200);
}

/// In legacy mode only the killed replica got the new token. Three of the old token's six seconds are left when the
/// refresh begins. One message is sent within these seconds, and a hundred afterwards.
async fn a_killed_fetcher_is_replaced_and_no_dead_token_used() {
    let mut world = World::plan(Mode::Production)
        .replicas(3)
        .own_process()
        .start()
        .await;
    let tenant = world.tenant("a").await;
    let new = json!({"appid": APP, "secret": "s", "tenant_id": tenant.id, "verify": false, "token_mode": "legacy"});
    world.operator().post("/v1/apps", &new).await.expect(201);
    let wechat = world.wechat();
    wechat.change_app(APP, |app| app.token_ttl = 6);
    let victim = world.at(0, &tenant);
    hand_out(&victim).await;
    let began = Instant::now();
    let fetches = || wechat.app_stats(APP).total(FETCH);
    wechat.change_app(APP, |app| app.token_ttl = 7200);
    let slow = wechat.add_fault(Fault::always(Effect::Latency { ms: 4000 }).for_path(FETCH));
    eventually("the first replica refreshes the token", || async {
        hand_out(&victim).await;
        (fetches() == 2).then_some(())
    })
    .await;
    world.kill_oldest();
    let killed = Instant::now();
    wechat.remove_fault(slow);

    let tenant = world.at(0, &tenant);
    let early = tenant.send_and_wait(APP, &message("early")).await;
    assert_eq!(early["status"], "sent", "the old token still serves");
    until("the old token has ended", || {
        began.elapsed() > Duration::from_secs(6)
    })
    .await;
    let load = Load::new(&world, &tenant, APP, 100).run();
    let replaced = async {
        until("another has fetched", || fetches() == 3).await;
        killed.elapsed()
    };
    let (mut accepted, took) = futures::join!(load, replaced);
    eprintln!("fetched again after {took:?}");
    assert!(took < TURN, "{took:?}");

    tenant.wait_count(APP, "queued", 0).await;
    tenant.wait_count(APP, "sending", 0).await;
    accepted.messages.push(early);
    assert_eq!(reckon(&world, &tenant, APP, &accepted.messages).await, 0);
    let stats = wechat.app_stats(APP);
    assert_eq!(stats.total(FETCH), 3, "{stats:?}");
    let sends = &stats.calls["/cgi-bin/message/subscribe/send"];
    assert_eq!(
        sends.keys().collect::<Vec<_>>(),
        [&0],
        "dead tokens: {stats:?}"
    );
}
