//! API keys and signing keys: the same rules on SQLite and on PostgreSQL.

use crate::{
    common::{at, new_app, on_both},
    tenants::{first, missing, tenant},
};
use domain::id::{self, TenantId};
use wxgate_store::{Actor, Descendants, NewKey, NewKeyError, SigningKey, Store, StoreError};

on_both! {
    keys_stay_with_their_owner
    a_credential_is_the_key_its_hash_and_its_tenant
    revoking_twice_keeps_the_first_time
    use_is_noted_once_a_minute
    a_key_needs_a_tenant
    signing_keys_come_newest_first_until_retired
    a_signing_key_takes_the_place_of_all_others
}

fn new_key(number: u16) -> NewKey {
    NewKey {
        id: id::new(at(0), number, 1),
        name: format!("key {number}"),
        secret_hash: vec![7; 32],
        scopes: "messages:send apps:read".parse().unwrap(),
        expires_at: Some(at(3600)),
        created_by: Actor::Cli,
    }
}

/// The store's error.
fn stored(error: NewKeyError) -> StoreError {
    match error {
        NewKeyError::Store(error) => error,
        other => panic!("{other:?}"),
    }
}

async fn keys_stay_with_their_owner(store: Store) {
    let (one, two) = (tenant(&store, 1).await.id, tenant(&store, 2).await.id);
    let of_one = store
        .tenant(one)
        .create_key(new_key(1), at(1))
        .await
        .unwrap();
    let of_two = store
        .tenant(two)
        .create_key(new_key(2), at(1))
        .await
        .unwrap();
    let operators = store
        .platform()
        .create_operator_key(new_key(3), at(1))
        .await
        .unwrap();
    assert_eq!((of_one.tenant, operators.tenant), (Some(one), None));

    assert_eq!(
        store.tenant(one).keys(&first(9)).await.unwrap().items,
        [of_one]
    );
    assert_eq!(
        store.tenant(two).keys(&first(9)).await.unwrap().items,
        std::slice::from_ref(&of_two)
    );
    assert_eq!(
        store
            .platform()
            .operator_keys(&first(9))
            .await
            .unwrap()
            .items,
        std::slice::from_ref(&operators)
    );

    missing(
        store
            .tenant(one)
            .revoke_key(of_two.id, Descendants::Revoke, at(2))
            .await,
        "key",
    );
    missing(
        store
            .tenant(one)
            .revoke_key(operators.id, Descendants::Revoke, at(2))
            .await,
        "key",
    );
    missing(
        store
            .platform()
            .revoke_operator_key(of_two.id, Descendants::Revoke, at(2))
            .await,
        "key",
    );
    assert_eq!(
        store.platform().credential(of_two.id).await.unwrap().key,
        of_two
    );
}

async fn a_credential_is_the_key_its_hash_and_its_tenant(store: Store) {
    let owner = tenant(&store, 1).await;
    let key = store
        .tenant(owner.id)
        .create_key(new_key(1), at(1))
        .await
        .unwrap();
    let found = store.platform().credential(key.id).await.unwrap();
    assert_eq!(
        (found.key, found.secret_hash, found.tenant),
        (key, vec![7; 32], Some(owner))
    );

    let operators = store
        .platform()
        .create_operator_key(new_key(2), at(1))
        .await
        .unwrap();
    let found = store.platform().credential(operators.id).await.unwrap();
    assert_eq!((found.key, found.tenant), (operators, None));
    missing(
        store.platform().credential(id::new(at(0), 9, 9)).await,
        "key",
    );
}

async fn revoking_twice_keeps_the_first_time(store: Store) {
    let owner = tenant(&store, 1).await.id;
    let key = store
        .tenant(owner)
        .create_key(new_key(1), at(1))
        .await
        .unwrap();
    for seconds in [5, 6] {
        store
            .tenant(owner)
            .revoke_key(key.id, Descendants::Revoke, at(seconds))
            .await
            .unwrap();
    }
    assert_eq!(
        store
            .platform()
            .credential(key.id)
            .await
            .unwrap()
            .key
            .revoked_at,
        Some(at(5))
    );
    missing(
        store
            .tenant(owner)
            .revoke_key(id::new(at(0), 9, 9), Descendants::Revoke, at(7))
            .await,
        "key",
    );
}

