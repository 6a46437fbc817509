//! Refreshes on request.

use coord::Coord;
use domain::{app::TokenMode, verdict::BlockReason};
use futures::{FutureExt, future::join_all};
use simulator::{AccountState, Effect, Fault};
use wxgate_broker::BrokerError;

use crate::{SECOND, World, accepts, until};

#[tokio::test]
async fn a_person_gets_another_token_and_senders_wait_for_nothing() {
    for (mode, calls) in [(TokenMode::Stable, 2), (TokenMode::Legacy, 1)] {
        let world = World::new(mode).await;
        let broker = world.alone();
        let first = world.token(&broker).await;

        let asked = broker.refresh(&world.appid);
        tokio::pin!(asked);
        assert!(asked.as_mut().now_or_never().is_none());
        let meanwhile = broker.token(&world.appid).now_or_never();
        let second = asked.await.unwrap();

        assert_eq!(
            meanwhile.expect("no waiting").unwrap().generation,
            first.generation
        );
        assert!(second.generation > first.generation);
        assert_ne!(second.value.expose(), first.value.expose());
        assert!(accepts(&world.client(), &second).await);
        assert_eq!(world.token(&broker).await.generation, second.generation);
        assert_eq!(world.fetches(), 1 + calls, "{mode:?}");
        assert_eq!(broker.state(&world.appid).unwrap().foreign_refresh, None);
    }
}

#[tokio::test]
async fn asking_is_spaced_and_a_refusal_changes_nothing() {
    for mode in [TokenMode::Stable, TokenMode::Legacy] {
        let world = World::new(mode).await;
        let broker = world.alone();
        world.token(&broker).await;
        let token = broker.refresh(&world.appid).await.unwrap();
        let fetches = world.fetches();

        for _ in 0..100 {
            let error = broker.refresh(&world.appid).await.unwrap_err();
            let retry_at = world.clock.now() + SECOND * 30;
            assert_eq!(error, BrokerError::TooSoon { retry_at });
            assert!(error.is_own_limit());
        }

        assert_eq!(world.fetches(), fetches);
        assert_eq!(world.token(&broker).await.generation, token.generation);
        assert_eq!(broker.state(&world.appid).unwrap().failure, None);
        world.advance(SECOND * 30);
        assert!(broker.refresh(&world.appid).await.unwrap().generation > token.generation);
    }
}

#[tokio::test]
async fn asking_forces_twenty_a_day() {
    let world = World::new(TokenMode::Stable).await;
    let broker = world.alone();
    world.token(&broker).await;
    for _ in 0..20 {
        broker.refresh(&world.appid).await.unwrap();
        world.advance(SECOND * 30);
    }
    let fetches = world.fetches();
    let error = broker.refresh(&world.appid).await.unwrap_err();
    let retry_at = "2026-03-01T16:00:00Z".parse().unwrap();
    assert_eq!(
        error,
        BrokerError::TooSoon { retry_at },
        "midnight in Shanghai"
    );
    assert_eq!((world.forced(), world.fetches()), (20, fetches));
    assert!(
        broker
            .state(&world.appid)
            .unwrap()
            .budgets
            .forced_refreshes
            .is_low()
    );
    world.token(&broker).await;
}

#[tokio::test]
async fn many_who_ask_on_many_replicas_get_one_refresh() {
    let world = World::new(TokenMode::Legacy).await;
    let coord = Coord::in_process(world.clock.clone());
    let replicas = [
        world.replica(&coord),
        world.replica(&coord),
        world.replica(&coord),
    ];
    let first = world.token(&replicas[0]).await;
    let asked = join_all((0..30).map(|n| replicas[n % 3].refresh(&world.appid))).await;
    let second = asked[0].as_ref().unwrap().generation;
    assert!(second > first.generation);
    assert!(
        asked
            .iter()
            .all(|token| token.as_ref().unwrap().generation == second)
    );
    assert_eq!(world.fetches(), 2);
}

#[tokio::test]
async fn a_cold_app_is_simply_fetched() {
    let world = World::new(TokenMode::Stable).await;
    let broker = world.alone();
    broker.refresh(&world.appid).await.unwrap();
    assert_eq!((world.fetches(), world.forced()), (1, 0));
}

#[tokio::test]
async fn who_has_repaired_the_app_need_not_wait_for_its_pause() {
    let world = World::new(TokenMode::Stable).await;
    let broker = world.alone();
    let set = |state| {
        let control = world.wechat.control();
        control.change_app(world.appid.as_str(), |app| app.state = state);
    };
    set(AccountState::IpNotAllowed);
    let blocked = broker.token(&world.appid).await.unwrap_err();
    let again = broker.refresh(&world.appid).await.unwrap_err();
    assert!(
        matches!(
            again,
            BrokerError::Blocked {
                reason: BlockReason::IpNotAllowed,
                ..
            }
        ),
        "{again:?}"
    );
    assert_eq!(world.fetches(), 2);
    // A second request within 30 s gets WeChat's last answer.
    world.advance(SECOND * 29);
    assert_eq!(broker.refresh(&world.appid).await.unwrap_err(), again);
    assert_eq!(world.fetches(), 2);

    set(AccountState::default());
    world.advance(SECOND);
    assert_eq!(broker.token(&world.appid).await.unwrap_err(), blocked);
    broker.refresh(&world.appid).await.unwrap();
    world.token(&broker).await;
    assert_eq!(world.fetches(), 3);
}

#[tokio::test]
async fn a_refresh_that_wechat_refuses_leaves_the_token_in_use() {
    let world = World::new(TokenMode::Legacy).await;
    let broker = world.alone();
    let token = world.token(&broker).await;
    let busy = Effect::Errcode {
        errcode: -1,
        errmsg: None,
    };
    world.wechat.control().add_fault(Fault::next(1, busy));
    broker.refresh(&world.appid).await.unwrap_err();
    let still = broker
        .token(&world.appid)
        .now_or_never()
        .expect("no waiting");
    assert_eq!(still.unwrap().generation, token.generation);
    until(async || (!broker.state(&world.appid).unwrap().is_fetching).then_some(())).await;
    assert_eq!(broker.state(&world.appid).unwrap().failure, None);
}
