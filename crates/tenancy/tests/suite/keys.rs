//! Keys: client secrets, and the rules for creating keys.

use chrono::TimeDelta;
use domain::{scope::ScopeSet, secret::ClientSecret};
use wxgate_tenancy::{Caller, Descendants, KeyOwner, NewKey, OauthError, TenancyError};

use crate::gate::{Gate, ask, first, start};

#[tokio::test]
async fn a_secret_is_shown_once_and_proves_its_key() {
    let gate = Gate::open().await;
    let made = gate.key("messages:send").await;
    let secret = made.secret.expose();
    assert!(secret.starts_with("wxg_") && secret.len() == 69, "{secret}");

    let id = made.key.id.to_string();
    for client_id in [None, Some(id.as_str())] {
        assert!(
            gate.tenancy
                .issue_token(client_id, &made.secret, None)
                .await
                .is_ok()
        );
    }

    let owner = KeyOwner::Tenant(made.key.tenant.unwrap());
    let listed = gate.tenancy.keys(owner, &first(9)).await.unwrap().items;
    assert_eq!(listed.len(), 1);
    let kept = gate.store.platform().credential(made.key.id).await.unwrap();
    let shown = format!("{made:?} {listed:?} {kept:?}");
    assert!(!shown.contains(secret) && kept.secret_hash != secret.as_bytes());
}

#[tokio::test]
async fn a_wrong_secret_is_an_invalid_client() {
    let (gate, elsewhere) = (Gate::open().await, Gate::open().await);
    let (one, two) = (gate.key("apps:read").await, gate.key("apps:read").await);
    let stranger = elsewhere.key("apps:read").await;
    let mut mistyped = one.secret.expose().to_owned();
    mistyped.replace_range(40..41, if &mistyped[40..41] == "0" { "1" } else { "0" });

    let id = one.key.id.to_string();
    let wrong = [
        (None, ClientSecret::new(mistyped)),
        (None, stranger.secret),
        (Some(id.as_str()), two.secret),
    ];
    for (client_id, secret) in wrong {
        let refused = gate
            .tenancy
            .issue_token(client_id, &secret, None)
            .await
            .unwrap_err();
        assert_eq!(refused.code(), "invalid_client", "{refused}");
    }
    let refused = gate
        .tenancy
        .issue_token(None, &ClientSecret::new(""), None)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), "invalid_request");
    let refused = gate
        .tenancy
        .issue_token(Some("key_nobody"), &one.secret, None)
        .await
        .unwrap_err();
    assert!(matches!(refused, OauthError::InvalidClient(_)));
}

#[tokio::test]
async fn nobody_hands_out_more_than_they_have() {
    let gate = Gate::open().await;
    let made = gate.key("keys:write messages:send").await;
    let owner = KeyOwner::Tenant(made.key.tenant.unwrap());
    let caller = gate
        .tenancy
        .authenticate(&gate.token(&made.secret).await)
        .await
        .unwrap();

    assert!(
        gate.tenancy
            .create_key(owner, ask("messages:send"), Some(&caller))
            .await
            .is_ok()
    );
    let refused = gate
        .tenancy
        .create_key(owner, ask("messages:send tokens:read"), Some(&caller))
        .await;
    let Err(TenancyError::Escalation(beyond)) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(beyond, "tokens:read".parse().unwrap());
    let refused = gate
        .tenancy
        .create_key(owner, ask("operator"), Some(&caller))
        .await
        .unwrap_err();
    assert!(
        matches!(refused, TenancyError::Escalation(_)),
        "{refused:?}"
    );

    // With a narrowed token, a caller creates only keys with these narrow scopes.
    let narrow = gate
        .tenancy
        .issue_token(None, &made.secret, Some("keys:write"))
        .await
        .unwrap();
    let caller = gate
        .tenancy
        .authenticate(narrow.access_token.expose())
        .await
        .unwrap();
    assert!(
        gate.tenancy
            .create_key(owner, ask("messages:send"), Some(&caller))
            .await
            .is_err()
    );

    // A caller creates no key for another owner, not even one with the same scopes.
    let other = KeyOwner::Tenant(gate.tenant().await);
    for owner in [other, KeyOwner::Operator] {
        let refused = gate
            .tenancy
            .create_key(owner, ask("keys:write"), Some(&caller))
            .await
            .unwrap_err();
        assert!(matches!(refused, TenancyError::NotFound(_)), "{refused:?}");
    }
}

