//! The rules over Redis only: Redis may be away, come back empty, or be no Redis.

use std::time::{Duration, Instant};

use futures::future::join_all;
use wxgate_coord::{Clock, Coord, CoordError, RateLimit, Wake};

use crate::{
    LOST, Pair, SECOND,
    cells::cell,
    limits::check,
    start,
    wakeups::{connect, said},
};

#[tokio::test]
async fn redis_may_die_and_come_back_empty() {
    let server = testkit::Redis::start();
    let Pair {
        one, two, clock, ..
    } = Pair::on(&server);
    let deadline = clock.now() + SECOND * 60;
    let quota = RateLimit::new(1, SECOND, 1);
    connect(&one, &two).await;
    connect(&two, &one).await;
    one.cells()
        .put("token", cell(7, b"seven"), deadline)
        .await
        .unwrap();
    assert!(
        two.leases()
            .take("fetch", "two", SECOND * 60)
            .await
            .unwrap()
    );
    assert!(check(&one, quota, 1).await.allowed);
    let mut here = one.wakeups().subscribe("queue");
    let mut there = two.wakeups().subscribe("queue");

    server.kill();
    let before = Instant::now();
    for replica in [&one, &two] {
        let read = replica.cells().get("token").await.unwrap_err();
        let health = replica.health().await.unwrap_err();
        for error in [read, health] {
            assert!(matches!(error, CoordError::Unavailable { .. }), "{error:?}");
        }
        assert!(replica.limits().check("key", quota, 1).await.is_err());
    }
    assert!(
        before.elapsed() < SECOND * 3,
        "errors come quickly: {:?}",
        before.elapsed()
    );
    one.wakeups().wake("queue", "local");
    assert_eq!(
        &*said(&mut here).await,
        "local",
        "local wake-ups need no Redis"
    );

    server.restart();
    for subscription in [&mut here, &mut there] {
        let missed = tokio::time::timeout(LOST, subscription.next())
            .await
            .expect("no wake-up after the reconnection");
        assert_eq!(missed, Wake::Missed);
    }
    for replica in [&one, &two] {
        assert_eq!(replica.health().await, Ok(()));
        assert_eq!(
            replica.cells().get("token").await.unwrap(),
            None,
            "it came back empty"
        );
    }
    assert!(
        one.cells()
            .put("token", cell(1, b"one"), deadline)
            .await
            .unwrap()
    );
    assert!(one.leases().take("fetch", "one", SECOND).await.unwrap());
    assert!(check(&two, quota, 1).await.allowed);
    connect(&one, &two).await;
}

#[tokio::test]
async fn a_slow_moment_is_over_when_redis_answers_again() {
    let server = testkit::Redis::start();
    let Pair { one, .. } = Pair::on(&server);
    assert_eq!(one.health().await, Ok(()));
    server.stall(SECOND * 2);
    assert!(one.health().await.is_err(), "it does not answer in time");
    assert!(one.health().await.is_err(), "and is left alone for a while");

    let answers = async {
        while one.health().await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LOST, answers)
        .await
        .expect("an answer");
    for _ in 0..100 {
        assert_eq!(one.health().await, Ok(()));
    }
}

/// A Redis that hangs accepts connections and answers nothing. The error shows whether a call has waited.
#[tokio::test]
async fn a_redis_that_hangs_costs_one_wait_however_long_it_hangs() {
    let server = testkit::Redis::start();
    let Pair { one, clock, .. } = Pair::on(&server);
    let quota = RateLimit::new(1, SECOND, 1);
    let deadline = clock.now() + SECOND * 60;
    check(&one, quota, 1).await;
    server.freeze();
    // Calls in progress share the wait of the first call.
    let calls = join_all((0..8).map(|_| one.limits().check("key", quota, 1))).await;
    assert!(calls.iter().all(Result::is_err), "{calls:?}");

    let began = Instant::now();
    let mut waited = Vec::new();
    while began.elapsed() < SECOND * 4 {
        let errors = [
            one.limits().check("key", quota, 1).await.unwrap_err(),
            one.cells().get("token").await.unwrap_err(),
            one.cells()
                .put("token", cell(1, b"one"), deadline)
                .await
                .unwrap_err(),
            one.leases().take("fetch", "one", SECOND).await.unwrap_err(),
            one.health().await.unwrap_err(),
        ];
        let at_once = |error: &CoordError| error.to_string().contains("a moment ago");
        waited.extend(errors.into_iter().filter(|error| !at_once(error)));
        tokio::task::yield_now().await;
    }
    assert_eq!(waited, [], "no call tries out whether Redis is back");
    assert_eq!(one.is_up(), Some(false));

    server.thaw();
    let answers = async {
        while one.limits().check("other", quota, 1).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LOST, answers)
        .await
        .expect("an answer");
    for _ in 0..100 {
        assert_eq!(one.health().await, Ok(()));
    }
}

