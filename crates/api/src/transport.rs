//! How answers travel: compressed where that pays and gives nothing away, to pages of other origins where that is set.

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

use crate::{layers::REQUEST_ID, once::IDEMPOTENT_REPLAYED};

/// Smaller answers fit into one packet as they are.
const WORTH_COMPRESSING: u64 = 1024;

/// On an answer: it may be compressed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Compressible;

/// Whether the answer to this request can hold no secret of the gateway or of WeChat, and its caller has a credential.
///
/// The length of a compressed answer tells how much of a secret in it is like the text beside it, and some of that text
/// is the caller's (BREACH). So what issues secrets (tokens, keys, webhooks) goes as it is, and so does what is passed on
/// to and from WeChat. Of what remains, reads and batches are large enough to matter.
///
/// What anybody may ask for without a credential goes as it is too: compressing takes memory until the answer is taken, and
/// strangers could take a thousand answers slowly.
pub(crate) fn may_be_compressed(method: &Method, path: &str) -> bool {
    match *method {
        Method::GET | Method::HEAD => path.starts_with("/v1/"),
        Method::POST => path.starts_with("/v1/apps/") && path.ends_with("/messages/batch"),
        _ => false,
    }
}

/// Whether an answer is to be compressed: it is marked, and its tag does not name these very bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Marked;

impl Predicate for Marked {
    fn should_compress<B: http_body::Body>(&self, response: &Response<B>) -> bool {
        response.extensions().get::<Compressible>().is_some()
            && !response.headers().contains_key(header::ETAG)
    }
}

/// Compresses with gzip or brotli, whichever the caller prefers.
pub(crate) fn compression() -> CompressionLayer<And<Marked, SizeAbove>> {
    CompressionLayer::new()
        .gzip(true)
        .br(true)
        .quality(CompressionLevel::Fastest)
        .compress_when(Marked.and(SizeAbove::new(WORTH_COMPRESSING)))
}

/// Lets pages of these origins call the API with an access token. None: no page of another origin may, which is what
/// browsers hold to where nobody tells them otherwise. Cookies are never asked for, so the console is not opened by it.
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
