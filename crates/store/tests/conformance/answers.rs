//! Answers are stored in the transaction of the change, and a change applies to the state that the caller has read.

use chrono::{DateTime, Utc};
use domain::id::{self, TenantId};
use wxgate_store::{
    AppPatch, IdempotencyKey, IdempotencyLookup, Store, StoreError, StoredAnswer, TenantPatch,
};

use crate::common::{appid, at, new_app, on_both, onboard};

on_both! {
    an_answer_is_there_with_what_it_answers
    an_old_answer_makes_room_unasked
    a_key_that_is_taken_lets_nothing_happen
    what_is_refused_leaves_its_key_free
    operators_have_keys_of_their_own
    only_what_was_read_is_changed
    no_two_changes_share_a_time
}

fn key(name: &str, request: u8) -> IdempotencyKey {
    IdempotencyKey {
        key: name.to_owned(),
        fingerprint: [request; 32],
        kept_for: IdempotencyKey::DAY,
    }
}

fn kept(tenant: TenantId, name: &str) -> StoredAnswer {
    StoredAnswer {
        tenant: Some(tenant),
        key: key(name, 1),
        sealed: vec![5; 40],
    }
}

async fn recall(
    store: &Store,
    tenant: Option<TenantId>,
    key: &IdempotencyKey,
    now: DateTime<Utc>,
) -> IdempotencyLookup {
    store.recall(tenant, key, now).await.unwrap()
}

async fn an_answer_is_there_with_what_it_answers(store: Store) {
    let tenant = onboard(&store, 1, 10).await;
    let recall = async |key: &IdempotencyKey| recall(&store, Some(tenant), key, at(2)).await;
    assert_eq!(recall(&key("k", 1)).await, IdempotencyLookup::Nothing);
    let door = store.tenant(tenant).with_answer(Some(kept(tenant, "k")));
    door.create_app(new_app(2), at(1)).await.unwrap();
    assert_eq!(
        recall(&key("k", 1)).await,
        IdempotencyLookup::Answer(vec![5; 40])
    );
    assert_eq!(recall(&key("k", 2)).await, IdempotencyLookup::OtherRequest);
    let swept = store
        .platform()
        .forget_idempotency_keys(at(24 * 3600 + 2))
        .await;
    assert_eq!(swept.unwrap().moved, 1);
    assert_eq!(recall(&key("k", 1)).await, IdempotencyLookup::Nothing);
}

async fn an_old_answer_makes_room_unasked(store: Store) {
    const DAY: i64 = 24 * 3600;
    let tenant = onboard(&store, 1, 10).await;
    let make = async |number: u16, request: u8, seconds: i64| {
        let kept = StoredAnswer {
            key: key("k", request),
            sealed: vec![request; 40],
            ..kept(tenant, "k")
        };
        let door = store.tenant(tenant).with_answer(Some(kept));
        door.create_app(new_app(number), at(seconds)).await
    };
    make(2, 1, 0).await.unwrap();
    let late = make(3, 2, DAY).await;
    assert!(matches!(late, Err(StoreError::Answered)), "{late:?}");
    let recall = async |request: u8, seconds: i64| {
        let asked = key("k", request);
        recall(&store, Some(tenant), &asked, at(seconds)).await
    };
    assert_eq!(recall(1, DAY).await, IdempotencyLookup::Answer(vec![1; 40]));
    assert_eq!(recall(2, DAY).await, IdempotencyLookup::OtherRequest);
    // The janitor has not deleted the expired record yet.
    assert_eq!(recall(1, DAY + 1).await, IdempotencyLookup::Nothing);
    make(3, 2, DAY + 1).await.unwrap();
    assert_eq!(
        recall(2, 2 * DAY).await,
        IdempotencyLookup::Answer(vec![2; 40])
    );
    assert_eq!(recall(1, 2 * DAY).await, IdempotencyLookup::OtherRequest);
}

