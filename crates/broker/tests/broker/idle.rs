//! Many apps: what operators see of the apps, and what idle apps cost.

use coord::Coord;
use domain::app::{AppId, TokenMode};
use futures::future::join_all;
use prometheus_client::{encoding::text::encode, registry::Registry};
use simulator::{AccountState, Effect, Fault};
use wxgate_broker::{Broker, BrokerMetrics};

use crate::{SECOND, STABLE, World};

const HOUR: std::time::Duration = std::time::Duration::from_hours(1);

fn appid(n: usize) -> AppId {
    AppId::parse(format!("wx{n:016x}")).unwrap()
}

/// All apps have the world's secret, because the simulator accepts any secret for an account that is unknown to it.
async fn warm(broker: &Broker, apps: usize) {
    for token in join_all((0..apps).map(|n| async move { broker.token(&appid(n)).await })).await {
        token.unwrap();
    }
}

fn calls(world: &World) -> u64 {
    world.wechat.control().stats().total(STABLE)
}

#[tokio::test]
async fn idle_apps_cost_nothing_and_are_forgotten() {
    let world = World::new(TokenMode::Stable).await;
    let broker = world.alone();
    warm(&broker, 200).await;
    assert_eq!(calls(&world), 200);
    // One app remains in use; the other apps are idle.
    for _ in 0..40 {
        world.advance(HOUR / 10);
        broker.token(&appid(7)).await.unwrap();
        crate::until(async || (!broker.state(&appid(7))?.is_fetching).then_some(())).await;
    }
    let kept: Vec<_> = (0..200)
        .filter(|n| broker.state(&appid(*n)).is_some())
        .collect();
    assert_eq!(kept, [7]);
    assert_eq!(calls(&world), 202, "two for the one in use");
    assert_eq!(
        broker.survey(&appid(8)).await.budgets.stable_calls.used,
        1,
        "what it has fetched today is known all the same"
    );
}

#[tokio::test]
async fn a_pause_is_not_forgotten_before_it_ends() {
    let world = World::new(TokenMode::Stable).await;
    let broker = world.alone();
    let blocked = appid(1);
    // 89506: the account's administrator refused this address twice, for a day.
    let refused = Effect::Errcode {
        errcode: 89_506,
        errmsg: None,
    };
    let fault = Fault::always(refused).for_app(blocked.as_str());
    world.wechat.control().add_fault(fault);
    let error = broker.token(&blocked).await.unwrap_err();
    for _ in 0..20 {
        world.advance(HOUR);
        broker.token(&appid(2)).await.unwrap();
    }
    assert!(error.retry_at().unwrap() > world.clock.now());
    assert_eq!(broker.token(&blocked).await.unwrap_err(), error);
}

#[tokio::test]
async fn all_apps_together_are_a_handful_of_series() {
    let world = World::new(TokenMode::Stable).await;
    world.refuse_checks();
    let mut registry = Registry::default();
    let metrics = BrokerMetrics::register(&mut registry);
    let broker = world.replica_with(&Coord::in_process(world.clock.clone()), metrics);
    warm(&broker, 50).await;
    world.advance(SECOND * 600);
    broker.token(&appid(1)).await.unwrap();
    world
        .wechat
        .control()
        .change_app(appid(60).as_str(), |app| {
            app.state = AccountState::IpNotAllowed;
        });
    broker.token(&appid(60)).await.unwrap_err();
    broker.token(&appid(61)).await.unwrap();
    let mut token = broker.token(&appid(2)).await.unwrap();
    for _ in 0..16 {
        token = broker.stale(&appid(2), token.generation).await.unwrap();
        world.advance(SECOND * 30);
    }
    broker.token(&appid(61)).await.unwrap();
    broker.token(&appid(2)).await.unwrap();

    let mut text = String::new();
    encode(&mut text, &registry).unwrap();

    for line in [
        "wxgate_token_apps 52",
        "wxgate_token_failing_apps{reason=\"ip_not_allowed\"} 1",
        "wxgate_token_failing_apps{reason=\"wrong_secret\"} 0",
        "wxgate_token_low_budget_apps{budget=\"forced_refreshes\"} 1",
        "wxgate_token_low_budget_apps{budget=\"legacy_fetches\"} 0",
        "wxgate_token_age_seconds{bound=\"min\"} 30.0",
        "wxgate_token_age_seconds{bound=\"max\"} 480.0",
        "wxgate_token_remaining_seconds{bound=\"min\"} 6720.0",
        "wxgate_token_remaining_seconds{bound=\"max\"} 7170.0",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(!text.contains(appid(1).as_str()), "{text}");
}