#[tokio::test]
async fn a_redis_that_goes_is_noticed_where_nobody_needs_it() {
    let server = testkit::Redis::start();
    let Pair { one, .. } = Pair::on(&server);
    let until = async |is_up| {
        let turned = async {
            while one.is_up() != Some(is_up) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LOST, turned).await.expect("a change");
    };
    until(true).await;
    server.kill();
    until(false).await;
    server.restart();
    until(true).await;
}

#[tokio::test]
async fn a_redis_that_refuses_is_not_up() {
    let server = testkit::Redis::start();
    let url = server.url().replace("redis://", "redis://:wrong@");
    let (clock, _) = Clock::manual(start());
    let coord = Coord::redis(&url, clock).unwrap();
    assert!(coord.health().await.is_err());
    assert_eq!(coord.is_up(), Some(false));
}

#[tokio::test]
async fn a_redis_that_somebody_empties_is_noticed() {
    let server = testkit::Redis::start();
    let Pair { one, two, .. } = Pair::on(&server);
    connect(&one, &two).await;
    connect(&two, &one).await;
    for _ in 0..2 {
        let mut subscriptions = [&one, &two].map(|coord| coord.wakeups().subscribe("queue"));
        server.empty();
        for subscription in &mut subscriptions {
            let missed = tokio::time::timeout(LOST, subscription.next()).await;
            assert_eq!(missed, Ok(Wake::Missed));
        }
    }
}

#[tokio::test]
async fn what_was_said_elsewhere_is_no_hint() {
    let server = testkit::Redis::start();
    let Pair { one, two, .. } = Pair::on(&server);
    connect(&one, &two).await;
    let mut subscription = two.wakeups().subscribe("queue");
    one.wakeups().wake("queue", "wx1");
    let gathered = tokio::time::timeout(LOST, subscription.gathered()).await;
    assert_eq!(gathered, Ok(None));
}

#[tokio::test]
async fn without_redis_it_starts_and_says_so() {
    let (clock, _time) = Clock::manual(start());
    // Nothing listens on port 1 of this machine.
    let coord = Coord::redis("redis://user:hunter2@127.0.0.1:1", clock).unwrap();
    let error = coord.health().await.unwrap_err();
    assert!(matches!(error, CoordError::Unavailable { .. }), "{error:?}");
    assert!(error.to_string().contains("WXGATE_REDIS_URL"), "{error}");
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

#[tokio::test]
async fn a_url_that_is_none_is_refused() {
    for url in [
        "",
        "localhost",
        "http://127.0.0.1",
        "redis://user:hunter2@:x",
    ] {
        let error = Coord::redis(url, Clock::system()).unwrap_err();
        assert!(
            matches!(error, CoordError::BadUrl { .. }),
            "{url}: {error:?}"
        );
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}

#[tokio::test]
async fn under_the_system_clock_redis_is_the_judge_of_time() {
    let server = testkit::Redis::start();
    let coord = Coord::redis(&server.url(), Clock::system()).unwrap();
    let quota = RateLimit::new(1, SECOND * 3600, 2);
    assert_eq!(check(&coord, quota, 1).await.remaining, 1);
    assert_eq!(check(&coord, quota, 1).await.remaining, 0);
    let refused = check(&coord, quota, 1).await;
    assert!(
        !refused.allowed
            && refused.retry_after <= SECOND * 3600
            && refused.retry_after > SECOND * 3500
    );

    assert!(
        coord
            .leases()
            .take("fetch", "one", SECOND * 3600)
            .await
            .unwrap()
    );
    assert!(
        !coord
            .leases()
            .take("fetch", "two", SECOND * 3600)
            .await
            .unwrap()
    );
    assert!(
        coord
            .leases()
            .renew("fetch", "one", Duration::from_millis(1))
            .await
            .unwrap()
    );
    tokio::time::timeout(LOST, async {
        while !coord.leases().take("fetch", "two", SECOND).await.unwrap() {}
    })
    .await
    .expect("the lease of a millisecond ends");

    let deadline = coord.clock().now() + SECOND * 60;
    assert!(
        coord
            .cells()
            .put("token", cell(1, b"one"), deadline)
            .await
            .unwrap()
    );
    assert_eq!(
        coord.cells().get("token").await.unwrap(),
        Some(cell(1, b"one"))
    );
}
