//! Addresses that fail to authenticate.

use std::net::IpAddr;

use base64::Engine;
use domain::secret::ClientSecret;
use store::{Actor, AuditFilter, Origin};
use wxgate_tenancy::{AuthError, OauthError, Tenancy};

use crate::gate::{Gate, first};

fn from(tenancy: &Tenancy, address: &str) -> Tenancy {
    let address: IpAddr = address.parse().unwrap();
    tenancy.by(Origin {
        address: Some(address),
        request_id: Some("r-1".into()),
        ..Origin::GATEWAY
    })
}

/// The number of failures of `ask` before the address is refused, and the wait in seconds that the refusal names.
async fn failures<E: Copy>(
    ask: impl AsyncFn() -> E,
    wait: impl Fn(&E) -> Option<u64>,
) -> (u32, u64) {
    for answered in 0..1000 {
        if let Some(seconds) = wait(&ask().await) {
            return (answered, seconds);
        }
    }
    panic!("never refused");
}

#[tokio::test]
async fn who_fails_too_often_is_refused_and_others_are_not() {
    let gate = Gate::open().await;
    let (good, other) = (gate.key("apps:read").await, gate.key("apps:read").await);
    let here = from(&gate.tenancy, "192.0.2.1");
    assert!(here.issue_token(None, &good.secret, None).await.is_ok());

    // The id of one key with the secret of another.
    let wrong = good.key.id.to_string();
    let ask = async || {
        let refused = here.issue_token(Some(&wrong), &other.secret, None).await;
        match refused.unwrap_err() {
            OauthError::TooOften(wait) => Some(wait.as_secs()),
            error => {
                assert_eq!(error.code(), "invalid_client");
                None
            }
        }
    };
    assert_eq!(failures(ask, |wait| *wait).await, (20, 6));

    // From there a new client is refused, and a client that succeeded before passes; other addresses are not affected.
    let refused = here.issue_token(None, &other.secret, None).await;
    assert_eq!(refused.unwrap_err().code(), "rate_limited");
    assert!(here.issue_token(None, &good.secret, None).await.is_ok());
    let elsewhere = from(&gate.tenancy, "192.0.2.2");
    assert!(
        elsewhere
            .issue_token(None, &other.secret, None)
            .await
            .is_ok()
    );

    gate.pass(6);
    assert!(here.issue_token(None, &other.secret, None).await.is_ok());
}

/// One replica gets many bad secrets, then the secret of a key that was proven at another replica.
#[tokio::test]
async fn who_was_proven_at_one_replica_is_let_in_at_all() {
    let gate = Gate::open().await;
    let (good, new) = (gate.key("apps:read").await, gate.key("apps:read").await);
    let other = gate.close_replica().await;
    let [here, there] = [&gate.tenancy, &other].map(|tenancy| from(tenancy, "192.0.2.1"));
    assert!(here.issue_token(None, &good.secret, None).await.is_ok());
    let wrong = good.key.id.to_string();
    // Far more than the limit, and the clock stands still.
    for _ in 0..150 {
        let refused = there.issue_token(Some(&wrong), &new.secret, None).await;
        refused.unwrap_err();
    }
    assert!(there.issue_token(None, &good.secret, None).await.is_ok());
    let refused = there.issue_token(None, &new.secret, None).await;
    assert_eq!(refused.unwrap_err().code(), "rate_limited");
    // The key was not proven from the other address.
    let elsewhere = from(&other, "192.0.2.2");
    for _ in 0..25 {
        let refused = elsewhere.issue_token(Some(&wrong), &new.secret, None).await;
        refused.unwrap_err();
    }
    let refused = elsewhere.issue_token(None, &good.secret, None).await;
    assert_eq!(refused.unwrap_err().code(), "rate_limited");
}

