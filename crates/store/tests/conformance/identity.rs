//! Tenants, keys, apps and signing keys: the same rules on SQLite and on PostgreSQL.

use crate::common::{appid, at, hand_in, intake, new_app, on_both, one};
use domain::{
    id::{self, MessageId, TenantId},
    lifecycle::Status,
    message::Request,
    quota::Shares,
    tenant::{TenantLimits, TenantStatus},
};
use wxgate_store::{
    AppPatch, ClaimRequest, NewKey, NewMessage, Page, PreviousCallback, Received, SigningKey,
    Store, StoreError, Taken, Tenant, TenantPatch,
};

on_both! {
    tenants_are_made_changed_and_listed
    a_page_ends_where_the_next_begins
    keys_stay_with_their_owner
    a_credential_is_the_key_its_hash_and_its_tenant
    revoking_twice_keeps_the_first_time
    use_is_noted_once_a_minute
    a_key_needs_a_tenant
    apps_are_made_changed_and_listed
    message_push_settings_are_kept_when_they_change
    an_appid_belongs_to_one_tenant
    another_tenants_app_is_not_there
    a_removed_app_cancels_what_it_has_not_sent
    secrets_are_replaced_as_a_whole
    signing_keys_come_newest_first_until_retired
    a_signing_key_takes_the_place_of_all_others
}

async fn tenant(store: &Store, number: u16) -> Tenant {
    let id: TenantId = id::new(at(0), number, 1);
    store
        .platform()
        .create_tenant(
            id,
            &format!("tenant {number}"),
            TenantLimits::default(),
            at(0),
        )
        .await
        .unwrap()
}

fn new_key(number: u16) -> NewKey {
    NewKey {
        id: id::new(at(0), number, 1),
        name: format!("key {number}"),
        secret_hash: vec![7; 32],
        scopes: "messages:send apps:read".parse().unwrap(),
        expires_at: Some(at(3600)),
    }
}

#[track_caller]
fn missing<T: std::fmt::Debug>(result: Result<T, StoreError>, what: &str) {
    match result {
        Err(StoreError::NotFound(it)) => assert_eq!(it, what),
        other => panic!("{other:?}"),
    }
}

fn first(limit: u64) -> Page {
    Page { limit, after: None }
}

async fn tenants_are_made_changed_and_listed(store: Store) {
    let made = tenant(&store, 1).await;
    assert_eq!(
        (made.name.as_str(), made.status, made.limits),
        ("tenant 1", TenantStatus::Active, TenantLimits::default())
    );
    assert_eq!(store.platform().tenant(made.id).await.unwrap(), made);

    let patch = TenantPatch {
        status: Some(TenantStatus::Suspended),
        messages_per_day: Some(Some(5)),
        ..TenantPatch::default()
    };
    let changed = store
        .platform()
        .update_tenant(made.id, &patch, at(9))
        .await
        .unwrap();
    let limits = TenantLimits {
        messages_per_day: Some(5),
        ..made.limits
    };
    let wanted = Tenant {
        status: TenantStatus::Suspended,
        limits,
        updated_at: at(9),
        ..made.clone()
    };
    assert_eq!(changed, wanted);
    assert_eq!(store.tenant(made.id).itself().await.unwrap(), wanted);

    let lift = TenantPatch {
        messages_per_day: Some(None),
        name: Some("new".into()),
        ..TenantPatch::default()
    };
    let lifted = store
        .platform()
        .update_tenant(made.id, &lift, at(10))
        .await
        .unwrap();
    assert_eq!((lifted.name.as_str(), lifted.limits), ("new", made.limits));

    let nobody = id::new(at(0), 99, 1);
    missing(store.platform().tenant(nobody).await, "tenant");
    missing(
        store.platform().update_tenant(nobody, &patch, at(9)).await,
        "tenant",
    );
}

