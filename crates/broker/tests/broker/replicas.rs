//! Replicas that share tokens, and replicas that cannot reach each other.

use std::sync::Arc;

use coord::Coord;
use domain::{app::TokenMode, seal::MasterKey};
use futures::future::join_all;
use simulator::{Effect, Fault};
use testkit::Redis;
use wechat::{Client, ClientOptions};
use wxgate_broker::{Broker, BrokerMetrics};

use crate::{SECOND, World, over, until};

#[tokio::test]
async fn replicas_cause_one_fetch() {
    let redis = Redis::start();
    for mode in [TokenMode::Stable, TokenMode::Legacy] {
        let world = World::new(mode).await;
        let in_process = Coord::in_process(world.clock.clone());
        let replicas = [world.replica(&in_process), world.replica(&in_process)];
        join_all((0..100).map(|n| world.token(&replicas[n % 2]))).await;
        assert_eq!(world.fetches(), 1);
    }
    // Over Redis with the system's clock, because a replica that missed a wake-up polls.
    let mut world = World::new(TokenMode::Stable).await;
    world.clock = coord::Clock::system();
    world.wechat.control().clock().release();
    let replicas = [
        world.replica(&over(&redis, &world)),
        world.replica(&over(&redis, &world)),
    ];
    let tokens = join_all((0..100).map(|n| world.token(&replicas[n % 2]))).await;
    assert_eq!(world.fetches(), 1);
    assert!(
        tokens
            .iter()
            .all(|token| token.value.expose() == tokens[0].value.expose())
    );
    assert!(
        tokens
            .iter()
            .all(|token| token.generation == tokens[0].generation)
    );
}

#[tokio::test]
async fn a_restarted_replica_finds_the_token_sealed() {
    let world = World::new(TokenMode::Legacy).await;
    let coord = Coord::in_process(world.clock.clone());
    let token = world.token(&world.replica(&coord)).await;
    let again = world.token(&world.replica(&coord)).await;
    assert_eq!(
        (again.generation, again.expires_at),
        (token.generation, token.expires_at)
    );
    assert_eq!(world.fetches(), 1);

    let cell = coord
        .cells()
        .get(&format!("token:{}", world.appid))
        .await
        .unwrap()
        .unwrap();
    let value = token.value.expose().as_bytes();
    assert!(
        !cell
            .value
            .windows(value.len())
            .any(|window| window == value)
    );
}

#[tokio::test]
async fn who_is_forgotten_is_forgotten_everywhere() {
    let world = World::new(TokenMode::Stable).await;
    let coord = Coord::in_process(world.clock.clone());
    let (one, two) = (world.replica(&coord), world.replica(&coord));
    let (old, _) = (world.token(&one).await, world.token(&two).await);
    world.advance(SECOND);
    one.forget(&world.appid);
    until(async || two.state(&world.appid).is_none().then_some(())).await;
    assert_eq!(one.state(&world.appid), None);
    let new = world.token(&two).await;
    assert!(new.generation > old.generation);
    assert_eq!(world.fetches(), 2);
}

#[tokio::test]
async fn a_dead_holder_of_the_lease_is_waited_for_no_longer_than_the_lease() {
    let world = World::new(TokenMode::Stable).await;
    let coord = Coord::in_process(world.clock.clone());
    let name = format!("token:{}", world.appid);
    assert!(
        coord
            .leases()
            .take(&name, "a replica that dies", SECOND * 15)
            .await
            .unwrap()
    );
    let broker = world.replica(&coord);
    let turn_the_clock = async {
        for _ in 0..60 {
            assert_eq!(world.fetches(), 0);
            world.time.sleepers(1).await;
            world.advance(SECOND / 4);
        }
    };
    let (token, ()) = tokio::join!(broker.token(&world.appid), turn_the_clock);
    token.unwrap();
}

