//! Apps: register, verify, change, remove; and the daily quota of an app.

use axum::{Extension, Json, extract::State, response::Response};
use delivery::AppUpdate;
use domain::{id::TenantId, scope::Scope};
use http::StatusCode;
use store::Origin;
use tenancy::TenancyError;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::callbacks;
use crate::{
    ApiState,
    dto::{
        apps::{App, AppChanges, AppDetail, AppRegistration, Callback, NewSecret, Quota},
        page::{Page, PageQuery},
    },
    extract::{ApiJson, ApiQuery, AppIdPath, Keyed, Repeat},
    guard::{Authorized, insufficient_scope},
    once::Worded,
    openapi::{Body, Conflict, Guarded, Missing, Query, Wechat},
    problem::Problem,
    tags::{IfMatch, IfNoneMatch, Known, Unchanged, now_is, shown},
};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(register_app, list_apps))
        .routes(routes!(get_app, update_app, remove_app))
        .routes(routes!(verify_app))
        .routes(routes!(set_app_secret))
        .routes(routes!(get_app_quota))
}

/// Register an app
///
/// The gateway first verifies the AppSecret by fetching a token. An appid belongs to one tenant.
#[utoipa::path(
    post, path = "/v1/apps", tag = "apps", security(("oauth2" = ["apps:write"])),
    params(Repeat),
    request_body = AppRegistration,
    responses(
        (status = 201, description = "The app.", body = App, headers(("Location" = String, description = "The path of \
            the new resource."))),
        Conflict, Body, Wechat, Guarded,
    ),
)]
async fn register_app(
    State(state): State<ApiState>,
    caller: Authorized,
    Extension(origin): Extension<Origin>,
    Keyed { body: new, key }: Keyed<AppRegistration>,
) -> Result<Response, Problem> {
    if new.unverified() && caller.tenant().is_some() {
        return Err(insufficient_scope(Scope::Operator));
    }
    let tenant = future_owner(&state, &caller, new.tenant()?).await?;
    let (new, now) = (new.parse()?, (state.now)());
    let desk = state.delivery.apps().by(origin);
    let act = |keep| desk.register_once(tenant, new, keep);
    let word = move |app: &store::App| {
        let place = format!("/v1/apps/{}", app.appid);
        Worded::created(place, &App::at(now, app.clone()))
    };
    state.once(caller.tenant(), key, word, act).await
}

/// The tenant that will own a new app: the caller's own tenant, or the tenant that an operator names.
async fn future_owner(
    state: &ApiState,
    caller: &Authorized,
    named: Option<TenantId>,
) -> Result<TenantId, Problem> {
    match (caller.tenant(), named) {
        (Some(own), None) => Ok(own),
        (Some(own), Some(named)) if own == named => Ok(own),
        (Some(_), Some(_)) => Err(Problem::field(
            "/tenant_id",
            "a tenant's key registers apps only for its own tenant: leave out this field",
        )),
        (None, None) => Err(Problem::field(
            "/tenant_id",
            "required: an operator names the tenant of the app",
        )),
        (None, Some(named)) => match state.tenancy.tenant(named).await {
            Ok(tenant) => Ok(tenant.id),
            Err(TenancyError::NotFound(_)) => Err(Problem::field(
                "/tenant_id",
                "there is no such tenant: GET /v1/tenants lists the tenants",
            )),
            Err(error) => Err(error.into()),
        },
    }
}

/// List apps
///
/// A tenant's apps, newest first; for an operator the apps of all tenants.
#[utoipa::path(
    get, path = "/v1/apps", tag = "apps", security(("oauth2" = ["apps:read"])),
    params(PageQuery),
    responses((status = 200, description = "One page.", body = Page<App>), Query, Guarded),
)]
async fn list_apps(
    State(state): State<ApiState>,
    caller: Authorized,
    ApiQuery(query): ApiQuery<PageQuery>,
) -> Result<Page<App>, Problem> {
    let apps = state
        .delivery
        .apps()
        .list(caller.tenant(), &query.page::<App, _>()?)
        .await?;
    let now = (state.now)();
    Ok(Page::map(apps, |app| App::at(now, app)))
}

/// Read an app
///
/// The answer never contains secrets. `pause` says why the app does not send at the moment, `foreign_refresh` whether
/// another system fetches tokens with the AppSecret, `callback` what to set in WeChat's console.
#[utoipa::path(
    get, path = "/v1/apps/{appid}", tag = "apps", security(("oauth2" = ["apps:read"])),
    params(("appid" = String, Path, description = "The app."), Known),
    responses((status = 200, description = "The app.", body = AppDetail), Missing, Guarded),
)]
async fn get_app(
    State(state): State<ApiState>,
    caller: Authorized,
    AppIdPath(appid): AppIdPath,
    known: IfNoneMatch,
) -> Result<Response, Problem> {
    let app = state.delivery.apps().get(caller.tenant(), &appid).await?;
    let version = app.updated_at;
    Ok(shown(&known, version, &detail(&state, app).await))
}