async fn use_is_noted_once_a_minute(store: Store) {
    let owner = tenant(&store, 1).await.id;
    let key = store
        .tenant(owner)
        .create_key(new_key(1), at(0))
        .await
        .unwrap();
    let mut noted = Vec::new();
    for seconds in [10, 70, 71, 100] {
        store
            .platform()
            .touch_key(key.id, at(seconds))
            .await
            .unwrap();
        noted.push(
            store
                .platform()
                .credential(key.id)
                .await
                .unwrap()
                .key
                .last_used_at
                .unwrap(),
        );
    }
    assert_eq!(noted, [at(10), at(10), at(71), at(71)]);
}

async fn a_key_needs_a_tenant(store: Store) {
    let nobody: TenantId = id::new(at(0), 9, 9);
    let refused = store.tenant(nobody).create_key(new_key(1), at(1)).await;
    missing(refused.map_err(stored), "tenant");
    missing(
        store.tenant(nobody).create_app(new_app(1), at(1)).await,
        "tenant",
    );
    store
        .platform()
        .create_operator_key(new_key(1), at(1))
        .await
        .unwrap();
    let again = store
        .platform()
        .create_operator_key(new_key(1), at(1))
        .await;
    assert!(
        matches!(
            again,
            Err(NewKeyError::Store(StoreError::Taken("this key")))
        ),
        "{again:?}"
    );
}

async fn signing_keys_come_newest_first_until_retired(store: Store) {
    missing(store.platform().newest_signing_key().await, "signing key");
    let key = |kid: &str, made: i64, retired: Option<i64>| SigningKey {
        kid: kid.into(),
        private_sealed: vec![1; 150],
        public_key: "x".into(),
        created_at: at(made),
        signs_from: at(made + 5),
        retired_at: retired.map(at),
    };
    for key in [
        key("old", 1, Some(50)),
        key("next", 3, Some(60)),
        key("new", 2, None),
    ] {
        assert!(store.platform().create_signing_key(&key).await.unwrap());
    }
    let kids = async |seconds| {
        let keys = store.platform().signing_keys(at(seconds)).await.unwrap();
        keys.into_iter().map(|key| key.kid).collect::<Vec<_>>()
    };
    assert_eq!(kids(10).await, ["next", "new", "old"]);
    assert_eq!(kids(50).await, ["next", "new"]);
    assert_eq!(kids(99).await, ["new"]);
    assert_eq!(
        store.platform().newest_signing_key().await.unwrap(),
        key("new", 2, None)
    );
}

async fn a_signing_key_takes_the_place_of_all_others(store: Store) {
    let key = |kid: &str, made: i64, retired: Option<i64>| SigningKey {
        kid: kid.into(),
        private_sealed: vec![1; 150],
        public_key: "x".into(),
        created_at: at(made),
        signs_from: at(made),
        retired_at: retired.map(at),
    };
    let platform = store.platform();
    for key in [key("old", 1, Some(50)), key("new", 2, None)] {
        assert!(platform.create_signing_key(&key).await.unwrap());
    }
    let next = key("next", 10, None);
    platform.replace_signing_keys(&next).await.unwrap();
    // Also for a slow clock.
    for seconds in [3, 10, 99] {
        let keys = platform.signing_keys(at(seconds)).await.unwrap();
        assert_eq!(keys, std::slice::from_ref(&next));
    }
    assert_eq!(platform.newest_signing_key().await.unwrap(), next);
    let late = key("late", 11, None);
    let taken = platform.succeed_signing_key("new", &late, at(60)).await;
    assert!(!taken.unwrap(), "who was going to rotate finds it done");
}