/// In legacy mode, where another fetch would end the token of the first.
#[tokio::test]
async fn a_fetch_keeps_its_lease_for_as_long_as_wechat_may_take() {
    let world = World::new(TokenMode::Legacy).await;
    let coord = Coord::in_process(world.clock.clone());
    // Longer than this test takes.
    let timeout = SECOND * 600;
    let patient = || {
        let options = ClientOptions {
            base_url: world.wechat.base_url(),
            timeout,
            ..ClientOptions::default()
        };
        Broker::new(
            Client::new(options).unwrap(),
            coord.clone(),
            Arc::clone(&world.app) as _,
            MasterKey::from_bytes([7; 32]),
            BrokerMetrics::default(),
        )
    };
    let (slow, other) = (patient(), patient());
    let never = Fault::next(1, Effect::Hang { acted: true });
    world.wechat.control().add_fault(never);
    let fetch = async {
        let _ = slow.token(&world.appid).await;
    };
    let wait = async {
        until(async || (world.fetches() == 1).then_some(())).await;
        let mut token = std::pin::pin!(other.token(&world.appid));
        for second in 0..1205 {
            tokio::select! {
                _ = &mut token => panic!("another fetches beside it after {second} s"),
                () = world.time.sleepers(1) => world.advance(SECOND),
            }
        }
        token.await.unwrap();
        assert_eq!(world.fetches(), 2);
    };
    tokio::select! {
        () = fetch => unreachable!("WeChat does not answer it"),
        () = wait => {}
    }
}

#[tokio::test]
async fn without_redis_every_replica_goes_on_alone() {
    let redis = Redis::start();
    let world = World::new(TokenMode::Stable).await;
    world.refuse_checks();
    let replicas = [
        world.replica(&over(&redis, &world)),
        world.replica(&over(&redis, &world)),
    ];
    redis.kill();
    let tokens = [
        world.token(&replicas[0]).await,
        world.token(&replicas[1]).await,
    ];
    assert_eq!(
        tokens[0].value.expose(),
        tokens[1].value.expose(),
        "stable tokens are the same for all"
    );
    assert_eq!(world.fetches(), 2);
    let repaired = replicas[0]
        .stale(&world.appid, tokens[0].generation)
        .await
        .unwrap();
    assert_ne!(repaired.value.expose(), tokens[0].value.expose());
}

#[tokio::test]
async fn without_redis_a_legacy_token_is_used_to_its_end() {
    let redis = Redis::start();
    let world = World::new(TokenMode::Legacy).await;
    let broker = world.replica(&over(&redis, &world));
    let first = world.token(&broker).await;
    redis.kill();
    world.advance(SECOND * 7000);
    for _ in 0..100 {
        assert_eq!(world.token(&broker).await.generation, first.generation);
        tokio::task::yield_now().await;
    }
    world.advance(SECOND * 200);
    assert!(world.token(&broker).await.generation > first.generation);
    assert_eq!(world.fetches(), 2, "none ahead of the end");
}

#[tokio::test]
async fn tokens_are_put_back_into_a_redis_that_somebody_emptied() {
    let redis = Redis::start();
    let world = World::new(TokenMode::Legacy).await;
    let coord = over(&redis, &world);
    let broker = world.replica(&coord);
    let token = world.token(&broker).await;
    let key = format!("token:{}", world.appid);
    // Both cases are noticed: emptied before the listener has connected, and after.
    redis.empty();
    let there = until(async || coord.cells().get(&key).await.ok().flatten()).await;
    assert_eq!(there.generation, token.generation);
    let newcomer = world.replica(&over(&redis, &world));
    assert_eq!(world.token(&newcomer).await.generation, token.generation);
    assert_eq!(world.fetches(), 1);
}

#[tokio::test]
async fn tokens_are_put_back_into_an_empty_redis() {
    let redis = Redis::start();
    let world = World::new(TokenMode::Legacy).await;
    let coord = over(&redis, &world);
    let broker = world.replica(&coord);
    let token = world.token(&broker).await;
    redis.restart();
    let key = format!("token:{}", world.appid);
    let there = until(async || coord.cells().get(&key).await.ok().flatten()).await;
    assert_eq!(there.generation, token.generation);
    let newcomer = world.replica(&over(&redis, &world));
    let counted = async || newcomer.survey(&world.appid).await.budgets.legacy_fetches;
    until(async || (counted().await.used == 1).then_some(())).await;
    assert_eq!(world.token(&newcomer).await.generation, token.generation);
    assert_eq!(world.fetches(), 1);
}
