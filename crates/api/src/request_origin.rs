//! What the layers know about a request: id, origin, proof and encoding.

use axum::{body::HttpBody, extract::Request};
use http::{Extensions, HeaderName, header};
use store::Origin;
use tenancy::ProvenMarker;

/// The header with the request's id.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id of the request: the caller's own id if that id is valid, else a random one.
#[derive(Debug)]
pub(crate) struct RequestId(pub(crate) String);

impl RequestId {
    /// The id for `request`.
    pub(crate) fn of(request: &Request) -> Self {
        let theirs = request
            .headers()
            .get(REQUEST_ID)
            .and_then(|value| value.to_str().ok());
        match theirs {
            Some(id) if is_sane(id) => Self(id.to_owned()),
            _ => Self::fresh(),
        }
    }

    /// A random id.
    pub(crate) fn fresh() -> Self {
        Self(format!("{:032x}", rand::random::<u128>()))
    }
}

/// Where a request comes from. [`frame`](crate::layers) adds the origin before any layer authenticates the request.
pub(crate) fn origin(extensions: &Extensions) -> Origin {
    extensions.get().cloned().unwrap_or(Origin::GATEWAY)
}

/// The proof of the request. A layer or handler gives the proof as soon as the request has shown a valid credential.
pub(crate) fn proof(extensions: &Extensions) -> ProvenMarker {
    extensions.get().cloned().unwrap_or_default()
}

fn is_sane(id: &str) -> bool {
    (1..=128).contains(&id.len())
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// The content encoding of the body. `None`: the request has no body, or the body is not encoded.
pub(crate) fn encoding(request: &Request) -> Option<String> {
    let encodings = request.headers().get_all(header::CONTENT_ENCODING);
    let words = encodings
        .iter()
        .map(|value| String::from_utf8_lossy(value.as_bytes()));
    let words: Vec<_> = words
        .filter(|word| !word.eq_ignore_ascii_case("identity"))
        .collect();
    (!words.is_empty() && !request.body().is_end_stream()).then(|| words.join(", "))
}
