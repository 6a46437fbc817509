//! The two calls that issue tokens.

use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use http::{Extensions, Uri};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    gate::{DropInCredentials, Parameters, prove},
    json::{self, body_of, text},
    reply::{WANTS_GET, WANTS_POST, WechatReply},
};
use crate::{ApiState, body_limits::unproven_body, openapi::Always, request_origin};

const GRANT_TYPE: &str = "client_credential";
/// The announced life of every token, in seconds. Tokens live a little longer, so that a client that renews in time
/// never uses an expired token.
const EXPIRES_IN: u64 = 7200;

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    let (schemas, paths, methods) = routes!(get_token);
    let router = OpenApiRouter::default().routes((schemas, paths, methods.fallback(wants_get)));
    let (schemas, paths, methods) = routes!(get_stable_token);
    let stable = OpenApiRouter::default().routes((schemas, paths, methods.fallback(wants_post)));
    router.merge(stable.layer(unproven_body()))
}

/// WeChat's answer with a token.
#[derive(Serialize, ToSchema)]
struct WechatToken {
    /// A token of the gateway, under 512 characters for a usual URL: only for the `access_token` of these calls.
    #[schema(example = "eyJhbGciOiJFZERTQSIs…")]
    access_token: String,
    /// Seconds until the token expires: 7200.
    #[schema(example = 7200)]
    expires_in: u64,
}

/// The answer of the two calls, always with HTTP 200.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(
    dead_code,
    reason = "the shape is documented here: the answer is one or the other"
)]
enum WechatTokenAnswer {
    Token(WechatToken),
    Refusal(WechatReply),
}

/// The request of `stable_token`.
#[derive(Default, Deserialize, ToSchema)]
#[serde(default)]
struct StableTokenRequest {
    /// `client_credential`
    #[schema(value_type = String, default = "", example = "client_credential")]
    grant_type: Value,
    /// The app.
    #[schema(value_type = String, default = "", example = "wx0a1b2c3d4e5f6789")]
    appid: Value,
    /// A client secret of the gateway.
    #[schema(value_type = String, default = "", example = "wxg_…")]
    secret: Value,
    /// Has no effect: each answer has a new token, and no token ends another.
    #[schema(value_type = Option<bool>)]
    force_refresh: Value,
}

/// Get an access token, as WeChat's `/cgi-bin/token`
///
/// For SDKs. `secret` is a client secret of the gateway; the token is a token of the gateway, for this app and for the
/// calls of this tag alone. A new token ends no other token. Refusals have WeChat's codes: 40002 for another
/// `grant_type`, 41002 and 41004 for a missing parameter, 40125 for a wrong secret, 40013 for an app of another tenant,
/// 45011 for too many requests.
#[utoipa::path(
    get, path = "/cgi-bin/token", tag = super::TAG,
    params(
        ("grant_type" = String, Query, description = "`client_credential`", example = "client_credential"),
        ("appid" = String, Query, description = "The app.", example = "wx0a1b2c3d4e5f6789"),
        ("secret" = String, Query, description = "A client secret of the gateway.", example = "wxg_…"),
    ),
    responses((status = 200, description = "The token; or `errcode` and `errmsg`.", body = WechatTokenAnswer), Always),
)]
async fn get_token(State(state): State<ApiState>, extensions: Extensions, uri: Uri) -> Response {
    let query = Parameters::of(&uri);
    let asked = DropInCredentials {
        grant_type: query.get("grant_type").to_owned(),
        appid: query.get("appid").to_owned(),
        secret: query.get("secret").to_owned(),
    };
    issue(&state, &extensions, asked).await.into_response()
}

/// Get an access token, as WeChat's `/cgi-bin/stable_token`
///
/// Works like `GET /cgi-bin/token`, with the secret in the body.
#[utoipa::path(
    post, path = "/cgi-bin/stable_token", tag = super::TAG,
    request_body = StableTokenRequest,
    responses((status = 200, description = "The token; or `errcode` and `errmsg`.", body = WechatTokenAnswer), Always),
)]
async fn get_stable_token(State(state): State<ApiState>, request: Request) -> Response {
    let extensions = request.extensions().clone();
    match read(request).await {
        Ok(asked) => issue(&state, &extensions, asked).await.into_response(),
        Err(reply) => reply.into_response(),
    }
}

async fn read(request: Request) -> Result<DropInCredentials, WechatReply> {
    let asked: StableTokenRequest = json::read(&body_of(request).await?)?;
    let text = |field, value| text(field, value).map(Option::unwrap_or_default);
    Ok(DropInCredentials {
        grant_type: text("grant_type", asked.grant_type)?,
        appid: text("appid", asked.appid)?,
        secret: text("secret", asked.secret)?,
    })
}

async fn issue(
    state: &ApiState,
    extensions: &Extensions,
    given: DropInCredentials,
) -> Result<Json<WechatToken>, WechatReply> {
    let origin = request_origin::origin(extensions);
    let (caller, tenant, appid) = prove(state, origin, GRANT_TYPE, given).await?;
    request_origin::proof(extensions).give();
    state.delivery.apps().get(Some(tenant), &appid).await?;
    let token = state.tenancy.issue_drop_in_token(&caller, &appid);
    let token = token.map_err(|error| {
        tracing::error!(%error, "cannot sign an access token");
        WechatReply::busy("the gateway cannot sign tokens at the moment, try again later")
    })?;
    Ok(Json(WechatToken {
        access_token: token.expose().to_owned(),
        expires_in: EXPIRES_IN,
    }))
}

/// The answer to another method than GET, for calls that want GET.
pub(super) async fn wants_get() -> WechatReply {
    WechatReply::refused(WANTS_GET, "require GET method")
}

/// The answer to another method than POST, for calls that want POST.
pub(super) async fn wants_post() -> WechatReply {
    WechatReply::refused(WANTS_POST, "require POST method")
}
