//! The largest body of each route.

use axum::extract::{DefaultBodyLimit, MatchedPath, Request};

use crate::problem::{Problem, ProblemKind};

/// The largest body of a request, in bytes.
pub(crate) const MAX_BODY: usize = 1024 * 1024;

/// The largest body, in bytes, of a request that carries its credential in the body: the gateway reads such a body
/// before the credential is proven.
pub(crate) const MAX_UNPROVEN_BODY: usize = 16 * 1024;

/// The routes that take such bodies. Each of these routes has the layer [`unproven_body`].
pub(crate) const UNPROVEN: [&str; 2] = ["/oauth/token", "/cgi-bin/stable_token"];

/// The largest body of a batch, in bytes.
pub(crate) const MAX_BATCH_BODY: usize = 8 * MAX_BODY;

/// The routes that take batches. Each of these routes has a [`DefaultBodyLimit`] of its own.
const BATCHES: [&str; 1] = [BATCH_PATH];

/// The route of batches.
pub(crate) const BATCH_PATH: &str = "/v1/apps/{appid}/messages/batch";

/// The path prefix of all callbacks.
pub(crate) const CALLBACK_PREFIX: &str = "/callbacks/";

/// The largest callback, in bytes. WeChat's callbacks have a few hundred bytes, three times that in compatible mode.
pub(crate) const MAX_CALLBACK: usize = 64 * 1024;

/// The path prefixes of WeChat's calls that the gateway passes through.
pub(crate) const PASS_THROUGH: [&str; 3] = ["/cgi-bin/", "/wxa/", "/wxaapi/"];

/// Limits the bodies of a route to [`MAX_UNPROVEN_BODY`].
pub(crate) fn unproven_body() -> DefaultBodyLimit {
    DefaultBodyLimit::max(MAX_UNPROVEN_BODY)
}

/// The largest body that the request may have, in bytes.
pub(crate) fn body_limit(request: &Request) -> usize {
    let path = request.extensions().get::<MatchedPath>();
    let is_one_of = |paths: &[&str]| path.is_some_and(|path| paths.contains(&path.as_str()));
    if is_one_of(&BATCHES) {
        MAX_BATCH_BODY
    } else if is_one_of(&UNPROVEN) {
        MAX_UNPROVEN_BODY
    } else if path.is_some_and(|path| path.as_str().starts_with(CALLBACK_PREFIX)) {
        MAX_CALLBACK
    } else if is_pass_through(request.uri().path()) {
        delivery::MAX_FORWARDED
    } else {
        MAX_BODY
    }
}

/// Whether `path` is one of WeChat's calls.
pub(crate) fn is_pass_through(path: &str) -> bool {
    PASS_THROUGH.iter().any(|prefix| path.starts_with(prefix))
}

/// The problem for a body over `limit` bytes.
pub(crate) fn too_large(limit: usize) -> Problem {
    Problem::new(
        ProblemKind::PayloadTooLarge,
        format!("the body may have at most {limit} bytes: send a smaller body"),
    )
}
