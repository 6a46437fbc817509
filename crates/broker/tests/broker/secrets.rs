//! A new AppSecret, while fetches with the old one are in progress.

use std::cell::Cell;

use coord::Coord;
use domain::{app::TokenMode, secret::AppSecret};
use futures::future::join;
use simulator::{Effect, Fault};
use testkit::Redis;
use wxgate_broker::Broker;

use crate::{LEGACY, SECOND, SECRET, World, over, until};

/// Delays WeChat's next answer long enough for the concurrent steps of the test.
fn slow_answer(world: &World) {
    let fault = Fault::next(1, Effect::Latency { ms: 300 });
    world.wechat.control().add_fault(fault);
}

/// Waits until WeChat has received `times` fetches.
async fn asked(world: &World, broker: &Broker, times: u32) {
    until(async || {
        let budget = broker.survey(&world.appid).await.budgets.legacy_fetches;
        (budget.used >= times).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_refresh_with_the_old_secret_does_not_take_the_place_of_the_new_ones_token() {
    let redis = Redis::start();
    for shared in [false, true] {
        let world = World::new(TokenMode::Legacy).await;
        let in_process = Coord::in_process(world.clock.clone());
        let [one, two] = [0; 2].map(|_| {
            let coord = if shared {
                over(&redis, &world)
            } else {
                in_process.clone()
            };
            world.replica(&coord)
        });
        world.token(&one).await;
        world.token(&two).await;
        let proof = one
            .prove(&world.appid, &AppSecret::new(SECRET), TokenMode::Legacy)
            .await
            .unwrap();
        world.advance(SECOND);

        // The new secret is proven and about to be stored; another replica fetches with the old one.
        slow_answer(&world);
        let adopt = async {
            asked(&world, &one, 3).await;
            one.adopt(&world.appid, proof).await;
            world.token(&one).await
        };
        let (_, adopted) = join(two.refresh(&world.appid), adopt).await;
        let stats = world.wechat.control().app_stats(world.appid.as_str());
        assert_eq!(stats.count(LEGACY, 0), 3, "WeChat gave it a token");

        for replica in [&one, &two] {
            let live = until(async || {
                let token = world.token(replica).await;
                (token.generation == adopted.generation).then_some(token)
            })
            .await;
            assert_eq!(live.value.expose(), adopted.value.expose());
        }
        let newcomer = world.replica(&if shared {
            over(&redis, &world)
        } else {
            in_process.clone()
        });
        assert_eq!(
            world.token(&newcomer).await.generation,
            adopted.generation,
            "over Redis: {shared}"
        );
    }
}

#[tokio::test]
async fn who_waits_for_a_fetch_with_the_old_secret_gets_the_new_ones_token() {
    let world = World::new(TokenMode::Legacy).await;
    let broker = world.alone();
    let proof = broker
        .prove(&world.appid, &AppSecret::new(SECRET), TokenMode::Legacy)
        .await
        .unwrap();
    world.register("the old one", TokenMode::Legacy);
    slow_answer(&world);
    let adopt = async {
        asked(&world, &broker, 2).await;
        world.register(SECRET, TokenMode::Legacy);
        broker.adopt(&world.appid, proof).await;
        world.token(&broker).await
    };

    let (waiting, adopted) = join(broker.token(&world.appid), adopt).await;

    assert_eq!(waiting.unwrap().generation, adopted.generation);
    let refused = world.wechat.control().app_stats(world.appid.as_str());
    assert_eq!(refused.count(LEGACY, 40_125), 1, "WeChat refused the old");
    let state = broker.state(&world.appid).unwrap();
    assert_eq!(state.failure, None, "and nobody remembers");
}

#[tokio::test]
async fn a_secret_is_proven_after_the_fetch_that_is_under_way() {
    let world = World::new(TokenMode::Legacy).await;
    let coord = Coord::in_process(world.clock.clone());
    let (one, two) = (world.replica(&coord), world.replica(&coord));
    world.token(&one).await;
    world.advance(SECOND);
    slow_answer(&world);
    let is_over = Cell::new(false);
    let refresh = async {
        two.refresh(&world.appid).await.unwrap();
        is_over.set(true);
    };
    let secret = AppSecret::new(SECRET);
    let prove = async {
        asked(&world, &one, 2).await;
        let proof = one.prove(&world.appid, &secret, TokenMode::Legacy).await;
        (proof, is_over.get())
    };

    let ((), (proof, was_over)) = join(refresh, prove).await;

    assert!(was_over, "two at once leave it to chance whose token lives");
    one.adopt(&world.appid, proof.unwrap()).await;
    world.advance(SECOND * 300);
    let live = world.token(&one).await;
    assert!(crate::accepts(&world.client(), &live).await);
}
