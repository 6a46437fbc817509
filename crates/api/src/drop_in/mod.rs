//! The drop-in surface: WeChat's own calls, for code that talks to WeChat through an SDK.
//!
//! The SDK uses the gateway as base URL, the app's appid as appid, and a client secret as `AppSecret`. The SDK's access
//! token is a token of the gateway for this one app. A send goes through intake and engine like every message, and the
//! answer waits for the message's end. Every other call is passed through with the app's real token, which never leaves
//! the gateway.
//!
//! Answers have HTTP 200 and WeChat's `errcode`. Three rules override likeness to WeChat, because SDKs react to some
//! codes by themselves:
//!
//! - **40001, 40014 and 42001 concern the caller's token only**, and never a token that was just issued: SDKs react
//!   with another token and the same call, some without an end. The gateway handles a dead token of the app itself, and
//!   the call ends as -1.
//! - **-1 means that nothing was sent and nothing will be**: SDKs repeat the call.
//! - **99001, which WeChat does not have, means that the outcome is unknown** ([`reply::UNCERTAIN`]): no SDK repeats
//!   the call.
//!
//! To add a call: write a handler with its documentation here, and add its refusals to `tests/product/drop_in/mod.rs`.

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

use self::reply::{NOT_JSON, WechatReply};
use crate::{
    ApiState,
    openapi::{DROP_IN as TAG, WECHAT_SCHEME},
};

/// The calls that the gateway answers itself.
pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .merge(tokens::routes())
        .merge(sends::routes())
        .merge(sign_in::routes())
}

/// The calls that the gateway passes through. Their paths are patterns, which OpenAPI cannot express: see [`document`].
pub(crate) fn pass_through_routes() -> Router<ApiState> {
    pass::routes()
}

/// Adds to the document what the routes cannot declare themselves.
pub(crate) fn document(document: &mut OpenApi) {
    let about = "The `access_token` from `GET /cgi-bin/token` or `POST /cgi-bin/stable_token`: a token of the gateway \
                 for one app, valid for 7200 seconds and not valid for `/v1`. A send needs a key with the scope \
                 `messages:send`, every other call a key with the scope `wechat:proxy`.";
    let in_query = ApiKey::Query(ApiKeyValue::with_description("access_token", about));
    document
        .components
        .get_or_insert_default()
        .add_security_scheme(WECHAT_SCHEME, SecurityScheme::ApiKey(in_query));
    pass::document(document);
}

/// The answer to an encoded body.
pub(crate) fn encoded(encoding: &str) -> Response {
    let words = format!(
        "data format error: a body with `Content-Encoding: {encoding}` cannot be read, send the body without an encoding"
    );
    WechatReply::refused(NOT_JSON, words).into_response()
}