async fn a_key_that_is_taken_lets_nothing_happen(store: Store) {
    let tenant = onboard(&store, 1, 10).await;
    let door = store.tenant(tenant).with_answer(Some(kept(tenant, "k")));
    door.create_app(new_app(2), at(1)).await.unwrap();
    let twin = door.create_app(new_app(3), at(1)).await;
    assert!(matches!(twin, Err(StoreError::Answered)), "{twin:?}");
    let absent = store.platform().app(&appid(3)).await;
    assert!(matches!(absent, Err(StoreError::NotFound("app"))));
}

async fn what_is_refused_leaves_its_key_free(store: Store) {
    let tenant = onboard(&store, 1, 10).await;
    let door = store.tenant(tenant).with_answer(Some(kept(tenant, "k")));
    let taken = door.create_app(new_app(1), at(1)).await;
    assert!(matches!(taken, Err(StoreError::Taken(_))), "{taken:?}");
    let (webhook, event) = (id::new(at(0), 1, 1), id::new(at(0), 2, 2));
    let nothing = door.redeliver(webhook, event, at(1)).await;
    assert!(matches!(nothing, Err(StoreError::NotFound("delivery"))));
    assert_eq!(
        recall(&store, Some(tenant), &key("k", 1), at(1)).await,
        IdempotencyLookup::Nothing
    );
}

async fn operators_have_keys_of_their_own(store: Store) {
    let tenant = onboard(&store, 1, 10).await;
    let door = store.tenant(tenant).with_answer(Some(kept(tenant, "k")));
    door.create_app(new_app(2), at(1)).await.unwrap();
    let asked = key("k", 1);
    let recall = async || recall(&store, None, &asked, at(1)).await;
    assert_eq!(recall().await, IdempotencyLookup::Nothing);
    let operators = StoredAnswer {
        tenant: None,
        key: asked.clone(),
        sealed: vec![6; 40],
    };
    let platform = store.platform().with_answer(Some(operators));
    let new = id::new(at(1), 7, 1);
    platform
        .create_tenant(
            new,
            "another",
            domain::tenant::TenantLimits::default(),
            at(1),
        )
        .await
        .unwrap();
    assert_eq!(recall().await, IdempotencyLookup::Answer(vec![6; 40]));
}

async fn only_what_was_read_is_changed(store: Store) {
    let tenant = onboard(&store, 1, 10).await;
    let door = store.tenant(tenant);
    let read = door.app(&appid(1)).await.unwrap();
    let named = |name: &str, known_at| AppPatch {
        name: Some(name.to_owned()),
        known_at,
        ..AppPatch::default()
    };
    let first = named("first", Some(read.updated_at));
    let now = door.update_app(&appid(1), first, at(9)).await.unwrap();
    assert_eq!(now.updated_at, at(9));
    let late = named("late", Some(read.updated_at));
    let late = door.update_app(&appid(1), late, at(10)).await;
    assert!(matches!(late, Err(StoreError::Changed("app"))), "{late:?}");
    let nowhere = named("x", Some(read.updated_at));
    let nowhere = door.update_app(&appid(7), nowhere, at(10)).await;
    assert!(matches!(nowhere, Err(StoreError::NotFound("app"))));
    assert_eq!(door.app(&appid(1)).await.unwrap().name, "first");

    let platform = store.platform();
    let read = platform.tenant(tenant).await.unwrap();
    let renamed = |known_at| TenantPatch {
        name: Some("new".to_owned()),
        known_at: Some(known_at),
        ..TenantPatch::default()
    };
    let first = renamed(read.updated_at);
    platform.update_tenant(tenant, &first, at(9)).await.unwrap();
    let late = platform.update_tenant(tenant, &first, at(10)).await;
    assert!(matches!(late, Err(StoreError::Changed("tenant"))));
}

async fn no_two_changes_share_a_time(store: Store) {
    let tenant = onboard(&store, 1, 10).await;
    let door = store.tenant(tenant);
    let change = async |name: &str| {
        let patch = AppPatch {
            name: Some(name.to_owned()),
            ..AppPatch::default()
        };
        // The clock stands still, or was set back.
        let changed = door.update_app(&appid(1), patch, at(0)).await.unwrap();
        changed.updated_at
    };
    let (one, two) = (change("one").await, change("two").await);
    assert!(at(0) < one && one < two, "{one} {two}");
}