async fn a_page_ends_where_the_next_begins(store: Store) {
    for number in 1..=5 {
        tenant(&store, number).await;
    }
    let mut page = first(2);
    let mut pages = Vec::new();
    loop {
        let listing = store.platform().tenants(&page).await.unwrap();
        pages.push(
            listing
                .items
                .into_iter()
                .map(|tenant| tenant.name)
                .collect::<Vec<_>>(),
        );
        page.after = listing.next;
        if page.after.is_none() {
            break;
        }
    }
    assert_eq!(
        pages,
        [
            vec!["tenant 5", "tenant 4"],
            vec!["tenant 3", "tenant 2"],
            vec!["tenant 1"]
        ]
    );
    assert_eq!(
        store.platform().tenants(&first(5)).await.unwrap().next,
        None
    );
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

    missing(store.tenant(one).revoke_key(of_two.id, at(2)).await, "key");
    missing(
        store.tenant(one).revoke_key(operators.id, at(2)).await,
        "key",
    );
    missing(
        store.platform().revoke_operator_key(of_two.id, at(2)).await,
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
            .revoke_key(key.id, at(seconds))
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
            .revoke_key(id::new(at(0), 9, 9), at(7))
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
    missing(
        store.tenant(nobody).create_key(new_key(1), at(1)).await,
        "tenant",
    );
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
        matches!(again, Err(StoreError::Taken("this key"))),
        "{again:?}"
    );
}

async fn apps_are_made_changed_and_listed(store: Store) {
    let (one, two) = (tenant(&store, 1).await.id, tenant(&store, 2).await.id);
    let door = store.tenant(one);
    let made = door.create_app(new_app(1), at(1)).await.unwrap();
    assert_eq!(
        (
            made.tenant,
            made.daily_quota,
            made.has_callback_token,
            &made.pause
        ),
        (one, 1000, false, &None)
    );
    assert_eq!(door.app(&appid(1)).await.unwrap(), made);

    let patch = AppPatch {
        daily_quota: Some(7),
        callback_token_sealed: Some(Some(vec![2; 40])),
        callback_aes_key_sealed: Some(Some(vec![3; 40])),
        ..AppPatch::default()
    };
    let changed = door.update_app(&appid(1), patch, at(2)).await.unwrap();
    assert_eq!(
        (
            changed.daily_quota,
            changed.has_callback_token && changed.has_callback_aes_key,
            changed.updated_at
        ),
        (7, true, at(2))
    );
    let forget = AppPatch {
        callback_token_sealed: Some(None),
        ..AppPatch::default()
    };
    let forgotten = door.update_app(&appid(1), forget, at(3)).await.unwrap();
    assert!(!forgotten.has_callback_token && forgotten.has_callback_aes_key);

    // Two of the same moment, one of another tenant, one later.
    door.create_app(new_app(3), at(5)).await.unwrap();
    store
        .tenant(two)
        .create_app(new_app(2), at(5))
        .await
        .unwrap();
    door.create_app(new_app(4), at(6)).await.unwrap();
    let mut page = Page {
        limit: 2,
        after: None,
    };
    let listing = store.platform().apps(&page).await.unwrap();
    assert_eq!(
        listing
            .items
            .iter()
            .map(|app| &app.appid)
            .collect::<Vec<_>>(),
        [&appid(4), &appid(2)]
    );
    page.after = Some(listing.next.unwrap().to_string().parse().unwrap());
    let listing = store.platform().apps(&page).await.unwrap();
    assert_eq!(
        listing
            .items
            .iter()
            .map(|app| &app.appid)
            .collect::<Vec<_>>(),
        [&appid(3), &appid(1)]
    );
    assert_eq!(listing.next, None);
    let own = door
        .apps(&Page {
            limit: 9,
            after: None,
        })
        .await
        .unwrap();
    assert_eq!(
        own.items.iter().map(|app| &app.appid).collect::<Vec<_>>(),
        [&appid(4), &appid(3), &appid(1)]
    );
}

