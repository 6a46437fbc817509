//! The drop-in surface: the gateway in WeChat's clothes, for code that talks to WeChat through an SDK.
//!
//! The SDK's base URL is the gateway, its appid the app's, its `AppSecret` a client secret. What it fetches as WeChat's
//! access token is a token of the gateway for this one app; what it sends goes through intake and engine like every
//! message, and the answer waits for the end; everything else is passed on with the app's real token, which never
//! leaves the gateway.
//!
//! Answers have HTTP 200 and WeChat's `errcode`. Three rules stand above likeness to WeChat, because of what SDKs do
//! by themselves:
//!
//! - **40001, 40014 and 42001 are said of the caller's token only**, and never of one that was just issued: SDKs answer
//!   them with another token and the same call, some without an end. A dead token of the app's own is the gateway's
//!   business and ends as -1.
//! - **-1 is said only where nothing was sent and nothing will be**: SDKs repeat the call.
//! - **99001, which WeChat does not have, is said where nobody knows** ([`reply::UNCERTAIN`]): no SDK repeats it.
//!
//! To add a call: a handler with its documentation here, and in `tests/product/drop_in.rs` what it refuses.

mod gate;
mod json;
mod outcome;
mod pass;
mod reply;
mod sends;
mod sign_in;
mod tokens;

use axum::{
    Router,
    response::{IntoResponse, Response},
};
use utoipa::openapi::{
    OpenApi,
    security::{ApiKey, ApiKeyValue, SecurityScheme},
};
use utoipa_axum::router::OpenApiRouter;

use self::reply::{NOT_JSON, Reply};
use crate::{ApiState, openapi::DROP_IN as TAG};

/// The name of their security scheme.
pub(crate) const SCHEME: &str = "wechat";

/// The calls that the gateway answers itself.
pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .merge(tokens::routes())
        .merge(sends::routes())
        .merge(sign_in::routes())
}

/// The calls that it passes on. Their paths are patterns, which an OpenAPI document has no word for: see [`document`].
pub(crate) fn passed_on() -> Router<ApiState> {
    pass::routes()
}

/// Adds what the routes cannot say of themselves.
pub(crate) fn document(document: &mut OpenApi) {
    let about = "The `access_token` of `GET /cgi-bin/token` or `POST /cgi-bin/stable_token`. It is a token of the \
                 gateway for one app, opens nothing of `/v1`, and lives 7200 seconds. Sending wants a key with the scope \
                 `messages:send`, every other call `wechat:proxy`.";
    let in_query = ApiKey::Query(ApiKeyValue::with_description("access_token", about));
    document
        .components
        .get_or_insert_default()
        .add_security_scheme(SCHEME, SecurityScheme::ApiKey(in_query));
    pass::document(document);
}

/// The answer to a body that is encoded.
pub(crate) fn encoded(encoding: &str) -> Response {
    let words = format!(
        "data format error: a body with `Content-Encoding: {encoding}` cannot be read, send it as it is"
    );
    Reply::refused(NOT_JSON, words).into_response()
}

/// The largest body of a request for `path`, where it differs from that of all others.
pub(crate) fn max_body(path: &str) -> Option<usize> {
    pass::HOMES
        .iter()
        .any(|home| path.starts_with(home))
        .then_some(delivery::MAX_FORWARDED)
}
