//! Access tokens of apps: the state of a token, a forced replacement, and the token itself for callers with the scope.

use axum::{Extension, Json, extract::State, response::IntoResponse};
use http::{HeaderValue, header};
use store::Origin;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    ApiState,
    dto::tokens::{AccessToken, TokenState},
    extract::AppIdPath,
    guard::Authorized,
    openapi::{Guarded, Missing, Wechat},
    problem::Problem,
};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(get_token_state))
        .routes(routes!(refresh_token))
        .routes(routes!(hand_out_token))
}

/// Read an app's token state
///
/// The age of the access token, its end, the use of WeChat's limits, and whether another system replaces the token.
/// Never contains the token.
#[utoipa::path(
    get, path = "/v1/apps/{appid}/token", tag = "apps", security(("oauth2" = ["apps:read"])),
    params(("appid" = String, Path, description = "The app.")),
    responses((status = 200, description = "The state.", body = TokenState), Missing, Guarded),
)]
async fn get_token_state(
    State(state): State<ApiState>,
    caller: Authorized,
    AppIdPath(appid): AppIdPath,
) -> Result<Json<TokenState>, Problem> {
    let tenant = state.owner(&caller, &appid).await?;
    let report = state.delivery.apps().token_state(tenant, &appid).await?;
    Ok(Json(report.into()))
}

/// Replace an app's token
///
/// Fetches another access token. The present token stays in use until the fetch succeeds, and when the fetch fails.
/// Refreshes are at least 30 s apart, and in stable mode at most 20 a day: earlier requests get `rate_limited`, and
/// `Retry-After` says when to try again. If WeChat refuses the app, the code is `wechat_rejected`; if WeChat fails or
/// counts the day as spent, the code is `wechat_unavailable`. The request ignores a pause of the app: use this after a
/// repair. The audit log has a line for each request, done or refused.
#[utoipa::path(
    post, path = "/v1/apps/{appid}/token/refresh", tag = "apps", security(("oauth2" = ["apps:write"])),
    params(("appid" = String, Path, description = "The app.")),
    responses((status = 200, description = "The state of the new token.", body = TokenState), Missing, Wechat, Guarded),
)]
async fn refresh_token(
    State(state): State<ApiState>,
    caller: Authorized,
    Extension(origin): Extension<Origin>,
    AppIdPath(appid): AppIdPath,
) -> Result<Json<TokenState>, Problem> {
    let tenant = state.owner(&caller, &appid).await?;
    let apps = state.delivery.apps().by(origin);
    let report = apps.refresh_token(tenant, &appid).await?;
    Ok(Json(report.into()))
}

/// Get an app's token
///
/// WeChat's access token itself, for a tenant's other calls of WeChat. The audit log has a line for each request,
/// granted or refused. Request the token when you need it, and again when WeChat refuses the token. A system that
/// fetches a token from WeChat instead ends this token.
#[utoipa::path(
    post, path = "/v1/apps/{appid}/access-token", tag = "apps", security(("oauth2" = ["tokens:read"])),
    params(("appid" = String, Path, description = "The app.")),
    responses(
        (status = 200, description = "The token.", body = AccessToken, headers(("Cache-Control" = String, description = "`no-store`."))),
        Missing, Wechat, Guarded,
    ),
)]
async fn hand_out_token(
    State(state): State<ApiState>,
    caller: Authorized,
    Extension(origin): Extension<Origin>,
    AppIdPath(appid): AppIdPath,
) -> Result<impl IntoResponse, Problem> {
    let tenant = state.owner(&caller, &appid).await?;
    let apps = state.delivery.apps().by(origin);
    let token = apps.access_token(tenant, &appid).await?;
    let no_store = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    Ok((no_store, Json(AccessToken::from(token))))
}