#[tokio::test]
async fn no_key_makes_one_that_outlives_it() {
    let gate = Gate::open().await;
    let tenant = KeyOwner::Tenant(gate.tenant().await);
    let end = start() + TimeDelta::hours(1);
    for (owner, scopes) in [
        (tenant, "keys:write apps:read"),
        (KeyOwner::Operator, "operator"),
    ] {
        for ends in [Some(end), None] {
            let maker = NewKey {
                expires_at: ends,
                ..ask(scopes)
            };
            let maker = gate.tenancy.create_key(owner, maker, None).await.unwrap();
            let token = gate.token(&maker.secret).await;
            let caller = gate.tenancy.authenticate(&token).await.unwrap();
            let make = async |expires_at| {
                let new = NewKey {
                    expires_at,
                    ..ask("apps:read")
                };
                let made = gate.tenancy.create_key(tenant, new, Some(&caller)).await;
                made.map(|made| made.key.expires_at)
            };
            assert_eq!(make(None).await.unwrap(), ends);
            for sooner in [end - TimeDelta::minutes(1), end] {
                assert_eq!(make(Some(sooner)).await.unwrap(), Some(sooner));
            }
            let later = end + TimeDelta::milliseconds(1);
            match make(Some(later)).await {
                Err(TenancyError::Invalid(violations)) if ends.is_some() => {
                    assert_eq!(violations[0].pointer, "/expires_at");
                }
                Ok(kept) if ends.is_none() => assert_eq!(kept, Some(later)),
                other => panic!("{ends:?}: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn an_operator_may_give_any_scope() {
    let gate = Gate::open().await;
    let made = gate
        .tenancy
        .create_key(KeyOwner::Operator, ask("operator"), None)
        .await
        .unwrap();
    let caller: Caller = gate
        .tenancy
        .authenticate(&gate.token(&made.secret).await)
        .await
        .unwrap();
    assert_eq!(caller.tenant, None);
    let owner = KeyOwner::Tenant(gate.tenant().await);
    let request = NewKey {
        scopes: ScopeSet::tenant(),
        ..ask("")
    };
    assert!(
        gate.tenancy
            .create_key(owner, request, Some(&caller))
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn a_request_that_breaks_rules_is_told_all_of_them() {
    let gate = Gate::open().await;
    let owner = KeyOwner::Tenant(gate.tenant().await);
    let request = NewKey {
        name: " ".into(),
        expires_at: Some(start()),
        ..ask("operator")
    };
    let Err(TenancyError::Invalid(violations)) =
        gate.tenancy.create_key(owner, request, None).await
    else {
        panic!("accepted");
    };
    let pointers: Vec<_> = violations
        .iter()
        .map(|violation| violation.pointer.as_str())
        .collect();
    assert_eq!(pointers, ["/name", "/scopes", "/expires_at"]);
    for (owner, scopes) in [(owner, ""), (KeyOwner::Operator, "apps:read")] {
        let refused = gate
            .tenancy
            .create_key(owner, ask(scopes), None)
            .await
            .unwrap_err();
        assert!(matches!(refused, TenancyError::Invalid(_)), "{refused:?}");
    }
}

#[tokio::test]
async fn a_key_ends_when_it_expires() {
    let gate = Gate::open().await;
    let owner = KeyOwner::Tenant(gate.tenant().await);
    let request = NewKey {
        expires_at: Some(start() + TimeDelta::seconds(60)),
        ..ask("apps:read")
    };
    let made = gate.tenancy.create_key(owner, request, None).await.unwrap();
    let token = gate.token(&made.secret).await;
    gate.pass(60);
    assert!(gate.tenancy.authenticate(&token).await.is_err());
    let refused = gate
        .tenancy
        .issue_token(None, &made.secret, None)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), "invalid_client");
}

#[tokio::test]
async fn keys_are_revoked_by_their_owner_alone() {
    let gate = Gate::open().await;
    let made = gate.key("apps:read").await;
    let owner = KeyOwner::Tenant(made.key.tenant.unwrap());
    for stranger in [KeyOwner::Operator, KeyOwner::Tenant(gate.tenant().await)] {
        let refused = gate
            .tenancy
            .revoke_key(stranger, made.key.id, Descendants::Revoke)
            .await
            .unwrap_err();
        assert!(matches!(refused, TenancyError::NotFound(_)), "{refused:?}");
    }
    for _ in 0..2 {
        gate.tenancy
            .revoke_key(owner, made.key.id, Descendants::Revoke)
            .await
            .unwrap();
    }
    let listed = gate.tenancy.keys(owner, &first(9)).await.unwrap().items;
    assert_eq!(listed[0].revoked_at, Some(start()));
}
