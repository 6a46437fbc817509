//! `/v1/tenants`: for operators.

use axum::{Extension, Json, extract::State, response::IntoResponse};
use http::StatusCode;
use store::Origin;
use tenancy::KeyOwner;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::location;
use crate::{
    ApiState,
    dto::{
        keys::{CreatedKey, Key, NewKey},
        page::{Page, PageQuery},
        tenants::{NewTenant, Tenant, TenantChanges, refusal},
    },
    extract::{ApiJson, ApiQuery, TenantIdPath, TenantKeyPath},
    guard::Authorized,
    openapi::{Body, Guarded, Missing, Query},
    problem::Problem,
};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(create_tenant, list_tenants))
        .routes(routes!(get_tenant, update_tenant))
        .routes(routes!(create_tenant_key, list_tenant_keys))
        .routes(routes!(revoke_tenant_key))
}

/// Make a tenant
///
/// A tenant owns apps, keys and messages, and sees nothing of other tenants.
#[utoipa::path(
    post, path = "/v1/tenants", tag = "tenants", security(("oauth2" = ["operator"])),
    request_body = NewTenant,
    responses(
        (status = 201, description = "The tenant, active from the start.", body = Tenant,
            headers(("Location" = String, description = "Where it is."))),
        Body, Guarded,
    ),
)]
async fn create_tenant(
    State(state): State<ApiState>,
    Extension(origin): Extension<Origin>,
    ApiJson(new): ApiJson<NewTenant>,
) -> Result<impl IntoResponse, Problem> {
    let (name, limits) = new.split();
    let tenant = state
        .tenancy
        .by(origin)
        .create_tenant(&name, limits)
        .await
        .map_err(refusal)?;
    let place = location(&format!("/v1/tenants/{}", tenant.id));
    Ok((StatusCode::CREATED, place, Json(Tenant::from(tenant))))
}

/// List tenants
///
/// All tenants, newest first.
#[utoipa::path(
    get, path = "/v1/tenants", tag = "tenants", security(("oauth2" = ["operator"])),
    params(PageQuery),
    responses((status = 200, description = "One page.", body = Page<Tenant>), Query, Guarded),
)]
async fn list_tenants(
    State(state): State<ApiState>,
    ApiQuery(query): ApiQuery<PageQuery>,
) -> Result<Json<Page<Tenant>>, Problem> {
    let tenants = state.tenancy.tenants(&query.page()?).await?;
    Ok(Json(Page::of(tenants)))
}

/// Read a tenant
///
/// One tenant with its status and limits.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant_id}", tag = "tenants", security(("oauth2" = ["operator"])),
    params(("tenant_id" = String, Path, description = "The tenant's id.")),
    responses((status = 200, description = "The tenant.", body = Tenant), Missing, Guarded),
)]
async fn get_tenant(
    State(state): State<ApiState>,
    TenantIdPath(id): TenantIdPath,
) -> Result<Json<Tenant>, Problem> {
    Ok(Json(state.tenancy.tenant(id).await?.into()))
}

/// Change a tenant
///
/// Sets its name and limits, suspends or resumes it. A suspended tenant's credentials are refused within 5 seconds.
#[utoipa::path(
    patch, path = "/v1/tenants/{tenant_id}", tag = "tenants", security(("oauth2" = ["operator"])),
    params(("tenant_id" = String, Path, description = "The tenant's id.")),
    request_body = TenantChanges,
    responses((status = 200, description = "The tenant as it is now.", body = Tenant), Missing, Body, Guarded),
)]
async fn update_tenant(
    State(state): State<ApiState>,
    Extension(origin): Extension<Origin>,
    TenantIdPath(id): TenantIdPath,
    ApiJson(changes): ApiJson<TenantChanges>,
) -> Result<Json<Tenant>, Problem> {
    let tenant = state
        .tenancy
        .by(origin)
        .update_tenant(id, changes.into())
        .await
        .map_err(refusal)?;
    Ok(Json(tenant.into()))
}

/// Make a key for a tenant
///
/// The secret is shown this once.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant_id}/keys", tag = "tenants", security(("oauth2" = ["operator"])),
    params(("tenant_id" = String, Path, description = "The tenant's id.")),
    request_body = NewKey,
    responses((status = 201, description = "The key with its secret.", body = CreatedKey), Missing, Body, Guarded),
)]
async fn create_tenant_key(
    State(state): State<ApiState>,
    caller: Authorized,
    Extension(origin): Extension<Origin>,
    TenantIdPath(tenant): TenantIdPath,
    ApiJson(new): ApiJson<NewKey>,
) -> Result<impl IntoResponse, Problem> {
    let created = state
        .tenancy
        .by(origin)
        .create_key(KeyOwner::Tenant(tenant), new.parse()?, Some(&caller.0))
        .await?;
    Ok((StatusCode::CREATED, Json(CreatedKey::from(created))))
}

/// List a tenant's keys
///
/// Newest first, revoked ones among them; never their secrets.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant_id}/keys", tag = "tenants", security(("oauth2" = ["operator"])),
    params(("tenant_id" = String, Path, description = "The tenant's id."), PageQuery),
    responses((status = 200, description = "One page.", body = Page<Key>), Missing, Query, Guarded),
)]
async fn list_tenant_keys(
    State(state): State<ApiState>,
    TenantIdPath(tenant): TenantIdPath,
    ApiQuery(query): ApiQuery<PageQuery>,
) -> Result<Json<Page<Key>>, Problem> {
    let keys = state
        .tenancy
        .keys(KeyOwner::Tenant(tenant), &query.page()?)
        .await?;
    Ok(Json(Page::of(keys)))
}

/// Revoke a tenant's key
///
/// It is refused within 5 seconds. Revoking it again changes nothing.
#[utoipa::path(
    delete, path = "/v1/tenants/{tenant_id}/keys/{key_id}", tag = "tenants", security(("oauth2" = ["operator"])),
    params(
        ("tenant_id" = String, Path, description = "The tenant's id."),
        ("key_id" = String, Path, description = "The key's id."),
    ),
    responses((status = 204, description = "It is revoked."), Missing, Guarded),
)]
async fn revoke_tenant_key(
    State(state): State<ApiState>,
    Extension(origin): Extension<Origin>,
    TenantKeyPath(tenant, key): TenantKeyPath,
) -> Result<StatusCode, Problem> {
    state
        .tenancy
        .by(origin)
        .revoke_key(KeyOwner::Tenant(tenant), key)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
