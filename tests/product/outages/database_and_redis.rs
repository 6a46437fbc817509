//! The servers beneath the gateways fail while callers make requests and the gateways send messages.

use std::time::Duration;

use futures::future::join_all;
use reqwest::Method;
use serde_json::json;
use simulator::Control;

use crate::world::{Load, Mode, Tenant, World, message, reckon, until};

const APP: &str = "wx00000000000000a1";

mod a_database_that_fails_loses_and_repeats_nothing {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn production() {
        super::a_database_that_fails_loses_and_repeats_nothing().await;
    }
}

mod a_redis_that_was_away_costs_no_token {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn production() {
        super::a_redis_that_was_away_costs_no_token().await;
    }
}

const SLOTS: usize = 32;

async fn until_taken(world: &World, wanted: usize) {
    until(&format!("WeChat has taken {wanted} messages"), || {
        world.wechat().sent(APP).len() >= wanted
    })
    .await;
}

/// Sends 400 messages at three replicas with 32 sending slots each. PostgreSQL fails, and stays away until each replica
/// has refused a request.
async fn a_database_that_fails_loses_and_repeats_nothing() {
    let mut world = World::plan(Mode::Production)
        .by_hand()
        .breakable()
        .replicas(3)
        .slots(SLOTS)
        .start()
        .await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let replicas: Vec<_> = (0..3).map(|replica| world.at(replica, &tenant)).collect();
    for replica in &replicas {
        replica.client.token().await;
    }
    world.wechat().set_latency(Duration::from_millis(50));

    let load = Load::new(&world, &tenant, APP, 400).ahead(150);
    let failures = async {
        until_taken(&world, 150).await;
        world.postgres().fail();
        let path = format!("/v1/apps/{APP}/messages");
        let refused = message("nobody");
        let posts = replicas
            .iter()
            .map(|replica| replica.client.post(&path, &refused));
        // `Answer::check_manners` asserts for every answer that a 503 has Retry-After.
        for answer in join_all(posts).await {
            answer.problem(503, "overloaded");
        }
        let ready = world.anonymous().get("/readyz").await;
        assert_eq!(ready.status, 503, "{ready:?}");
        world.postgres().restart();
    };
    let (accepted, ()) = futures::join!(load.run(), failures);
    tenant.wait_count(APP, "queued", 0).await;
    // If a claim was committed and its answer was lost, no worker handles the claimed messages until the lease ends.
    world.stop_all().await;
    world.pass(Duration::from_mins(2));
    world.add_replica(false).await;
    let tenant = world.at(0, &tenant);
    tenant.wait_count(APP, "sending", 0).await;

    let uncertain = reckon(&world, &tenant, APP, &accepted.messages).await;
    eprintln!(
        "{uncertain} uncertain; {} requests refused",
        accepted.refused
    );
    assert_eq!(accepted.unanswered, 0, "every request has an answer");
    assert!(uncertain <= replicas.len() * SLOTS, "{uncertain} uncertain");
}

/// Two apps in stable mode, two in legacy mode.
const APPS: [&str; 4] = [
    "wx0000000000000001",
    "wx0000000000000002",
    "wx0000000000000003",
    "wx0000000000000004",
];

/// How often the gateways asked WeChat for a token of the app.
fn fetches(wechat: &Control, appid: &str) -> u64 {
    let stats = wechat.app_stats(appid);
    stats.total("/cgi-bin/stable_token") + stats.total("/cgi-bin/token")
}

/// Asks each of `replicas` for the token of each app.
async fn hand_out(replicas: &[Tenant]) {
    for replica in replicas {
        for appid in APPS {
            let path = format!("/v1/apps/{appid}/access-token");
            let handed = replica.client.call(Method::POST, &path, None).await;
            handed.expect(200);
        }
    }
}

/// Posts one message of each app at each replica and waits until WeChat has all of them. `before` is the number of
/// earlier waves.
async fn send_wave(world: &World, replicas: &[Tenant], before: usize) {
    let sends = replicas.iter().enumerate().flat_map(|(number, replica)| {
        APPS.map(|appid| async move {
            let openid = format!("o{before}-{number}");
            replica.send(appid, &message(&openid)).await;
        })
    });
    join_all(sends).await;
    let wechat = world.wechat();
    let wanted = (before + 1) * replicas.len();
    let taken = |appid: &&str| wechat.sent(appid).len() == wanted;
    let all_taken = || async { APPS.iter().all(taken).then_some(()) };
    let time = replicas[0].client.time();
    time.eventually("WeChat has the wave", all_taken).await;
    for appid in APPS {
        // The outcomes are recorded too: otherwise a lease would end when the clock advances.
        replicas[0].wait_count(appid, "sending", 0).await;
    }
}

/// Four apps send one message at each of three replicas every second: 2 s with Redis, 30 s without, 10 s with an empty
/// Redis, during which a new replica with empty caches joins. The test advances the clock when all messages of a second
/// are sent.
async fn a_redis_that_was_away_costs_no_token() {
    let mut world = World::plan(Mode::Production)
        .by_hand()
        .replicas(3)
        .start()
        .await;
    let tenant = world.tenant("a").await;
    for (number, appid) in APPS.into_iter().enumerate() {
        let token_mode = if number < 2 { "stable" } else { "legacy" };
        let mode = json!({"token_mode": token_mode});
        tenant.app_with(appid, mode).await;
    }
    let mut replicas: Vec<_> = (0..3).map(|replica| world.at(replica, &tenant)).collect();
    hand_out(&replicas).await;
    let wechat = world.wechat();
    // For a legacy app, the gateway checks the secret with a stable-token fetch before the first legacy fetch.
    let first = |appid: &str| if appid < APPS[2] { 1 } else { 2 };
    for appid in APPS {
        assert_eq!(fetches(&wechat, appid), first(appid), "{appid}");
    }

    for wave in 0..42 {
        match wave {
            2 => world.redis().kill(),
            32 => {
                world.redis().restart();
                world.stop_replica().await;
                world.add_replica(false).await;
                replicas[2] = world.at(2, &tenant);
                hand_out(&replicas).await;
            }
            _ => {}
        }
        send_wave(&world, &replicas, wave).await;
        world.pass(Duration::from_secs(1));
    }

    for appid in APPS {
        let stats = wechat.app_stats(appid);
        let again = fetches(&wechat, appid) - first(appid);
        eprintln!("{appid}: {again} fetches since Redis was away");
        assert!(again <= 1, "{appid}: {stats:?}");
        let sends = &stats.calls["/cgi-bin/message/subscribe/send"];
        assert_eq!(sends.keys().collect::<Vec<_>>(), [&0], "{appid}: {stats:?}");
        assert!(wechat.duplicates(appid).openids.is_empty());
    }
}
