//! The rules of limits.

use std::time::Duration;

use futures::future::join_all;
use wxgate_coord::{Coord, Decision, RateLimit};

use crate::{Pair, SECOND};

pub(crate) async fn check(replica: &Coord, quota: RateLimit, cost: u32) -> Decision {
    replica.limits().check("key", quota, cost).await.unwrap()
}

pub(crate) async fn a_limit_refills_with_time(Pair { one, two, time, .. }: Pair) {
    let quota = RateLimit::new(2, SECOND, 3);
    let half = SECOND / 2;
    for remaining in [2, 1, 0] {
        let expected = Decision {
            allowed: true,
            limit: 3,
            remaining,
            reset_after: half * (3 - remaining),
            retry_after: Duration::ZERO,
        };
        assert_eq!(check(&one, quota, 1).await, expected);
    }
    let refused = Decision {
        allowed: false,
        limit: 3,
        remaining: 0,
        reset_after: half * 3,
        retry_after: half,
    };
    assert_eq!(check(&two, quota, 1).await, refused);
    time.advance(SECOND / 5);
    assert_eq!(
        check(&two, quota, 1).await,
        Decision {
            retry_after: Duration::from_millis(300),
            ..refused
        }
    );
    time.advance(Duration::from_millis(300));
    assert!(check(&two, quota, 1).await.allowed);
    assert!(!check(&one, quota, 1).await.allowed);

    time.advance(SECOND * 3600);
    assert_eq!(
        check(&one, quota, 1).await.remaining,
        2,
        "a rest fills the bucket and no more"
    );
}

pub(crate) async fn a_limit_charges_all_or_nothing(Pair { one, time, .. }: Pair) {
    let quota = RateLimit::new(10, SECOND, 10);
    assert_eq!(check(&one, quota, 7).await.remaining, 3);
    let refused = check(&one, quota, 4).await;
    assert!(!refused.allowed);
    assert_eq!((refused.remaining, refused.retry_after), (3, SECOND / 10));
    assert!(
        check(&one, quota, 3).await.allowed,
        "the refused four cost nothing"
    );
    time.advance(refused.retry_after * 4);
    assert!(check(&one, quota, 4).await.allowed);
}

pub(crate) async fn a_cost_above_the_burst_takes_the_whole_bucket(Pair { one, time, .. }: Pair) {
    let quota = RateLimit::new(1, SECOND, 5);
    let whole = check(&one, quota, 50).await;
    assert_eq!(
        (whole.allowed, whole.remaining, whole.reset_after),
        (true, 0, SECOND * 5)
    );
    time.advance(SECOND * 4);
    let refused = check(&one, quota, 50).await;
    assert_eq!(
        (refused.allowed, refused.remaining, refused.retry_after),
        (false, 4, SECOND)
    );
    time.advance(SECOND);
    assert!(check(&one, quota, 50).await.allowed);
}

pub(crate) async fn keys_do_not_share_a_bucket(Pair { one, .. }: Pair) {
    let quota = RateLimit::new(1, SECOND, 1);
    for key in ["a", "b", "tenant_01\u{7a7a}"] {
        assert!(one.limits().check(key, quota, 1).await.unwrap().allowed);
        assert!(!one.limits().check(key, quota, 1).await.unwrap().allowed);
    }
}

pub(crate) async fn many_checks_at_once_get_exactly_the_burst(Pair { one, two, .. }: Pair) {
    let quota = RateLimit::new(7, SECOND * 60, 40);
    let decisions =
        join_all((0..100).map(|n| check(if n % 2 == 0 { &one } else { &two }, quota, 1))).await;
    assert_eq!(
        decisions.iter().filter(|decision| decision.allowed).count(),
        40
    );
}
