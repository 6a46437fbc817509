//! Tokens of the drop-in surface: for one app, for a little more than 7200 s, and for nothing else.

use std::time::Duration;

use domain::{app::AppId, scope::Scope};
use wxgate_tenancy::{AuthError, Descendants, OauthError};

use crate::gate::Gate;

fn appid() -> AppId {
    AppId::parse("wx00000000000000a1").unwrap()
}

#[tokio::test]
async fn a_token_names_its_app_and_what_its_key_may_do() {
    let gate = Gate::open().await;
    let made = gate.key("messages:send wechat:proxy").await;
    let caller = gate.tenancy.prove(&made.secret).await.unwrap();
    let token = gate.tenancy.issue_drop_in_token(&caller, &appid()).unwrap();
    // The length with a URL of 80 characters: base64 makes four characters of three.
    let longest = token.expose().len() + (80 - crate::gate::URL.len()) * 4 / 3;
    assert!(longest < 512, "{longest}");

    let (seen, app) = gate
        .tenancy
        .authenticate_drop_in(token.expose())
        .await
        .unwrap();
    assert_eq!((&seen, app), (&caller, appid()));
    assert!(seen.require(Scope::WechatProxy).is_ok() && seen.require(Scope::AppsRead).is_err());
}

#[tokio::test]
async fn a_token_outlives_what_is_said_of_it() {
    let gate = Gate::open().await;
    let made = gate.key("messages:send").await;
    let caller = gate.tenancy.prove(&made.secret).await.unwrap();
    let token = gate.tenancy.issue_drop_in_token(&caller, &appid()).unwrap();
    gate.time.advance(Duration::from_secs(7200 + 299));
    assert!(
        gate.tenancy
            .authenticate_drop_in(token.expose())
            .await
            .is_ok()
    );
    gate.time.advance(Duration::from_secs(1));
    let late = gate.tenancy.authenticate_drop_in(token.expose()).await;
    assert_eq!(late.unwrap_err(), AuthError::Expired);
}

#[tokio::test]
async fn the_two_kinds_of_token_do_not_open_each_others_doors() {
    let gate = Gate::open().await;
    let made = gate.key("messages:send").await;
    let caller = gate.tenancy.prove(&made.secret).await.unwrap();
    let drop_in = gate.tenancy.issue_drop_in_token(&caller, &appid()).unwrap();
    let bearer = gate.token(&made.secret).await;
    // First, the cache of each kind holds the token of that kind as verified.
    gate.tenancy
        .authenticate_drop_in(drop_in.expose())
        .await
        .unwrap();
    gate.tenancy.authenticate(&bearer).await.unwrap();

    let at_v1 = gate.tenancy.authenticate(drop_in.expose()).await;
    assert_eq!(at_v1.unwrap_err(), AuthError::Malformed);
    let at_wechat = gate.tenancy.authenticate_drop_in(&bearer).await;
    assert_eq!(at_wechat.unwrap_err(), AuthError::Malformed);
    let mut spoiled = drop_in.expose().to_owned();
    spoiled.replace_range(spoiled.len() - 8..spoiled.len() - 4, "AAAA");
    let spoiled = gate.tenancy.authenticate_drop_in(&spoiled).await;
    assert_eq!(spoiled.unwrap_err(), AuthError::Malformed);
    let none = gate.tenancy.authenticate_drop_in("").await;
    assert_eq!(none.unwrap_err(), AuthError::Missing);
}

#[tokio::test]
async fn a_revoked_key_ends_its_tokens_and_gets_no_more() {
    let gate = Gate::open().await;
    let made = gate.key("messages:send").await;
    let caller = gate.tenancy.prove(&made.secret).await.unwrap();
    let token = gate.tenancy.issue_drop_in_token(&caller, &appid()).unwrap();
    let owner = wxgate_tenancy::KeyOwner::Tenant(made.key.tenant.unwrap());
    gate.tenancy
        .revoke_key(owner, made.key.id, Descendants::Revoke)
        .await
        .unwrap();
    let refused = gate.tenancy.authenticate_drop_in(token.expose()).await;
    assert_eq!(refused.unwrap_err(), AuthError::Revoked);
    let refused = gate.tenancy.prove(&made.secret).await;
    assert!(matches!(refused, Err(OauthError::InvalidClient(_))));
}