/// The app as a single read and a change show the app: both use the same JSON for the same entity tag.
async fn detail(state: &ApiState, app: store::App) -> AppDetail {
    let foreign_refresh = state.delivery.apps().foreign_refresh(&app.appid).await;
    AppDetail {
        foreign_refresh: foreign_refresh.map(Into::into),
        callback: Callback {
            url: callbacks::url(&state.base_url, &app.appid),
            token_set: app.has_callback_token,
            aes_key_set: app.has_callback_aes_key,
        },
        app: App::at((state.now)(), app),
    }
}

/// Change an app
///
/// Changes the name, the token mode, the quota, the policies and the message push settings. The gateway accepts
/// callbacks under the previous message push settings for another 24 hours, or until the next change. The AppSecret has
/// an endpoint of its own.
#[utoipa::path(
    patch, path = "/v1/apps/{appid}", tag = "apps", security(("oauth2" = ["apps:write"])),
    params(("appid" = String, Path, description = "The app."), Unchanged),
    request_body = AppChanges,
    responses((status = 200, description = "The present state of the app.", body = AppDetail), Missing, Body, Guarded),
)]
async fn update_app(
    State(state): State<ApiState>,
    caller: Authorized,
    Extension(origin): Extension<Origin>,
    AppIdPath(appid): AppIdPath,
    IfMatch(known_at): IfMatch,
    ApiJson(changes): ApiJson<AppChanges>,
) -> Result<Response, Problem> {
    let update = AppUpdate {
        known_at,
        ..changes.parse()?
    };
    let tenant = state.owner(&caller, &appid).await?;
    let app = state
        .delivery
        .apps()
        .by(origin)
        .update(tenant, &appid, update)
        .await?;
    state.delivery.templates().forget(&appid).await;
    Ok(now_is(app.updated_at, &detail(&state, app).await))
}

/// Remove an app
///
/// Unsent messages are canceled, or become `uncertain` if WeChat may have them; the history of the app stays.
#[utoipa::path(
    delete, path = "/v1/apps/{appid}", tag = "apps", security(("oauth2" = ["apps:write"])),
    params(("appid" = String, Path, description = "The app.")),
    responses((status = 204, description = "The app is removed."), Missing, Guarded),
)]
async fn remove_app(
    State(state): State<ApiState>,
    caller: Authorized,
    Extension(origin): Extension<Origin>,
    AppIdPath(appid): AppIdPath,
) -> Result<StatusCode, Problem> {
    let tenant = state.owner(&caller, &appid).await?;
    state
        .delivery
        .apps()
        .by(origin)
        .remove(tenant, &appid)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Verify an app's AppSecret
///
/// Fetches a token with the stored AppSecret. If WeChat accepts the AppSecret, a paused app sends again.
#[utoipa::path(
    post, path = "/v1/apps/{appid}/verify", tag = "apps", security(("oauth2" = ["apps:write"])),
    params(("appid" = String, Path, description = "The app.")),
    responses((status = 200, description = "WeChat accepts the AppSecret; the answer is the present state of the app.", body = App), Missing, Wechat, Guarded),
)]
async fn verify_app(
    State(state): State<ApiState>,
    caller: Authorized,
    Extension(origin): Extension<Origin>,
    AppIdPath(appid): AppIdPath,
) -> Result<Json<App>, Problem> {
    let tenant = state.owner(&caller, &appid).await?;
    let app = state
        .delivery
        .apps()
        .by(origin)
        .verify(tenant, &appid)
        .await?;
    Ok(Json(App::at((state.now)(), app)))
}

/// Replace an app's AppSecret
///
/// The gateway verifies the new AppSecret first. A paused app sends again.
#[utoipa::path(
    put, path = "/v1/apps/{appid}/secret", tag = "apps", security(("oauth2" = ["apps:write"])),
    params(("appid" = String, Path, description = "The app.")),
    request_body = NewSecret,
    responses((status = 200, description = "The present state of the app.", body = App), Missing, Body, Wechat, Guarded),
)]
async fn set_app_secret(
    State(state): State<ApiState>,
    caller: Authorized,
    Extension(origin): Extension<Origin>,
    AppIdPath(appid): AppIdPath,
    ApiJson(new): ApiJson<NewSecret>,
) -> Result<Json<App>, Problem> {
    let tenant = state.owner(&caller, &appid).await?;
    let app = state
        .delivery
        .apps()
        .by(origin)
        .set_secret(tenant, &appid, new.parse()?)
        .await?;
    Ok(Json(App::at((state.now)(), app)))
}

/// Read an app's quota
///
/// How much of the daily quota is used, by the gateway's count and by WeChat's count. The day ends at 00:00 in Shanghai.
#[utoipa::path(
    get, path = "/v1/apps/{appid}/quota", tag = "apps", security(("oauth2" = ["apps:read"])),
    params(("appid" = String, Path, description = "The app.")),
    responses((status = 200, description = "The quota.", body = Quota), Missing, Guarded),
)]
async fn get_app_quota(
    State(state): State<ApiState>,
    caller: Authorized,
    AppIdPath(appid): AppIdPath,
) -> Result<Json<Quota>, Problem> {
    let tenant = state.owner(&caller, &appid).await?;
    Ok(Json(state.delivery.quota(tenant, &appid).await?.into()))
}
