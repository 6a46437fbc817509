//! Access tokens: content, and the checks of a token.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use domain::{scope::Scope, seal::SealOwner};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, jwk::JwkSet};
use serde_json::{Value, json};
use wxgate_tenancy::{AuthError, TenancyOptions};

use crate::gate::{Gate, URL, master_key, start};

#[tokio::test]
async fn a_token_says_what_rfc_9068_asks_for() {
    let gate = Gate::open().await;
    let made = gate.key("messages:send messages:read").await;
    let issued = gate
        .tenancy
        .issue_token(None, &made.secret, None)
        .await
        .unwrap();
    assert_eq!((issued.expires_in, issued.scope), (900, made.key.scopes));

    let token = issued.access_token.expose();
    let header = part(token, 0);
    assert_eq!(
        (&header["alg"], &header["typ"]),
        (&json!("EdDSA"), &json!("at+jwt"))
    );
    let claims = part(token, 1);
    let client = made.key.id.to_string();
    for (claim, value) in [
        ("iss", json!(URL)),
        ("aud", json!(URL)),
        ("sub", json!(client)),
        ("client_id", json!(client)),
        ("tenant", json!(made.key.tenant.unwrap().to_string())),
        ("scope", json!("messages:send messages:read")),
        ("iat", json!(start().timestamp())),
        ("exp", json!(start().timestamp() + 900)),
    ] {
        assert_eq!(claims[claim], value, "{claim}");
    }
    assert!(claims["jti"].as_str().unwrap().len() >= 22);

    let caller = gate.tenancy.authenticate(token).await.unwrap();
    assert_eq!(
        (caller.key, caller.tenant, caller.scopes),
        (made.key.id, made.key.tenant, made.key.scopes)
    );
    assert!(
        caller.require(Scope::MessagesSend).is_ok() && caller.require(Scope::AppsRead).is_err()
    );
}

#[tokio::test]
async fn anybody_can_verify_with_the_published_keys() {
    let gate = Gate::open().await;
    let token = gate.token(&gate.key("apps:read").await.secret).await;
    let keys: JwkSet = serde_json::from_value(gate.tenancy.jwks().await).unwrap();
    let kid = jsonwebtoken::decode_header(&token).unwrap().kid.unwrap();
    let key = DecodingKey::from_jwk(keys.find(&kid).unwrap()).unwrap();
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_audience(&[URL]);
    // The check of `exp` in `jsonwebtoken` needs numbers, and serde_json here keeps the text of each number.
    validation.set_required_spec_claims(&["aud"]);
    validation.validate_exp = false;
    assert!(jsonwebtoken::decode::<Value>(&token, &key, &validation).is_ok());
    assert_eq!(
        gate.tenancy.metadata()["token_endpoint"],
        json!(format!("{URL}/oauth/token"))
    );
    assert!(!gate.tenancy.jwks().await.to_string().contains("\"d\""));
}

#[tokio::test]
async fn a_scope_can_be_narrowed_and_not_widened() {
    let gate = Gate::open().await;
    let made = gate.key("messages:send messages:read").await;
    let ask = async |scope| {
        gate.tenancy
            .issue_token(None, &made.secret, Some(scope))
            .await
    };
    let narrow = ask("messages:read").await.unwrap();
    assert_eq!(narrow.scope.to_string(), "messages:read");
    let caller = gate
        .tenancy
        .authenticate(narrow.access_token.expose())
        .await
        .unwrap();
    assert!(caller.require(Scope::MessagesSend).is_err());
    assert_eq!(ask("").await.unwrap().scope, made.key.scopes);

    for scope in [
        "messages:send apps:read",
        "operator",
        "messages:fly",
        "\"é\\",
    ] {
        let refused = ask(scope).await.unwrap_err();
        assert_eq!(refused.code(), "invalid_scope");
        let legal = |c: char| c.is_ascii() && !c.is_control() && c != '"' && c != '\\';
        assert!(
            refused.description().chars().all(legal),
            "{}",
            refused.description()
        );
    }
}

#[tokio::test]
async fn a_token_ends_after_a_quarter_of_an_hour() {
    let gate = Gate::open().await;
    let token = gate.token(&gate.key("apps:read").await.secret).await;
    gate.pass(900 + 29);
    assert!(gate.tenancy.authenticate(&token).await.is_ok());
    gate.pass(1);
    assert_eq!(
        gate.tenancy.authenticate(&token).await,
        Err(AuthError::Expired)
    );
    assert_eq!(
        gate.replica().await.authenticate(&token).await,
        Err(AuthError::Expired)
    );
}

