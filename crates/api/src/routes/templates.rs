//! Templates: the copy of WeChat's lists, against which the gateway checks messages.

use axum::{Extension, Json, extract::State};
use store::Origin;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    ApiState,
    dto::{
        page::PageQuery,
        templates::{SyncResult, Template, TemplatesPage},
    },
    extract::{ApiQuery, AppIdPath},
    guard::Authorized,
    openapi::{Guarded, Missing, Query, Wechat},
    problem::Problem,
};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(list_templates))
        .routes(routes!(sync_templates))
}

/// List an app's templates
///
/// The templates as WeChat lists them, newest first, each key with the rule of its type. The gateway fetches the list
/// when an app has been registered, every six hours, and when a message names an unknown template. A template that
/// WeChat changes, removes or restores causes the event `template.changed` and a line in the audit log.
#[utoipa::path(
    get, path = "/v1/apps/{appid}/templates", tag = "apps", security(("oauth2" = ["templates:read"])),
    params(("appid" = String, Path, description = "The app."), PageQuery),
    responses((status = 200, description = "One page.", body = TemplatesPage), Missing, Query, Guarded),
)]
async fn list_templates(
    State(state): State<ApiState>,
    caller: Authorized,
    AppIdPath(appid): AppIdPath,
    ApiQuery(query): ApiQuery<PageQuery>,
) -> Result<Json<TemplatesPage>, Problem> {
    let page = query.page::<Template, _>()?;
    let tenant = state.owner(&caller, &appid).await?;
    let templates = state.delivery.templates();
    let (listing, sync) = templates.list(tenant, &appid, &page).await?;
    Ok(Json(TemplatesPage::of(listing, sync)))
}

/// Sync an app's templates
///
/// Fetches the list from WeChat now: use this after you add, change or remove a template in WeChat's console. At most
/// six times a minute.
#[utoipa::path(
    post, path = "/v1/apps/{appid}/templates/sync", tag = "apps", security(("oauth2" = ["apps:write"])),
    params(("appid" = String, Path, description = "The app.")),
    responses((status = 200, description = "The differences that the sync found.", body = SyncResult), Missing, Wechat, Guarded),
)]
async fn sync_templates(
    State(state): State<ApiState>,
    caller: Authorized,
    Extension(origin): Extension<Origin>,
    AppIdPath(appid): AppIdPath,
) -> Result<Json<SyncResult>, Problem> {
    let tenant = state.owner(&caller, &appid).await?;
    let templates = state.delivery.templates();
    Ok(Json(templates.sync(tenant, &appid, &origin).await?.into()))
}
