//! Grants: collect, list and count grants; estimate the reach of a message.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::HeaderValue;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    ApiState,
    dto::{
        grants::{Grant, GrantsAnswer, GrantsQuery, GrantsRequest, GrantsSummary},
        page::Page,
        reach::{Reach, ReachRequest},
    },
    extract::{ApiJson, ApiQuery, AppIdPath, Keyed, Repeat},
    guard::Authorized,
    once::IDEMPOTENT_REPLAYED,
    openapi::{Body, Guarded, Missing, Query},
    problem::Problem,
};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(collect_grants, list_grants))
        .routes(routes!(summarize_grants))
        .routes(routes!(estimate_reach))
}

/// Collect grants
///
/// Up to 1000 form ids, prepay ids and accepted templates in one request. The gateway accepts or refuses each grant by
/// itself: the answer is 200 and has a result for each grant, in order. An id counts once, however often you report the
/// id. The placeholders that the developer tools and trial versions return in place of a form id are refused. With an
/// `Idempotency-Key`, a repeat of the same request within 24 hours counts nothing twice and gets the same results.
#[utoipa::path(
    post, path = "/v1/apps/{appid}/grants", tag = "grants", security(("oauth2" = ["grants:write"])),
    params(
        ("appid" = String, Path, description = "The app whose users gave the grants."),
        Repeat,
    ),
    request_body = GrantsRequest,
    responses(
        (status = 200, description = "Every grant has a result.", body = GrantsAnswer),
        Missing, Body, Guarded,
    ),
)]
async fn collect_grants(
    State(state): State<ApiState>,
    caller: Authorized,
    AppIdPath(appid): AppIdPath,
    Keyed { body, key }: Keyed<GrantsRequest>,
) -> Result<Response, Problem> {
    let items = body.items((state.now)())?;
    let tenant = state.owner(&caller, &appid).await?;
    let grants = state.delivery.grants();
    let collected = grants.collect(tenant, &appid, &items, key.as_ref()).await?;
    let mut response = Json(GrantsAnswer::of(collected.results)).into_response();
    if collected.replayed {
        let headers = response.headers_mut();
        headers.insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// List a user's grants
///
/// Valid form ids and prepay ids, the newest first, then accepted templates.
#[utoipa::path(
    get, path = "/v1/apps/{appid}/grants", tag = "grants", security(("oauth2" = ["grants:read"])),
    params(("appid" = String, Path, description = "The app."), GrantsQuery),
    responses((status = 200, description = "One page.", body = Page<Grant>), Query, Missing, Guarded),
)]
async fn list_grants(
    State(state): State<ApiState>,
    caller: Authorized,
    AppIdPath(appid): AppIdPath,
    ApiQuery(query): ApiQuery<GrantsQuery>,
) -> Result<Page<Grant>, Problem> {
    let page = query.page()?;
    let tenant = state.owner(&caller, &appid).await?;
    let grants = state.delivery.grants();
    let listing = grants.list(tenant, &appid, &query.openid, &page).await?;
    Ok(Page::of(listing))
}

/// Count an app's grants
///
/// How many users the app can send a message to now, and until when.
#[utoipa::path(
    get, path = "/v1/apps/{appid}/grants/summary", tag = "grants", security(("oauth2" = ["grants:read"])),
    params(("appid" = String, Path, description = "The app.")),
    responses((status = 200, description = "The counts.", body = GrantsSummary), Missing, Guarded),
)]
async fn summarize_grants(
    State(state): State<ApiState>,
    caller: Authorized,
    AppIdPath(appid): AppIdPath,
) -> Result<Json<GrantsSummary>, Problem> {
    let tenant = state.owner(&caller, &appid).await?;
    let summary = state.delivery.grants().summary(tenant, &appid).await?;
    Ok(Json(summary.into()))
}

/// Estimate a reach
///
/// How many of up to 10,000 users a message of a template would reach now. Nothing is reserved.
#[utoipa::path(
    post, path = "/v1/apps/{appid}/reach", tag = "grants", security(("oauth2" = ["grants:read"])),
    params(("appid" = String, Path, description = "The app that would send the message.")),
    request_body = ReachRequest,
    responses((status = 200, description = "The counts.", body = Reach), Missing, Body, Guarded),
)]
async fn estimate_reach(
    State(state): State<ApiState>,
    caller: Authorized,
    AppIdPath(appid): AppIdPath,
    ApiJson(request): ApiJson<ReachRequest>,
) -> Result<Json<Reach>, Problem> {
    let channel = request.check()?;
    let tenant = state.owner(&caller, &appid).await?;
    let (template_id, openids) = (request.template_id(), request.openids());
    let grants = state.delivery.grants();
    let reach = grants
        .reach(tenant, &appid, channel, template_id, &openids)
        .await?;
    Ok(Json(reach.into()))
}
