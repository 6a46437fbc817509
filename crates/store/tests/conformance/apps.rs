//! Apps: the same rules on SQLite and on PostgreSQL.

use crate::{
    common::{appid, at, hand_in, intake, new_app, on_both, one},
    tenants::{missing, tenant},
};
use domain::{
    id::{self, MessageId, TenantId},
    lifecycle::Status,
    message::Request,
    quota::PriorityShares,
};
use wxgate_store::{
    AppPatch, ClaimRequest, NewMessage, Page, PreviousCallback, Received, Store, StoreError, Taken,
};

on_both! {
    apps_are_made_changed_and_listed
    message_push_settings_are_kept_when_they_change
    an_appid_belongs_to_one_tenant
    another_tenants_app_is_not_there
    a_removed_app_cancels_what_it_has_not_sent
    secrets_are_replaced_as_a_whole
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

    // Two apps of the same moment, one of these of another tenant, and one later app.
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
    // The appid of a removed app is free again.
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
        missing(
            stranger.mark_app_verified(&app, Some(at(2)), at(2)).await,
            "app",
        );
        missing(stranger.mark_app_verified(&app, None, at(2)).await, "app");
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
    door.mark_app_verified(&appid(1), Some(at(1)), at(1))
        .await
        .unwrap();
    assert_eq!(door.app(&appid(1)).await.unwrap().verified_at, Some(at(1)));
    door.mark_app_verified(&appid(1), None, at(1))
        .await
        .unwrap();
    assert_eq!(door.app(&appid(1)).await.unwrap().verified_at, None);
    door.mark_app_verified(&appid(1), Some(at(1)), at(1))
        .await
        .unwrap();
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
        shares: PriorityShares::default(),
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