#[tokio::test]
async fn a_changed_token_is_refused() {
    let gate = Gate::open().await;
    let token = gate.token(&gate.key("apps:read").await.secret).await;
    let parts: Vec<&str> = token.split('.').collect();
    let mut claims = part(&token, 1);
    claims["scope"] = json!("operator");
    let none = encode(&json!({ "alg": "none", "typ": "at+jwt" }));
    let garbage = "x".repeat(100_000);
    for wrong in [
        format!("{}.{}.{}", parts[0], encode(&claims), parts[2]),
        format!(
            "{}.{}.{}",
            parts[0],
            parts[1],
            parts[2].chars().rev().collect::<String>()
        ),
        format!("{}.{}.", parts[0], parts[1]),
        format!("{none}.{}.", parts[1]),
        format!("{none}.{}.{}", parts[1], parts[2]),
        format!("{token}."),
        "a.b.c".into(),
        garbage,
    ] {
        assert_eq!(
            gate.tenancy.authenticate(&wrong).await,
            Err(AuthError::Malformed),
            "{wrong:.80}"
        );
    }
    assert_eq!(gate.tenancy.authenticate("").await, Err(AuthError::Missing));
}

#[tokio::test]
async fn the_public_key_is_no_hmac_secret() {
    let gate = Gate::open().await;
    let token = gate.token(&gate.key("apps:read").await.secret).await;
    let jwks = gate.tenancy.jwks().await;
    let x = jwks["keys"][0]["x"].as_str().unwrap();
    let raw = BASE64_URL_SAFE_NO_PAD.decode(x).unwrap();
    let mut header = Header::new(Algorithm::HS256);
    header.typ = Some("at+jwt".into());
    header.kid = jsonwebtoken::decode_header(&token).unwrap().kid;
    for secret in [x.as_bytes(), &raw] {
        let forged =
            jsonwebtoken::encode(&header, &part(&token, 1), &EncodingKey::from_secret(secret))
                .unwrap();
        assert_eq!(
            gate.tenancy.authenticate(&forged).await,
            Err(AuthError::Malformed)
        );
    }
}

#[tokio::test]
async fn a_true_signature_on_another_kind_of_token_is_not_enough() {
    let gate = Gate::open().await;
    let token = gate.token(&gate.key("apps:read").await.secret).await;
    let claims = part(&token, 1);
    let key = signing_key(&gate).await;
    let forge = |typ: Option<&str>, kid: &str, change: &[(&str, Value)]| {
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = typ.map(str::to_owned);
        header.kid = Some(kid.to_owned());
        let mut claims = claims.clone();
        for (claim, value) in change {
            claims[*claim] = value.clone();
        }
        jsonwebtoken::encode(&header, &claims, &key.1).unwrap()
    };
    let (now, kid) = (start().timestamp(), key.0.as_str());
    let fine = forge(Some("application/at+jwt"), kid, &[("nbf", json!(now + 20))]);
    assert!(gate.tenancy.authenticate(&fine).await.is_ok());

    for wrong in [
        forge(Some("JWT"), kid, &[]),
        forge(None, kid, &[]),
        forge(Some("at+jwt"), "unknown", &[]),
        forge(
            Some("at+jwt"),
            kid,
            &[("aud", json!("https://elsewhere.example"))],
        ),
        forge(
            Some("at+jwt"),
            kid,
            &[("iss", json!("https://elsewhere.example"))],
        ),
        forge(Some("at+jwt"), kid, &[("exp", json!("soon"))]),
        forge(
            Some("at+jwt"),
            kid,
            &[("sub", json!("ten_00000000000000000000000000"))],
        ),
    ] {
        assert_eq!(
            gate.tenancy.authenticate(&wrong).await,
            Err(AuthError::Malformed),
            "{:?}",
            part(&wrong, 1)
        );
    }
    let early = forge(Some("at+jwt"), kid, &[("nbf", json!(now + 31))]);
    assert_eq!(
        gate.tenancy.authenticate(&early).await,
        Err(AuthError::Expired)
    );
    let nobody = forge(
        Some("at+jwt"),
        kid,
        &[("sub", json!("key_00000000000000000000000000"))],
    );
    assert_eq!(
        gate.tenancy.authenticate(&nobody).await,
        Err(AuthError::Revoked)
    );
}

#[tokio::test]
async fn another_gateways_tokens_are_refused() {
    let gate = Gate::open().await;
    let made = gate.key("apps:read").await;
    let other = gate
        .start(master_key(1), TenancyOptions::at("https://other.example/"))
        .await
        .unwrap();
    let issued = other.issue_token(None, &made.secret, None).await.unwrap();
    assert!(
        other
            .authenticate(issued.access_token.expose())
            .await
            .is_ok()
    );
    assert_eq!(
        gate.tenancy
            .authenticate(issued.access_token.expose())
            .await,
        Err(AuthError::Malformed)
    );
}

/// The private signing key, as an attacker with the database and the master key would get the key.
async fn signing_key(gate: &Gate) -> (String, EncodingKey) {
    let key = gate.store.platform().newest_signing_key().await.unwrap();
    let pem = master_key(1)
        .open(&SealOwner::signing_key(&key.kid), &key.private_sealed)
        .unwrap();
    (key.kid, EncodingKey::from_ed_pem(pem.as_bytes()).unwrap())
}

fn part(token: &str, number: usize) -> Value {
    let text = token.split('.').nth(number).unwrap();
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap()
}

fn encode(value: &Value) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(value.to_string())
}
