//! Requests that may be repeated under an `Idempotency-Key`, with a JSON body or without.

use axum::extract::{FromRequest, FromRequestParts, Request};
use http::{HeaderMap, HeaderName, request::Parts};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use store::IdempotencyKey;
use utoipa::IntoParams;

use super::json::{json_bytes, parse};
use crate::{guard::Authorized, problem::Problem};

pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const LONGEST: usize = 255;

/// A JSON body and the idempotency key of the request.
#[derive(Debug)]
pub(crate) struct Keyed<T> {
    pub(crate) body: T,
    pub(crate) key: Option<IdempotencyKey>,
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Keyed<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let name = key_text(request.headers())?;
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let bytes = json_bytes(request, state).await?;
        let key = name.map(|name| key(name, method.as_str(), &path, &bytes));
        Ok(Self {
            body: parse(&bytes)?,
            key,
        })
    }
}

/// The idempotency key of a request without a body.
#[derive(Debug)]
pub(crate) struct BareKey(pub(crate) Option<IdempotencyKey>);

impl<S: Send + Sync> FromRequestParts<S> for BareKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let name = key_text(&parts.headers)?;
        let (method, path) = (parts.method.as_str(), parts.uri.path());
        Ok(Self(name.map(|name| key(name, method, path, b""))))
    }
}

impl Authorized {
    /// The key for an answer with a secret: a repeat shows the secret only to the API key that made the request, and
    /// only with the scopes of the first request. Another key of the tenant, or a token with fewer scopes, may have
    /// fewer scopes than the secret gives.
    pub(crate) fn own(&self, key: Option<IdempotencyKey>) -> Option<IdempotencyKey> {
        key.map(|key| IdempotencyKey {
            fingerprint: Sha256::new()
                .chain_update(key.fingerprint)
                .chain_update(self.0.key.to_string())
                .chain_update(self.0.scopes.to_string())
                .finalize()
                .into(),
            ..key
        })
    }
}

/// `Idempotency-Key` in the OpenAPI document.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(
    dead_code,
    reason = "describes a header that `Keyed` and `BareKey` read"
)]
pub(crate) struct Repeat {
    /// 1 to 255 visible ASCII characters that stand for this request. A repeat of the same request within 24 hours does
    /// nothing again and gets the first answer.
    #[param(
        rename = "Idempotency-Key",
        min_length = 1,
        max_length = 255,
        example = "order-42"
    )]
    idempotency_key: Option<String>,
}

fn key(name: String, method: &str, path: &str, body: &[u8]) -> IdempotencyKey {
    IdempotencyKey {
        key: name,
        fingerprint: fingerprint(method, path, body),
        kept_for: IdempotencyKey::DAY,
    }
}

/// The digest that makes two requests the same: method, path and every byte of the body.
fn fingerprint(method: &str, path: &str, body: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in [method.as_bytes(), b"\n", path.as_bytes(), b"\n", body] {
        hash.update(part);
    }
    hash.finalize().into()
}

/// The key in the headers; `None` if absent.
pub(crate) fn key_text(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default();
    let visible =
        (1..=LONGEST).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if visible && values.next().is_none() {
        Ok(Some(text.to_owned()))
    } else {
        let rule = format!(
            "send one Idempotency-Key of 1 to {LONGEST} visible ASCII characters, such as a UUID"
        );
        Err(Problem::invalid_request(rule))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_visible_ascii() {
        let key = |text: &[u8]| {
            key_text(&HeaderMap::from_iter([(
                IDEMPOTENCY_KEY,
                http::HeaderValue::from_bytes(text).unwrap(),
            )]))
        };
        assert_eq!(key(b"order-42").unwrap().as_deref(), Some("order-42"));
        assert!(key(&[b'x'; 255]).is_ok() && key(&[b'x'; 256]).is_err());
        for wrong in [&b""[..], b"a b", "é".as_bytes()] {
            assert!(key(wrong).is_err());
        }
        assert!(key_text(&HeaderMap::new()).unwrap().is_none());
    }

    #[test]
    fn every_part_of_the_request_counts() {
        let base = fingerprint("POST", "/a", b"{}");
        for other in [
            fingerprint("PUT", "/a", b"{}"),
            fingerprint("POST", "/b", b"{}"),
            fingerprint("POST", "/a", b"{ }"),
        ] {
            assert_ne!(base, other);
        }
    }
}
