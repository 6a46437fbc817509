//! Another system with the same AppSecret.

use std::sync::Arc;

use coord::Coord;
use domain::app::TokenMode;
use futures::future::join_all;
use prometheus_client::{encoding::text::encode, registry::Registry};
use testkit::Redis;
use wxgate_broker::{BrokerEvent, BrokerMetrics, ForeignRefresh};

use crate::{Diary, SECOND, World, accepts, over, until};

#[tokio::test]
async fn a_foreign_fetch_among_two_thousand_users_costs_one_refresh() {
    let world = World::new(TokenMode::Legacy).await;
    let coord = Coord::in_process(world.clock.clone());
    let diary = Arc::new(Diary::default());
    let mut registry = Registry::default();
    let metrics = BrokerMetrics::register(&mut registry);
    let replicas = [0; 3].map(|_| {
        world
            .replica_with(&coord, metrics.clone())
            .with_observer(Arc::clone(&diary) as _)
    });
    let client = world.client();
    let before = world.token(&replicas[0]).await;

    // A sender uses the token, and sends again with another token when WeChat refuses the first.
    let user = async |n: usize| {
        let broker = &replicas[n % 3];
        let token = world.token(broker).await;
        if n == 500 {
            world.wechat.control().foreign_fetch(world.appid.as_str());
            world.advance(SECOND * 300);
        }
        if accepts(&client, &token).await {
            return 0;
        }
        let fresh = broker.stale(&world.appid, token.generation).await.unwrap();
        assert!(accepts(&client, &fresh).await, "one repeat is enough");
        1
    };
    let mut repeats = 0;
    for batch in 0..10 {
        let users = (batch * 200..(batch + 1) * 200).map(user);
        repeats += join_all(users).await.iter().sum::<u32>();
    }

    assert_eq!(world.fetches(), 2);
    assert!((1..=200).contains(&repeats), "{repeats}");
    let after = world.token(&replicas[0]).await;
    assert!(after.generation > before.generation);
    let seen = replicas[0].survey(&world.appid).await.foreign_refresh;
    let expected = ForeignRefresh {
        count_today: 1,
        last_at: world.clock.now(),
    };
    assert_eq!(seen, Some(expected));
    join_all(replicas.iter().map(wxgate_broker::Broker::shutdown)).await;
    assert_eq!(diary.events(), [BrokerEvent::ForeignRefresh(expected)]);
    assert!(shown(&registry).contains("wxgate_token_foreign_refreshes_total 1"));
}

fn shown(registry: &Registry) -> String {
    let mut text = String::new();
    encode(&mut text, registry).unwrap();
    text
}

#[tokio::test]
async fn a_stable_token_that_somebody_forced_out_is_foreign() {
    let world = World::new(TokenMode::Stable).await;
    let broker = world.alone();
    let token = world.token(&broker).await;
    world.wechat.control().kill_tokens(world.appid.as_str());
    broker.stale(&world.appid, token.generation).await.unwrap();
    let state = broker.state(&world.appid).unwrap();
    assert_eq!(state.foreign_refresh.unwrap().count_today, 1);
}

#[tokio::test]
async fn a_stable_token_that_wechat_still_gives_out_is_not_foreign() {
    let world = World::new(TokenMode::Stable).await;
    world.refuse_checks();
    let broker = world.alone();
    let token = world.token(&broker).await;
    broker.stale(&world.appid, token.generation).await.unwrap();
    assert_eq!(world.forced(), 1);
    assert_eq!(broker.state(&world.appid).unwrap().foreign_refresh, None);
}

#[tokio::test]
async fn a_token_near_its_end_has_only_ended() {
    for mode in [TokenMode::Stable, TokenMode::Legacy] {
        let world = World::new(mode).await;
        let broker = world.alone();
        let token = world.token(&broker).await;
        world.wechat.control().kill_tokens(world.appid.as_str());
        world.advance(SECOND * 6_400);
        broker.stale(&world.appid, token.generation).await.unwrap();
        assert_eq!(broker.state(&world.appid).unwrap().foreign_refresh, None);
    }
}

#[tokio::test]
async fn what_a_replica_did_is_not_foreign() {
    let world = World::new(TokenMode::Legacy).await;
    let coord = Coord::in_process(world.clock.clone());
    let (one, two) = (world.replica(&coord), world.replica(&coord));
    let old = world.token(&two).await;
    world.advance(SECOND);
    // The first replica replaces the token; the new token is then lost with the replica's memory and the cell.
    let new = one.refresh(&world.appid).await.unwrap();
    let key = format!("token:{}", world.appid);
    assert!(coord.cells().drop_if(&key, new.generation).await.unwrap());
    drop(one);
    world.advance(SECOND * 300);
    assert!(!accepts(&world.client(), &old).await);

    two.stale(&world.appid, old.generation).await.unwrap();

    assert_eq!(world.fetches(), 3);
    assert_eq!(two.survey(&world.appid).await.foreign_refresh, None);
}