async fn message_push_settings_are_kept_when_they_change(store: Store) {
    let door = store.tenant(tenant(&store, 1).await.id);
    door.create_app(new_app(1), at(1)).await.unwrap();
    let sealed = async || store.platform().sealed_app(&appid(1)).await.unwrap();
    let change = async |token: Option<u8>, aes_key: Option<u8>, second: i64| {
        let patch = AppPatch {
            callback_token_sealed: token.map(|byte| Some(vec![byte; 40])),
            callback_aes_key_sealed: aes_key.map(|byte| Some(vec![byte; 40])),
            ..AppPatch::default()
        };
        let changed = door.update_app(&appid(1), patch, at(second)).await;
        changed.unwrap();
        sealed().await
    };
    let first = change(Some(1), None, 2).await;
    assert_eq!(first.callback_token_sealed, Some(vec![1; 40]));
    assert_eq!(first.previous_callback, None, "there was nothing before");
    let previous = |token: u8, aes_key: Option<u8>, second: i64| PreviousCallback {
        token_sealed: vec![token; 40],
        aes_key_sealed: aes_key.map(|byte| vec![byte; 40]),
        changed_at: at(second),
    };
    let second = change(None, Some(2), 3).await;
    assert_eq!(second.previous_callback, Some(previous(1, None, 3)));
    let third = change(Some(3), Some(4), 4).await;
    assert_eq!(third.callback_aes_key_sealed, Some(vec![4; 40]));
    assert_eq!(third.previous_callback, Some(previous(1, Some(2), 4)));
    let renamed = AppPatch {
        name: Some("another".into()),
        ..AppPatch::default()
    };
    door.update_app(&appid(1), renamed, at(5)).await.unwrap();
    assert_eq!(sealed().await.previous_callback, third.previous_callback);
}

async fn an_appid_belongs_to_one_tenant(store: Store) {
    let (one, two) = (tenant(&store, 1).await.id, tenant(&store, 2).await.id);
    store
        .tenant(one)
        .create_app(new_app(1), at(1))
        .await
        .unwrap();
    for owner in [one, two] {
        let again = store.tenant(owner).create_app(new_app(1), at(2)).await;
        assert!(
            matches!(again, Err(StoreError::Taken("this appid"))),
            "{again:?}"
        );
    }
    // Once removed, it is free again.
    store
        .tenant(one)
        .delete_app(&appid(1), at(3))
        .await
        .unwrap();
    store
        .tenant(two)
        .create_app(new_app(1), at(4))
        .await
        .unwrap();
    assert_eq!(store.platform().app(&appid(1)).await.unwrap().tenant, two);
}

async fn another_tenants_app_is_not_there(store: Store) {
    let (one, two) = (tenant(&store, 1).await.id, tenant(&store, 2).await.id);
    let made = store
        .tenant(one)
        .create_app(new_app(1), at(1))
        .await
        .unwrap();
    let stranger = store.tenant(two);
    for app in [appid(1), appid(9)] {
        missing(stranger.app(&app).await, "app");
        missing(
            stranger.update_app(&app, AppPatch::default(), at(2)).await,
            "app",
        );
        missing(
            stranger
                .replace_app_secret(&app, vec![9], None, at(2))
                .await,
            "app",
        );
        missing(stranger.mark_app_verified(&app, at(2)).await, "app");
        missing(stranger.delete_app(&app, at(2)).await, "app");
    }
    assert!(
        stranger
            .apps(&Page {
                limit: 9,
                after: None
            })
            .await
            .unwrap()
            .items
            .is_empty()
    );
    assert_eq!(store.tenant(one).app(&appid(1)).await.unwrap(), made);
}

