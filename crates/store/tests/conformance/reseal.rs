//! Sealed values that are found again, and the gateway's own keys.

use domain::{
    id::{self, WebhookId},
    seal::{MasterKey, SealOwner},
    webhook::EventFilter,
};
use futures::future::join_all;
use wxgate_store::{
    AppPatch, IdempotencyKey, NewApp, NewWebhook, SealedColumn, SigningKey, Store, StoredAnswer,
};

use crate::common::{appid, at, new_app, on_both, onboard};

on_both! {
    everything_sealed_is_found_until_it_is_sealed_anew
    a_value_that_was_changed_meanwhile_stays
    starters_agree_on_one_key
    one_first_key_of_many_is_kept
    one_successor_of_many_is_kept
}

fn key(byte: u8) -> MasterKey {
    MasterKey::from_bytes([byte; 32])
}

async fn everything_sealed_is_found_until_it_is_sealed_anew(store: Store) {
    let tenant = onboard(&store, 1, 10).await;
    let (old, new) = (key(1), key(2));
    let seal = |owner: SealOwner| old.seal(&owner, [3; 12], "secret");
    let app = NewApp {
        secret_sealed: seal(SealOwner::app_secret(tenant, &appid(2))),
        callback_token_sealed: Some(seal(SealOwner::callback_token(tenant, &appid(2)))),
        callback_aes_key_sealed: Some(seal(SealOwner::callback_aes_key(tenant, &appid(2)))),
        ..new_app(2)
    };
    let platform = store.platform();
    store.tenant(tenant).create_app(app, at(1)).await.unwrap();
    // The change keeps the former settings as previous values.
    let patch = AppPatch {
        callback_token_sealed: Some(Some(seal(SealOwner::callback_token(tenant, &appid(2))))),
        ..AppPatch::default()
    };
    let door = store.tenant(tenant);
    door.update_app(&appid(2), patch, at(1)).await.unwrap();
    // The app that every test starts with has no secret that opens, and no previous values.
    store
        .tenant(tenant)
        .delete_app(&appid(1), at(1))
        .await
        .unwrap();
    platform
        .create_signing_key(&signing_key("k", seal(SealOwner::signing_key("k"))))
        .await
        .unwrap();
    platform
        .keep_sealed_key("n", seal(SealOwner::sealed_key("n")), at(1))
        .await
        .unwrap();
    let webhook: WebhookId = id::new(at(1), 0, 1);
    let secret = || seal(SealOwner::webhook_secret(tenant, webhook));
    let new_webhook = NewWebhook {
        id: webhook,
        url: "https://example.com".into(),
        events: EventFilter::parse("*").unwrap(),
        description: None,
        secret_sealed: secret(),
    };
    let answer = StoredAnswer {
        tenant: Some(tenant),
        key: IdempotencyKey {
            key: "once".into(),
            fingerprint: [1; 32],
            kept_for: IdempotencyKey::DAY,
        },
        sealed: seal(SealOwner::kept_answer(Some(tenant), "once")),
    };
    let with_answer = door.clone().with_answer(Some(answer));
    let made = with_answer.create_webhook(new_webhook, 20, at(1)).await;
    assert!(made.unwrap().is_some());
    door.rotate_webhook_secret(webhook, secret(), at(100), at(1))
        .await
        .unwrap();
    for place in SealedColumn::ALL {
        assert_eq!(
            platform
                .sealed_with_other_key(place, old.id(), 9)
                .await
                .unwrap(),
            []
        );
        let found = platform
            .sealed_with_other_key(place, new.id(), 9)
            .await
            .unwrap();
        assert_eq!(found.len(), 1, "{place:?}");
        let plain = old.open(&found[0].owner, &found[0].sealed).unwrap();
        assert_eq!(plain.as_str(), "secret");
        let again = new.seal(&found[0].owner, [4; 12], &plain);
        assert!(platform.replace_sealed(&found[0], again).await.unwrap());
        assert_eq!(
            platform
                .sealed_with_other_key(place, new.id(), 9)
                .await
                .unwrap(),
            []
        );
    }
    let sealed = platform.sealed_app(&appid(2)).await.unwrap();
    let owner = SealOwner::app_secret(tenant, &appid(2));
    assert!(new.open(&owner, &sealed.secret_sealed).is_ok());
}

