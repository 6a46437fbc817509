//! Repairs of tokens that WeChat refuses.

use domain::app::TokenMode;
use futures::{FutureExt, future::join_all};
use wxgate_broker::BrokerError;

use crate::{SECOND, STABLE, World};

#[tokio::test]
async fn a_thousand_refused_senders_cause_one_refresh() {
    for mode in [TokenMode::Stable, TokenMode::Legacy] {
        let world = World::new(mode).await;
        let broker = world.alone();
        let dead = world.token(&broker).await;
        world.wechat.control().kill_tokens(world.appid.as_str());

        let fresh = join_all((0..1000).map(|_| broker.stale(&world.appid, dead.generation))).await;

        assert_eq!(world.fetches(), 2, "{mode:?}");
        let first = fresh[0].as_ref().unwrap();
        assert!(first.generation > dead.generation);
        assert_ne!(first.value.expose(), dead.value.expose());
        assert!(
            fresh
                .iter()
                .all(|token| token.as_ref().unwrap().generation == first.generation)
        );
        let late = broker
            .stale(&world.appid, dead.generation)
            .now_or_never()
            .expect("no waiting")
            .unwrap();
        assert_eq!((late.generation, world.fetches()), (first.generation, 2));
    }
}

#[tokio::test]
async fn a_stable_token_that_wechat_insists_on_is_forced_out_within_the_budget() {
    let world = World::new(TokenMode::Stable).await;
    world.refuse_checks();
    let broker = world.alone();
    let mut token = world.token(&broker).await;
    for forced in 1..=20 {
        let next = broker.stale(&world.appid, token.generation).await.unwrap();
        assert_ne!(next.value.expose(), token.value.expose());
        assert_eq!(broker.state(&world.appid).unwrap().forced_today, forced);
        token = next;

        let before = world.fetches();
        let too_early = broker
            .stale(&world.appid, token.generation)
            .await
            .unwrap_err();
        assert_eq!(
            world.fetches(),
            before + 1,
            "asked whether there is a new one, and forced none"
        );
        for _ in 0..10 {
            assert_eq!(broker.token(&world.appid).await.unwrap_err(), too_early);
            assert_eq!(
                broker
                    .stale(&world.appid, token.generation)
                    .await
                    .unwrap_err(),
                too_early
            );
        }
        assert_eq!(world.fetches(), before + 1, "remembered");
        if forced < 20 {
            assert_eq!(too_early.retry_at(), Some(world.clock.now() + SECOND * 30));
        }
        world.advance(SECOND * 30);
    }
    let spent = broker
        .stale(&world.appid, token.generation)
        .await
        .unwrap_err();
    assert_eq!(
        spent.retry_at(),
        Some(world.clock.now() + SECOND * 300),
        "{spent:?}"
    );
    world.wechat.control().kill_tokens(world.appid.as_str());
    world.advance(SECOND * 300);
    let renewed = world.token(&broker).await;
    assert!(
        renewed.generation > token.generation,
        "what WeChat renews by itself is used"
    );
    assert_eq!(broker.state(&world.appid).unwrap().forced_today, 20);
}

#[tokio::test]
async fn a_legacy_token_that_dies_young_twice_is_left_alone_for_a_while() {
    let world = World::new(TokenMode::Legacy).await;
    world.refuse_checks();
    let broker = world.alone();
    let first = world.token(&broker).await;
    let second = broker.stale(&world.appid, first.generation).await.unwrap();
    let error = broker
        .stale(&world.appid, second.generation)
        .await
        .unwrap_err();
    assert!(matches!(error, BrokerError::Later { .. }), "{error:?}");
    assert_eq!(world.fetches(), 2);
    world.advance(SECOND * 30);
    assert!(world.token(&broker).await.generation > second.generation);
    assert_eq!(world.fetches(), 3);
}

#[tokio::test]
async fn a_stale_token_of_another_replica_is_not_fetched_again() {
    let world = World::new(TokenMode::Stable).await;
    let coord = coord::Coord::in_process(world.clock.clone());
    let (one, two) = (world.replica(&coord), world.replica(&coord));
    let dead = world.token(&one).await;
    assert_eq!(world.token(&two).await.generation, dead.generation);
    world.wechat.control().kill_tokens(world.appid.as_str());

    let storm = (0..500).flat_map(|_| {
        [
            one.stale(&world.appid, dead.generation),
            two.stale(&world.appid, dead.generation),
        ]
    });
    let fresh: Vec<_> = join_all(storm)
        .await
        .into_iter()
        .map(|token| token.unwrap().generation)
        .collect();

    assert_eq!(
        world
            .wechat
            .control()
            .app_stats(world.appid.as_str())
            .total(STABLE),
        2
    );
    assert!(
        fresh
            .iter()
            .all(|generation| *generation == fresh[0] && *generation > dead.generation)
    );
}