async fn a_removed_app_cancels_what_it_has_not_sent(store: Store) {
    let owner = tenant(&store, 1).await.id;
    let door = store.tenant(owner);
    for number in [1, 2] {
        door.create_app(new_app(number), at(0)).await.unwrap();
    }
    let flying = accept(&store, owner, 1, 1).await;
    claim_one(&store).await;
    let unsent = accept(&store, owner, 1, 2).await;
    let of_another = accept(&store, owner, 2, 3).await;

    door.delete_app(&appid(1), at(5)).await.unwrap();

    missing(door.app(&appid(1)).await, "app");
    missing(store.platform().sealed_app(&appid(1)).await, "app");
    let mut states = Vec::new();
    for id in [flying, unsent, of_another] {
        let message = door.message(id).await.unwrap().unwrap();
        states.push((message.status, message.updated_at));
    }
    assert_eq!(states[0].0, Status::Sending);
    assert_eq!(states[1], (Status::Canceled, at(5)));
    assert_eq!(states[2].0, Status::Queued);
    let late = one(new_message(owner, 1, 4), None);
    assert_eq!(hand_in(&store, &[late], at(6)).await, [Taken::NoSuchApp]);
}

async fn secrets_are_replaced_as_a_whole(store: Store) {
    let owner = tenant(&store, 1).await.id;
    let door = store.tenant(owner);
    door.create_app(new_app(1), at(0)).await.unwrap();
    door.mark_app_verified(&appid(1), at(1)).await.unwrap();
    assert_eq!(door.app(&appid(1)).await.unwrap().verified_at, Some(at(1)));
    door.replace_app_secret(&appid(1), vec![5; 60], None, at(2))
        .await
        .unwrap();
    let app = door.app(&appid(1)).await.unwrap();
    assert_eq!((app.verified_at, app.updated_at), (None, at(2)));
    let sealed = store.platform().sealed_app(&appid(1)).await.unwrap();
    assert_eq!(
        (
            sealed.secret_sealed,
            sealed.tenant,
            sealed.callback_token_sealed
        ),
        (vec![5; 60], owner, None)
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
        key("new", 2, None),
        key("next", 3, Some(60)),
    ] {
        store.platform().create_signing_key(&key).await.unwrap();
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
        platform.create_signing_key(&key).await.unwrap();
    }
    let next = key("next", 10, None);
    platform.replace_signing_keys(&next).await.unwrap();
    // Also for a clock that is behind.
    for seconds in [3, 10, 99] {
        let keys = platform.signing_keys(at(seconds)).await.unwrap();
        assert_eq!(keys, std::slice::from_ref(&next));
    }
    assert_eq!(platform.newest_signing_key().await.unwrap(), next);
    let late = key("late", 11, None);
    let taken = platform.succeed_signing_key("new", &late, at(60)).await;
    assert!(!taken.unwrap(), "who was going to rotate finds it done");
}

async fn accept(store: &Store, owner: TenantId, app: u16, number: u16) -> MessageId {
    let new = new_message(owner, app, number);
    let id = new.id;
    assert_eq!(intake(store, &[new], at(0)).await, [Received::Stored]);
    id
}

async fn claim_one(store: &Store) {
    let request = ClaimRequest {
        slots: 1,
        apps: Vec::new(),
        cursor: String::new(),
        lease: 1,
        lease_until: at(60),
        shares: Shares::default(),
    };
    assert_eq!(
        store
            .platform()
            .claim(&request, at(1))
            .await
            .unwrap()
            .claimed
            .len(),
        1
    );
}

fn new_message(owner: TenantId, app: u16, number: u16) -> NewMessage {
    let request = Request {
        touser: format!("oUser{number}"),
        template_id: "template".into(),
        data: serde_json::json!({ "thing1": { "value": "tea" } })
            .as_object()
            .cloned(),
        ..Request::default()
    };
    NewMessage {
        id: id::new(at(0), number, 1),
        tenant: owner,
        appid: appid(app),
        draft: request.check(at(0)).unwrap(),
        received_at: at(0),
    }
}
