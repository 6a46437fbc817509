//! Addresses that fail to prove who they are.

use std::net::IpAddr;

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

/// How many failures of `ask` are answered before the address is refused, and what it is told to wait.
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

    // Nobody new gets in from there, and who got in before still does; elsewhere nothing has changed.
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
