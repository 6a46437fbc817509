//! The transport of answers: compression, unless the answer is small or may hold secrets, and CORS for configured origins.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, Response, header};
use tower_http::{
    CompressionLevel,
    compression::{
        CompressionLayer, Predicate,
        predicate::{And, SizeAbove},
    },
    cors::{AllowOrigin, CorsLayer},
};

use crate::{once::IDEMPOTENT_REPLAYED, request_origin::REQUEST_ID};

/// Smaller answers, in bytes, fit into one packet without compression.
const WORTH_COMPRESSING: u64 = 1024;

/// Marks an answer that may be compressed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Compressible;

/// Whether the answer to this request contains no secret of the gateway or of WeChat, and the caller needs a credential.
///
/// The length of a compressed answer reveals how similar a secret is to the text beside it, and the caller controls
/// some of that text (BREACH). Answers with secrets (tokens, keys, webhooks) therefore stay uncompressed, and so do the
/// answers of the pass-through. Of the other answers, reads and batches are large enough for compression.
///
/// Answers without a credential stay uncompressed too: compression uses memory until the client has read the answer,
/// and strangers could read a thousand answers slowly.
pub(crate) fn may_be_compressed(method: &Method, path: &str) -> bool {
    match *method {
        Method::GET | Method::HEAD => path.starts_with("/v1/"),
        Method::POST => path.starts_with("/v1/apps/") && path.ends_with("/messages/batch"),
        _ => false,
    }
}

/// Whether to compress an answer: the answer is marked, and has no entity tag, which would name the uncompressed bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Marked;

impl Predicate for Marked {
    fn should_compress<B: http_body::Body>(&self, response: &Response<B>) -> bool {
        response.extensions().get::<Compressible>().is_some()
            && !response.headers().contains_key(header::ETAG)
    }
}

/// Compresses with gzip or brotli, by the caller's preference.
pub(crate) fn compression() -> CompressionLayer<And<Marked, SizeAbove>> {
    CompressionLayer::new()
        .gzip(true)
        .br(true)
        .quality(CompressionLevel::Fastest)
        .compress_when(Marked.and(SizeAbove::new(WORTH_COMPRESSING)))
}

/// Lets pages of these origins call the API with an access token. Without origins no CORS header is sent, and browsers
/// then keep pages of other origins out. The layer never allows cookies, so the console stays closed to such pages.
pub(crate) fn other_origins(origins: &[HeaderValue]) -> Option<CorsLayer> {
    let header = HeaderName::from_static;
    (!origins.is_empty()).then(|| {
        CorsLayer::new()
            .allow_origin(AllowOrigin::list(origins.iter().cloned()))
            .allow_methods([
                Method::GET,
                Method::POST,
                Method::PUT,
                Method::PATCH,
                Method::DELETE,
            ])
            .allow_headers([
                header::AUTHORIZATION,
                header::CONTENT_TYPE,
                header::IF_MATCH,
                header::IF_NONE_MATCH,
                header("prefer"),
                header("idempotency-key"),
                REQUEST_ID,
            ])
            .expose_headers([
                header::ETAG,
                header::LINK,
                header::LOCATION,
                header::RETRY_AFTER,
                header("preference-applied"),
                header("ratelimit"),
                header("ratelimit-policy"),
                IDEMPOTENT_REPLAYED,
                REQUEST_ID,
            ])
            .max_age(Duration::from_mins(10))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_issues_secrets_or_is_open_to_all_is_never_compressed() {
        for (method, path, public) in [
            (Method::GET, "/v1/apps", true),
            (Method::HEAD, "/v1/messages", true),
            (Method::GET, "/openapi.json", false),
            (Method::GET, "/docs/swagger-ui.css", false),
            (Method::GET, "/metrics", false),
            (
                Method::POST,
                "/v1/apps/wx00000000000000a1/messages/batch",
                true,
            ),
            (Method::POST, "/oauth/token", false),
            (Method::POST, "/v1/keys", false),
            (Method::POST, "/v1/webhooks", false),
            (
                Method::POST,
                "/v1/apps/wx00000000000000a1/access-token",
                false,
            ),
            (Method::GET, "/cgi-bin/token", false),
            (Method::GET, "/console/", false),
        ] {
            assert_eq!(may_be_compressed(&method, path), public, "{method} {path}");
        }
    }
}
