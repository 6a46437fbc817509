//! Standing: how soon a change takes effect, and the behaviour during an outage.

use domain::tenant::TenantStatus;
use store::SigningKey;
use wxgate_tenancy::{AuthError, Descendants, KeyOwner, TenancyError, TenancyOptions, TenantPatch};

use crate::gate::{Gate, URL, first, master_key, start};

fn status(status: TenantStatus) -> TenantPatch {
    TenantPatch {
        status: Some(status),
        ..TenantPatch::default()
    }
}

#[tokio::test]
async fn a_revoked_key_is_refused_everywhere_within_five_seconds() {
    let gate = Gate::open().await;
    let made = gate.key("apps:read").await;
    let token = gate.token(&made.secret).await;
    let replica = gate.replica().await;
    assert!(gate.tenancy.authenticate(&token).await.is_ok());
    assert!(replica.authenticate(&token).await.is_ok());

    let owner = KeyOwner::Tenant(made.key.tenant.unwrap());
    gate.tenancy
        .revoke_key(owner, made.key.id, Descendants::Revoke)
        .await
        .unwrap();
    assert_eq!(
        gate.tenancy.authenticate(&token).await,
        Err(AuthError::Revoked)
    );
    gate.pass(3);
    assert_eq!(replica.authenticate(&token).await, Err(AuthError::Revoked));
    assert_eq!(
        replica
            .issue_token(None, &made.secret, None)
            .await
            .unwrap_err()
            .code(),
        "invalid_client"
    );
}

#[tokio::test]
async fn a_suspended_tenant_stays_out_until_it_is_resumed() {
    let gate = Gate::open().await;
    let made = gate.key("apps:read").await;
    let tenant = made.key.tenant.unwrap();
    let token = gate.token(&made.secret).await;
    let replica = gate.replica().await;
    assert!(replica.authenticate(&token).await.is_ok());

    gate.tenancy
        .update_tenant(tenant, status(TenantStatus::Suspended))
        .await
        .unwrap();
    assert_eq!(
        gate.tenancy.authenticate(&token).await,
        Err(AuthError::Suspended)
    );
    let refused = gate
        .tenancy
        .issue_token(None, &made.secret, None)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), "invalid_client");
    gate.pass(3);
    assert_eq!(
        replica.authenticate(&token).await,
        Err(AuthError::Suspended)
    );

    gate.tenancy
        .update_tenant(tenant, status(TenantStatus::Active))
        .await
        .unwrap();
    gate.pass(3);
    assert!(gate.tenancy.authenticate(&token).await.is_ok());
    assert!(replica.authenticate(&token).await.is_ok());
}

#[tokio::test]
async fn the_last_standing_counts_for_a_minute_without_the_database() {
    let gate = Gate::open().await;
    let made = gate.key("apps:read").await;
    let token = gate.token(&made.secret).await;
    let fresh = gate.key("apps:read").await;
    assert!(gate.tenancy.authenticate(&token).await.is_ok());

    gate.store.clone().close().await.unwrap();
    for _ in 0..5 {
        gate.pass(11);
        assert!(gate.tenancy.authenticate(&token).await.is_ok());
    }
    gate.pass(5);
    assert_eq!(
        gate.tenancy.authenticate(&token).await,
        Err(AuthError::Unavailable)
    );
    let refused = gate
        .tenancy
        .issue_token(None, &fresh.secret, None)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), "temporarily_unavailable");
    let refused = gate.tenancy.tenants(&first(1)).await.unwrap_err();
    assert!(matches!(refused, TenancyError::Store(_)), "{refused:?}");
}

#[tokio::test]
async fn use_is_noted() {
    let gate = Gate::open().await;
    let made = gate.key("apps:read").await;
    gate.token(&made.secret).await;
    let owner = KeyOwner::Tenant(made.key.tenant.unwrap());
    let listed = gate.tenancy.keys(owner, &first(9)).await.unwrap().items;
    assert_eq!(listed[0].last_used_at, Some(start()));
}

#[tokio::test]
async fn a_wrong_master_key_is_told() {
    let gate = Gate::open().await;
    let refused = gate
        .start(master_key(2), TenancyOptions::at(URL))
        .await
        .unwrap_err();
    assert!(matches!(refused, TenancyError::MasterKey(_)));
    assert!(
        refused
            .to_string()
            .contains("set WXGATE_MASTER_KEY to the key of this database")
    );
}

#[tokio::test]
async fn replicas_share_their_signing_keys() {
    let gate = Gate::open().await;
    let made = gate.key("apps:read").await;
    let of_first = gate.token(&made.secret).await;

    // Another replica has created the next key, which the first replica does not know.
    let elsewhere = Gate::open().await;
    let second = elsewhere
        .store
        .platform()
        .newest_signing_key()
        .await
        .unwrap();
    let second = SigningKey {
        created_at: start() + chrono::TimeDelta::seconds(1),
        ..second
    };
    let platform = gate.store.platform();
    let first = platform.newest_signing_key().await.unwrap();
    let retire_at = start() + chrono::TimeDelta::hours(1);
    let succeeded = platform.succeed_signing_key(&first.kid, &second, retire_at);
    assert!(succeeded.await.unwrap());
    let replica = gate.replica().await;
    let issued = replica.issue_token(None, &made.secret, None).await.unwrap();
    let of_second = issued.access_token.expose();
    assert_eq!(
        jsonwebtoken::decode_header(of_second).unwrap().kid,
        Some(second.kid)
    );

    assert!(replica.authenticate(&of_first).await.is_ok());
    assert!(gate.tenancy.authenticate(of_second).await.is_ok());
    assert_eq!(gate.tenancy.jwks().await, replica.jwks().await);
}
