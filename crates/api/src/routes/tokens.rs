//! Access tokens of apps: how they stand, another one, and the token itself for whoever may have it.

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
/// How old its access token is, when it ends, what is used of WeChat's limits, who else replaces it. Never the token.
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
/// Fetches another access token; the present one serves until then, and when this fails. Refreshes are 30 s apart, and
/// in stable mode 20 a day: earlier is `rate_limited`, and `Retry-After` says when. Where WeChat refuses the app it is
/// `wechat_rejected`, where WeChat fails or counts the day as spent `wechat_unavailable`. A pause of the app is not
/// waited for: use this after a repair. Each time is on record in the audit log, done or refused.
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

/// Be handed an app's token
///
/// WeChat's access token itself, for a tenant's other calls of WeChat. Each time is on record in the audit log, given or
/// refused. Ask for it when it is needed, and again when WeChat refuses it; who fetches one from WeChat instead ends this one.
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
