//! The rules of leases.

use futures::future::join_all;

use crate::{Pair, SECOND};

pub(crate) async fn a_lease_has_one_owner_until_it_ends(Pair { one, two, time, .. }: Pair) {
    assert!(
        one.leases()
            .take("fetch", "one", SECOND * 10)
            .await
            .unwrap()
    );
    assert!(
        one.leases()
            .take("fetch", "one", SECOND * 10)
            .await
            .unwrap(),
        "its own again"
    );
    assert!(
        !two.leases()
            .take("fetch", "two", SECOND * 10)
            .await
            .unwrap()
    );
    assert!(
        two.leases()
            .take("other", "two", SECOND * 10)
            .await
            .unwrap()
    );

    time.advance(SECOND * 9);
    assert!(
        one.leases()
            .renew("fetch", "one", SECOND * 10)
            .await
            .unwrap()
    );
    time.advance(SECOND * 9);
    assert!(
        !two.leases()
            .take("fetch", "two", SECOND * 10)
            .await
            .unwrap()
    );

    assert!(!two.leases().release("fetch", "two").await.unwrap());
    assert!(one.leases().release("fetch", "one").await.unwrap());
    assert!(
        two.leases()
            .take("fetch", "two", SECOND * 10)
            .await
            .unwrap()
    );
}

pub(crate) async fn a_lost_lease_can_be_neither_renewed_nor_released(
    Pair { one, two, time, .. }: Pair,
) {
    assert!(one.leases().take("fetch", "one", SECOND).await.unwrap());
    time.advance(SECOND);
    assert!(!one.leases().renew("fetch", "one", SECOND).await.unwrap());
    assert!(!one.leases().release("fetch", "one").await.unwrap());
    assert!(two.leases().take("fetch", "two", SECOND).await.unwrap());
    assert!(!one.leases().take("fetch", "one", SECOND).await.unwrap());
    assert!(!one.leases().release("fetch", "one").await.unwrap());
}

pub(crate) async fn of_many_takers_one_gets_the_lease(Pair { one, two, .. }: Pair) {
    let owners: Vec<String> = (0..100).map(|n| format!("owner {n}")).collect();
    let takes = owners.iter().enumerate().map(|(n, owner)| {
        let replica = if n % 2 == 0 { &one } else { &two };
        replica.leases().take("fetch", owner, SECOND)
    });
    assert_eq!(
        join_all(takes)
            .await
            .into_iter()
            .filter(|taken| *taken.as_ref().unwrap())
            .count(),
        1
    );
}
