//! Token checks: tokens that WeChat refuses once and accepts in the check.

use domain::app::TokenMode;
use futures::future::join_all;
use simulator::{Effect, Fault};

use crate::{CHECK, SECOND, World};

fn refusal() -> Effect {
    Effect::Errcode {
        errcode: 40001,
        errmsg: None,
    }
}

#[tokio::test]
async fn a_thousand_stray_refusals_cost_one_look_and_no_fetch() {
    for mode in [TokenMode::Stable, TokenMode::Legacy] {
        let world = World::new(mode).await;
        let broker = world.alone();
        let token = world.token(&broker).await;

        let again = join_all((0..1000).map(|_| broker.stale(&world.appid, token.generation))).await;

        let is_same = |again: &Result<wxgate_broker::Token, _>| {
            again.as_ref().unwrap().generation == token.generation
        };
        assert!(again.iter().all(is_same), "{mode:?}");
        assert_eq!((world.checks(), world.fetches(), world.forced()), (1, 1, 0));
        let state = broker.state(&world.appid).unwrap();
        assert_eq!((state.forced_today, state.foreign_refresh), (0, None));
        // The result holds for five seconds.
        world.advance(SECOND * 4);
        broker.stale(&world.appid, token.generation).await.unwrap();
        assert_eq!(world.checks(), 1);
        world.advance(SECOND);
        broker.stale(&world.appid, token.generation).await.unwrap();
        assert_eq!((world.checks(), world.fetches()), (2, 1));
    }
}

#[tokio::test]
async fn a_dead_token_is_looked_at_once_by_all_who_meet_it() {
    let world = World::new(TokenMode::Legacy).await;
    let broker = world.alone();
    let dead = world.token(&broker).await;
    world.wechat.control().kill_tokens(world.appid.as_str());
    let fresh = join_all((0..1000).map(|_| broker.stale(&world.appid, dead.generation))).await;
    assert!(
        fresh
            .iter()
            .all(|token| token.as_ref().unwrap().generation > dead.generation)
    );
    // Four refusals prove the token dead.
    assert_eq!((world.checks(), world.fetches()), (4, 2));
    assert!(
        !broker
            .is_dead(&world.appid, fresh[0].as_ref().unwrap())
            .await
    );
}

#[tokio::test]
async fn where_a_tenth_of_all_calls_is_refused_the_token_stays() {
    let world = World::new(TokenMode::Stable).await;
    let broker = world.alone();
    let token = world.token(&broker).await;
    let control = world.wechat.control();
    control.add_fault(Fault::sometimes(0.1, refusal()).for_path(CHECK));
    for _ in 0..200 {
        let again = broker.stale(&world.appid, token.generation).await.unwrap();
        assert_eq!(again.generation, token.generation);
        world.advance(SECOND * 5);
    }
    assert!(control.app_stats(world.appid.as_str()).count(CHECK, 40001) > 10);
    assert_eq!(world.fetches(), 1);
}

#[tokio::test]
async fn a_look_without_a_result_proves_nothing_until_the_third() {
    let html = "<html>errcode 40001: access_token is invalid</html>".to_owned();
    for effect in [
        Effect::BreakBefore,
        Effect::Status {
            status: 200,
            body: Some(html),
        },
        Effect::Errcode {
            errcode: -1,
            errmsg: None,
        },
        Effect::Errcode {
            errcode: 40066,
            errmsg: None,
        },
    ] {
        let world = World::new(TokenMode::Legacy).await;
        let broker = world.alone();
        let token = world.token(&broker).await;
        let control = world.wechat.control();
        control.add_fault(Fault::always(effect.clone()).for_path(CHECK));
        for _ in 0..2 {
            let again = broker.stale(&world.appid, token.generation).await.unwrap();
            assert_eq!(again.generation, token.generation, "{effect:?}");
            world.advance(SECOND * 5);
        }
        let fresh = broker.stale(&world.appid, token.generation).await.unwrap();
        assert!(fresh.generation > token.generation, "{effect:?}");
    }
}

#[tokio::test]
async fn who_comes_with_an_old_token_gets_the_present_one_without_a_look() {
    let world = World::new(TokenMode::Legacy).await;
    let broker = world.alone();
    let old = world.token(&broker).await;
    let new = broker.refresh(&world.appid).await.unwrap();
    let again = broker.stale(&world.appid, old.generation).await.unwrap();
    assert_eq!((again.generation, world.checks()), (new.generation, 0));
}

#[tokio::test]
async fn a_token_of_another_replica_is_looked_at_before_it_is_replaced() {
    let world = World::new(TokenMode::Stable).await;
    let coord = coord::Coord::in_process(world.clock.clone());
    let (one, two) = (world.replica(&coord), world.replica(&coord));
    let first = world.token(&two).await;
    let second = one.refresh(&world.appid).await.unwrap();
    assert_eq!(world.token(&two).await.generation, first.generation);
    // The token is alive: it is used from now on, and nothing is fetched.
    let again = two.stale(&world.appid, second.generation).await.unwrap();
    assert_eq!(again.generation, second.generation);
    assert_eq!(world.forced(), 1);
    // The token is dead: `stale` does not return it.
    world.advance(SECOND * 30);
    world.refuse_checks();
    let third = two.stale(&world.appid, second.generation).await.unwrap();
    assert!(third.generation > second.generation);
}
