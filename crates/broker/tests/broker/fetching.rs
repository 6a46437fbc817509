//! Single flight, and refreshes ahead of the end.

use domain::{app::TokenMode, secret::AppSecret};
use futures::{FutureExt, future::join_all};
use prometheus_client::{encoding::text::encode, registry::Registry};
use simulator::{Effect, Fault};
use wxgate_broker::{BrokerError, BrokerMetrics};

use crate::{SECOND, SECRET, World, until};

#[tokio::test]
async fn a_hundred_cold_callers_cause_one_fetch() {
    for mode in [TokenMode::Stable, TokenMode::Legacy] {
        let world = World::new(mode).await;
        let broker = world.alone();
        let tokens = join_all((0..100).map(|_| world.token(&broker))).await;
        assert_eq!(world.fetches(), 1);
        assert!(
            tokens
                .iter()
                .all(|token| token.generation == tokens[0].generation)
        );
        assert_eq!(tokens[0].expires_at, world.clock.now() + SECOND * 7200);
    }
}

#[tokio::test]
async fn a_token_in_memory_is_there_at_once_until_it_ends() {
    let world = World::new(TokenMode::Stable).await;
    let broker = world.alone();
    let first = world.token(&broker).await;
    world.advance(SECOND * 6800);
    let hit = broker
        .token(&world.appid)
        .now_or_never()
        .expect("no waiting")
        .unwrap();
    assert_eq!((hit.generation, world.fetches()), (first.generation, 1));

    world.advance(SECOND * 400);

    let second = world.token(&broker).await;
    assert!(second.generation > first.generation);
    assert_ne!(second.value.expose(), first.value.expose());
    assert_eq!(world.fetches(), 2);
}

#[tokio::test]
async fn the_refresh_ahead_is_one_and_nobody_waits_for_it() {
    for (mode, due) in [
        (TokenMode::Stable, SECOND * 6960),
        (TokenMode::Legacy, SECOND * 6600),
    ] {
        let world = World::new(mode).await;
        let broker = world.alone();
        let first = world.token(&broker).await;
        world.advance(due);

        for _ in 0..100 {
            let token = broker
                .token(&world.appid)
                .now_or_never()
                .expect("no waiting")
                .unwrap();
            assert_eq!(token.generation, first.generation);
        }
        let second = world.later_than(&broker, first.generation).await;

        assert_ne!(second.value.expose(), first.value.expose());
        assert_eq!(world.fetches(), 2);
    }
}

#[tokio::test]
async fn a_refresh_ahead_that_fails_hurts_nobody_while_the_token_lives() {
    let world = World::new(TokenMode::Stable).await;
    let broker = world.alone();
    let first = world.token(&broker).await;
    world
        .wechat
        .control()
        .add_fault(Fault::always(Effect::Errcode {
            errcode: -1,
            errmsg: None,
        }));
    world.advance(SECOND * 6960);
    world.token(&broker).await;
    until(async || broker.state(&world.appid).unwrap().failure).await;

    assert_eq!(world.token(&broker).await.generation, first.generation);
    assert_eq!(world.fetches(), 2, "the next try waits for its time");

    world.wechat.control().clear_faults();
    world.advance(SECOND * 2);
    world.token(&broker).await;
    world.later_than(&broker, first.generation).await;
    assert_eq!(world.fetches(), 3);
}

#[tokio::test]
async fn a_fetch_goes_on_when_its_caller_leaves() {
    let world = World::new(TokenMode::Legacy).await;
    let broker = world.alone();
    assert!(broker.token(&world.appid).now_or_never().is_none());
    until(async || broker.state(&world.appid).unwrap().token).await;
    assert_eq!(world.fetches(), 1);
}

#[tokio::test]
async fn a_proven_secret_leaves_its_token_for_the_first_send() {
    let world = World::new(TokenMode::Stable).await;
    let broker = world.alone();
    let wrong = broker
        .prove(&world.appid, &AppSecret::new("wrong"), TokenMode::Stable)
        .await;
    assert!(
        matches!(wrong, Err(BrokerError::Blocked { .. })),
        "{wrong:?}"
    );
    assert_eq!(
        broker.state(&world.appid),
        None,
        "a wrong guess says nothing about the app"
    );

    let secret = AppSecret::new(SECRET);
    let proof = broker.prove(&world.appid, &secret, TokenMode::Stable).await;
    broker.adopt(&world.appid, proof.unwrap()).await;
    world.token(&broker).await;

    assert_eq!(world.fetches(), 2);
    assert_eq!(broker.state(&world.appid).unwrap().fetches_today, 2);
}

#[tokio::test]
async fn shutdown_waits_for_fetches() {
    let world = World::new(TokenMode::Stable).await;
    let broker = world.alone();
    assert!(broker.token(&world.appid).now_or_never().is_none());
    broker.shutdown().await;
    assert_eq!(world.fetches(), 1);
    broker
        .token(&world.appid)
        .now_or_never()
        .expect("still in memory")
        .unwrap();
}

#[tokio::test]
async fn fetches_are_counted() {
    let world = World::new(TokenMode::Stable).await;
    world.refuse_checks();
    let mut registry = Registry::default();
    let metrics = BrokerMetrics::register(&mut registry);
    let broker = world.replica_with(&coord::Coord::in_process(world.clock.clone()), metrics);
    let token = world.token(&broker).await;
    broker.stale(&world.appid, token.generation).await.unwrap();
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    assert!(
        text.contains(r#"wxgate_token_fetches_total{mode="stable",outcome="ok"} 2"#),
        "{text}"
    );
    assert!(
        text.contains(r#"wxgate_token_fetches_total{mode="forced",outcome="ok"} 1"#),
        "{text}"
    );
    assert!(
        text.contains(r#"wxgate_token_checks_total{result="dead"} 1"#),
        "{text}"
    );
    assert!(text.contains("wxgate_token_waiting 0"), "{text}");
}