/// Tokens that claim to have been issued a moment ago, by an unknown signing key: clients must not fetch new tokens
/// because of these.
#[tokio::test]
async fn forged_tokens_that_look_new_are_counted() {
    let gate = Gate::open().await;
    let made = gate.key("messages:send").await;
    let caller = gate.tenancy.prove(&made.secret).await.unwrap();
    let appid = domain::app::AppId::parse("wx00000000000000a1").unwrap();
    let good = gate.tenancy.issue_drop_in_token(&caller, &appid).unwrap();
    let here = from(&gate.tenancy, "192.0.2.1");
    let claims = good.expose().split('.').nth(1).unwrap();
    let header = r#"{"typ":"wechat+jwt","alg":"EdDSA","kid":"forged"}"#;
    let header = base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(header);
    let forged = format!("{header}.{claims}.AAAA");
    let ask = async || here.authenticate_drop_in(&forged).await.unwrap_err();
    let wait = |error: &AuthError| match error {
        AuthError::TooOften(wait) => Some(wait.as_secs()),
        error => {
            assert_eq!(*error, AuthError::Unavailable);
            None
        }
    };
    assert_eq!(failures(ask, wait).await, (120, 1));
    assert!(here.authenticate_drop_in(good.expose()).await.is_ok());
}

#[tokio::test]
async fn tokens_that_are_none_are_refused_and_good_ones_pass() {
    let gate = Gate::open().await;
    let good = gate.token(&gate.key("apps:read").await.secret).await;
    let here = from(&gate.tenancy, "2001:db8::1");
    let ask = async || here.authenticate("no.token.atall").await.unwrap_err();
    let wait = |error: &AuthError| match error {
        AuthError::TooOften(wait) => Some(wait.as_secs()),
        _ => None,
    };
    assert_eq!(failures(ask, wait).await, (120, 1));
    let neighbour = from(&gate.tenancy, "2001:db8::2");
    let refused = neighbour.authenticate("").await;
    assert!(
        matches!(refused, Err(AuthError::TooOften(_))),
        "{refused:?}"
    );
    assert!(here.authenticate(&good).await.is_ok());
    let elsewhere = from(&gate.tenancy, "2001:db8:0:1::1");
    assert_eq!(elsewhere.authenticate("").await, Err(AuthError::Missing));
}

#[tokio::test]
async fn many_tokens_are_fetched_and_endlessly_many_are_not() {
    let gate = Gate::open().await;
    let made = gate.key("apps:read").await;
    let here = from(&gate.tenancy, "192.0.2.1");
    for _ in 0..600 {
        assert!(here.issue_token(None, &made.secret, None).await.is_ok());
    }
    let refused = here.issue_token(None, &made.secret, None).await;
    assert_eq!(refused.unwrap_err().code(), "rate_limited");
}

#[tokio::test]
async fn failures_of_a_key_are_on_record_and_do_not_fill_the_log() {
    let gate = Gate::open().await;
    let made = gate.key("apps:read").await;
    let other = gate.key("apps:read").await;
    let id = made.key.id.to_string();
    let mistyped = ClientSecret::new("wxg_mistyped");
    for number in 0..30 {
        let here = from(&gate.tenancy, &format!("192.0.2.{number}"));
        let wrong = here.issue_token(Some(&id), &mistyped, None).await;
        assert_eq!(wrong.unwrap_err().code(), "invalid_client");
    }
    let lines = async |tenant, action: &str| {
        let filter = AuditFilter {
            action: Some(action.into()),
            ..AuditFilter::default()
        };
        let listed = gate.tenancy.audit(Some(tenant), &filter, &first(99)).await;
        listed.unwrap().items
    };
    let tenant = made.key.tenant.unwrap();
    let failed = lines(tenant, "token.issue").await;
    assert_eq!(failed.len(), 10);
    let oldest = &failed.last().unwrap().line;
    assert_eq!(oldest.actor, Actor::Key(made.key.id).to_string());
    assert_eq!(
        (oldest.outcome.as_str(), oldest.address.as_deref()),
        ("refused", Some("192.0.2.0"))
    );
    assert_eq!(oldest.request_id.as_deref(), Some("r-1"));
    assert_eq!(lines(other.key.tenant.unwrap(), "token.issue").await, []);
    assert_eq!(lines(tenant, "key.create").await.len(), 1);
}