async fn a_value_that_was_changed_meanwhile_stays(store: Store) {
    let tenant = onboard(&store, 1, 10).await;
    let (platform, door) = (store.platform(), store.tenant(tenant));
    let find = async |place| {
        platform
            .sealed_with_other_key(place, key(2).id(), 9)
            .await
            .unwrap()
    };
    let found = find(SealedColumn::AppSecret).await;
    door.replace_app_secret(&appid(1), vec![7; 40], None, at(2))
        .await
        .unwrap();
    assert!(
        !platform
            .replace_sealed(&found[0], vec![8; 40])
            .await
            .unwrap()
    );
    assert_eq!(find(SealedColumn::AppSecret).await[0].sealed, vec![7; 40]);

    let patch = AppPatch {
        callback_token_sealed: Some(Some(vec![1; 40])),
        ..AppPatch::default()
    };
    door.update_app(&appid(1), patch, at(3)).await.unwrap();
    let found = find(SealedColumn::CallbackToken).await;
    let gone = AppPatch {
        callback_token_sealed: Some(None),
        ..AppPatch::default()
    };
    door.update_app(&appid(1), gone, at(4)).await.unwrap();
    assert!(
        !platform
            .replace_sealed(&found[0], vec![8; 40])
            .await
            .unwrap()
    );
    assert_eq!(find(SealedColumn::CallbackToken).await, []);
}

async fn starters_agree_on_one_key(store: Store) {
    assert_eq!(store.platform().sealed_key("n").await.unwrap(), None);
    let kept = join_all((1..=8).map(|byte| {
        let platform = store.platform();
        async move {
            platform
                .keep_sealed_key("n", vec![byte; 60], at(1))
                .await
                .unwrap()
        }
    }));
    let kept = kept.await;
    assert!(kept.iter().all(|key| *key == kept[0]), "{kept:?}");
    let read = store.platform().sealed_key("n").await.unwrap();
    assert_eq!(read.as_ref(), Some(&kept[0]));
}

fn signing_key(kid: &str, private_sealed: Vec<u8>) -> SigningKey {
    SigningKey {
        kid: kid.into(),
        private_sealed,
        public_key: "x".into(),
        created_at: at(1),
        signs_from: at(10),
        retired_at: None,
    }
}

async fn one_first_key_of_many_is_kept(store: Store) {
    let platform = store.platform();
    let keys = ["a", "b", "c", "d"].map(|kid| signing_key(kid, vec![1; 60]));
    let tried = join_all(keys.iter().map(|key| platform.create_signing_key(key))).await;
    let won = tried.into_iter().filter(|won| *won.as_ref().unwrap());
    assert_eq!(won.count(), 1);
    assert_eq!(platform.signing_keys(at(2)).await.unwrap().len(), 1);
}

async fn one_successor_of_many_is_kept(store: Store) {
    let platform = store.platform();
    let next = |kid: &str| signing_key(kid, vec![1; 60]);
    assert!(
        !platform
            .succeed_signing_key("first", &next("none"), at(20))
            .await
            .unwrap()
    );
    platform.create_signing_key(&next("first")).await.unwrap();
    let heirs = ["a", "b", "c", "d"].map(next);
    let tried = heirs
        .iter()
        .map(|heir| platform.succeed_signing_key("first", heir, at(20)));
    let won: Vec<bool> = join_all(tried)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    assert_eq!(won.iter().filter(|won| **won).count(), 1, "{won:?}");
    let keys = platform.signing_keys(at(2)).await.unwrap();
    let kept = heirs.iter().zip(&won).find(|(_, won)| **won).unwrap().0;
    assert_eq!(platform.newest_signing_key().await.unwrap(), *kept);
    let first = keys.iter().find(|key| key.kid == "first").unwrap();
    assert_eq!((keys.len(), first.retired_at), (2, Some(at(20))));
}
