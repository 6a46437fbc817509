//! Changes of keys during operation: the keys that sign tokens, and the master key.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use store::SealedColumn;
use wxgate_tenancy::{AuthError, Tenancy, TenancyError, TenancyOptions};

use crate::gate::{Gate, URL, master_key, start};

fn kid(token: &str) -> String {
    jsonwebtoken::decode_header(token).unwrap().kid.unwrap()
}

async fn published(tenancy: &Tenancy) -> Vec<String> {
    let keys = tenancy.jwks().await;
    let kids = keys["keys"].as_array().unwrap().iter();
    kids.map(|key| key["kid"].as_str().unwrap().to_owned())
        .collect()
}

/// Two replicas issue and verify tokens, minute by minute, while the signing key changes: no token is ever refused.
#[tokio::test]
async fn no_token_is_refused_while_the_key_changes() {
    let gate = Gate::open().await;
    let made = gate.key("apps:read").await;
    let other = gate.replica().await;
    let first = kid(&gate.token(&made.secret).await);
    let next = gate.tenancy.rotate_signing_key().await.unwrap();
    assert_eq!(next.signs_from, start() + TimeDelta::minutes(10));
    let both = published(&gate.tenancy).await;
    assert!(both.len() == 2 && both.contains(&next.kid) && both.contains(&first));

    let mut alive: Vec<(DateTime<Utc>, String)> = Vec::new();
    let mut now = start();
    let mut changed = Vec::new();
    for minute in 0..100 {
        for replica in [&gate.tenancy, &other] {
            let issued = replica.issue_token(None, &made.secret, None).await.unwrap();
            let token = issued.access_token.expose().to_owned();
            if kid(&token) == next.kid {
                changed.push(minute);
            } else {
                assert_eq!(kid(&token), first);
            }
            alive.push((now + TimeDelta::minutes(15), token));
        }
        alive.retain(|(until, _)| *until > now);
        for (_, token) in &alive {
            for replica in [&gate.tenancy, &other] {
                let accepted = replica.authenticate(token).await;
                assert!(accepted.is_ok(), "minute {minute}: {accepted:?}");
            }
        }
        gate.pass(60);
        now += TimeDelta::minutes(1);
    }
    assert_eq!(changed.first(), Some(&10), "it signs when it said");
    assert_eq!(changed.len(), 180, "and both replicas do from then on");
    gate.pass(3 * 3600);
    assert_eq!(published(&other).await, [next.kid], "the old one is gone");
}

#[tokio::test]
async fn an_old_key_gets_one_successor_from_whoever_comes_first() {
    let gate = Gate::open().await;
    let made = gate.key("apps:read").await;
    let other = gate.replica().await;
    gate.token(&made.secret).await;
    gate.time
        .set(start() + TimeDelta::days(90) - TimeDelta::minutes(2));
    gate.token(&made.secret).await;
    assert_eq!(published(&gate.tenancy).await.len(), 1);
    gate.pass(120);
    let (one, two) = tokio::join!(
        gate.tenancy.issue_token(None, &made.secret, None),
        other.issue_token(None, &made.secret, None)
    );
    assert!(one.is_ok() && two.is_ok());
    gate.pass(60);
    assert_eq!(published(&gate.tenancy).await.len(), 2);
    assert_eq!(published(&gate.tenancy).await, published(&other).await);
}

#[tokio::test]
async fn everything_opens_after_the_master_key_was_exchanged() {
    let gate = Gate::open().await;
    let made = gate.key("apps:read").await;
    let token = gate.token(&made.secret).await;
    let options = || TenancyOptions::at(URL);
    let both = master_key(2).with_secondary(&master_key(1));

    // A replica with both keys, beside a replica with the old key only.
    let replica = gate.start(both.clone(), options()).await.unwrap();
    assert!(replica.authenticate(&token).await.is_ok());
    let resealed = replica.reseal().await.unwrap();
    assert_eq!(resealed.total(), 2, "{resealed:?}");
    assert!(resealed.0.contains(&(SealedColumn::SigningKey, 1)));
    assert_eq!(replica.reseal().await.unwrap().total(), 0, "once is enough");

    let refused = gate.start(master_key(1), options()).await.unwrap_err();
    assert!(matches!(refused, TenancyError::MasterKey(_)), "{refused}");
    let new = gate.start(master_key(2), options()).await.unwrap();
    assert!(new.authenticate(&token).await.is_ok());
    let issued = new.issue_token(None, &made.secret, None).await.unwrap();
    assert!(
        gate.tenancy
            .authenticate(issued.access_token.expose())
            .await
            .is_ok()
    );
    let keys: Value = new.jwks().await;
    assert_eq!(keys, gate.tenancy.jwks().await);
}

#[tokio::test]
async fn tokens_of_a_key_that_was_replaced_are_refused_within_five_seconds_everywhere() {
    let gate = Gate::open().await;
    let made = gate.key("apps:read").await;
    let other = gate.replica().await;
    gate.tenancy.rotate_signing_key().await.unwrap();
    let old = gate.token(&made.secret).await;
    // Both replicas cache the token as verified.
    assert!(gate.tenancy.authenticate(&old).await.is_ok());
    assert!(other.authenticate(&old).await.is_ok());

    let next = gate.tenancy.replace_signing_keys().await.unwrap();
    assert_eq!(next.signs_from, start());
    assert_eq!(
        gate.tenancy.authenticate(&old).await.unwrap_err(),
        AuthError::Malformed
    );
    let fresh = gate.token(&made.secret).await;
    assert_eq!(kid(&fresh), next.kid);
    assert!(
        other.authenticate(&fresh).await.is_ok(),
        "a token of the new key is good at once"
    );
    gate.pass(5);
    assert_eq!(
        other.authenticate(&old).await.unwrap_err(),
        AuthError::Malformed
    );
    let issued = other.issue_token(None, &made.secret, None).await.unwrap();
    assert_eq!(kid(issued.access_token.expose()), next.kid);
    assert_eq!(published(&other).await, [next.kid]);
}

#[tokio::test]
async fn tokens_of_the_drop_in_surface_end_with_their_signing_key_too() {
    let gate = Gate::open().await;
    let made = gate.key("messages:send").await;
    let caller = gate.tenancy.prove(&made.secret).await.unwrap();
    let appid = domain::app::AppId::parse("wx00000000000000a1").unwrap();
    let token = gate.tenancy.issue_drop_in_token(&caller, &appid).unwrap();
    let look = async || gate.tenancy.authenticate_drop_in(token.expose()).await;
    assert!(look().await.is_ok());
    gate.tenancy.replace_signing_keys().await.unwrap();
    assert_eq!(look().await.unwrap_err(), AuthError::Unavailable);
    gate.pass(120);
    assert_eq!(look().await.unwrap_err(), AuthError::Malformed);
}