#[tokio::test]
async fn replicas_that_cannot_ask_each_other_blame_nobody() {
    let redis = Redis::start();
    let world = World::new(TokenMode::Legacy).await;
    let replicas = [0; 2].map(|_| world.replica(&over(&redis, &world)));
    redis.kill();
    let first = world.token(&replicas[0]).await;
    world.advance(SECOND);
    let fetched_at = world.clock.now().timestamp_millis().to_string();
    world.token(&replicas[1]).await;
    world.advance(SECOND * 300);
    assert!(!accepts(&world.client(), &first).await);
    let repaired = replicas[0].stale(&world.appid, first.generation).await;
    repaired.unwrap();
    let unseen = async || {
        for replica in &replicas {
            let seen = replica.survey(&world.appid).await.foreign_refresh;
            assert_eq!(seen, None);
        }
    };
    unseen().await;

    // Nor when the other replicas can be asked: the fetch of the other replica explains the death.
    redis.restart();
    let coord = over(&redis, &world);
    let key = format!("token-ledger:{}", world.appid);
    let is_shared = async || {
        let cell = coord.cells().get(&key).await.ok().flatten()?;
        String::from_utf8_lossy(&cell.value)
            .contains(&fetched_at)
            .then_some(())
    };
    until(is_shared).await;
    for _ in 0..20 {
        world.advance(SECOND);
        unseen().await;
    }
}

#[tokio::test]
async fn a_death_while_redis_is_away_is_judged_when_it_is_back() {
    let redis = Redis::start();
    let world = World::new(TokenMode::Legacy).await;
    let diary = Arc::new(Diary::default());
    let replicas = [0; 2].map(|_| {
        let replica = world.replica(&over(&redis, &world));
        replica.with_observer(Arc::clone(&diary) as _)
    });
    let first = world.token(&replicas[0]).await;
    world.token(&replicas[1]).await;
    redis.kill();
    world.wechat.control().foreign_fetch(world.appid.as_str());
    world.advance(SECOND * 300);
    let refused_at = world.clock.now();

    let second = replicas[0].stale(&world.appid, first.generation).await;
    let second = second.unwrap().generation;
    until(async || (!diary.events().is_empty()).then_some(())).await;
    assert_eq!(
        diary.events(),
        [BrokerEvent::DiedYoung],
        "on record at once"
    );
    redis.restart();
    let coord = over(&redis, &world);
    let key = format!("token:{}", world.appid);
    until(async || {
        coord
            .cells()
            .get(&key)
            .await
            .ok()?
            .filter(|there| there.generation == second)
    })
    .await;
    // Redis and the circuit breaker use real time, so the manual clock must not move on by a day meanwhile.
    let mut pace = tokio::time::interval(SECOND / 50);
    let seen = until(async || {
        pace.tick().await;
        world.advance(SECOND);
        replicas[0].survey(&world.appid).await.foreign_refresh
    })
    .await;

    let expected = ForeignRefresh {
        count_today: 1,
        last_at: refused_at,
    };
    assert_eq!(seen, expected);
    until(async || {
        let other = replicas[1].survey(&world.appid).await.foreign_refresh;
        other.filter(|seen| *seen == expected)
    })
    .await;
    assert_eq!(world.fetches(), 2, "the first, and one repair");
    // A caller with the dead token gets the token of the repair.
    let late = replicas[1].stale(&world.appid, first.generation).await;
    assert_eq!(late.unwrap().generation, second);
    join_all(replicas.iter().map(wxgate_broker::Broker::shutdown)).await;
    assert_eq!(
        diary.events(),
        [
            BrokerEvent::DiedYoung,
            BrokerEvent::ForeignRefresh(expected)
        ]
    );
}

#[tokio::test]
async fn a_death_while_redis_is_slow_is_foreign_all_the_same() {
    let redis = Redis::start();
    let mut world = World::new(TokenMode::Legacy).await;
    // The retry of updates for which Redis was too slow needs a clock that moves.
    world.clock = coord::Clock::system();
    world.wechat.control().clock().release();
    let replicas = [0; 2].map(|_| world.replica(&over(&redis, &world)));
    let first = world.token(&replicas[0]).await;
    world.wechat.control().kill_tokens(world.appid.as_str());

    redis.stall(SECOND * 3);
    let second = replicas[0].stale(&world.appid, first.generation).await;
    let second = second.unwrap().generation;

    for replica in &replicas {
        let seen = until(async || replica.survey(&world.appid).await.foreign_refresh).await;
        assert_eq!(seen.count_today, 1);
        assert_eq!(world.token(replica).await.generation, second);
    }
    assert_eq!(world.fetches(), 2);
}

#[tokio::test]
async fn foreign_refreshes_are_counted_by_the_day_and_shown_for_a_week() {
    let world = World::new(TokenMode::Legacy).await;
    let broker = world.alone();
    for count in 1..=3 {
        let token = world.token(&broker).await;
        world.wechat.control().foreign_fetch(world.appid.as_str());
        world.advance(SECOND * 300);
        broker.stale(&world.appid, token.generation).await.unwrap();
        let seen = broker.state(&world.appid).unwrap().foreign_refresh;
        assert_eq!(seen.unwrap().count_today, count);
    }
    let last_at = world.clock.now();
    let day = SECOND * 24 * 3_600;
    for expected in [Some(0); 6].into_iter().chain([None]) {
        world.advance(day);
        let seen = broker.survey(&world.appid).await.foreign_refresh;
        assert_eq!(seen.map(|seen| seen.count_today), expected);
        assert!(seen.is_none_or(|seen| seen.last_at == last_at));
    }
}
