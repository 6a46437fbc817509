//! `/v1/tenants`: for operators.

use axum::{Extension, extract::State, response::Response};
use http::StatusCode;
use store::Origin;
use tenancy::{KeyOwner, TenantPatch};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    ApiState,
    dto::{
        keys::{CreatedKey, Key, KeyRequest, Revocation},
        page::{Page, PageQuery},
        tenants::{Tenant, TenantChanges, TenantRequest, refusal},
    },
    extract::{ApiJson, ApiQuery, Keyed, Repeat, TenantIdPath, TenantKeyPath},
    guard::Authorized,
    once::Worded,
    openapi::{Body, Conflict, Guarded, Missing, Query},
    problem::Problem,
    tags::{IfMatch, IfNoneMatch, Known, Unchanged, now_is, shown},
};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(create_tenant, list_tenants))
        .routes(routes!(get_tenant, update_tenant))
        .routes(routes!(create_tenant_key, list_tenant_keys))
        .routes(routes!(revoke_tenant_key))
}

/// Create a tenant
///
/// A tenant owns apps, keys and messages, and sees nothing of other tenants.
#[utoipa::path(
    post, path = "/v1/tenants", tag = "tenants", security(("oauth2" = ["operator"])),
    params(Repeat),
    request_body = TenantRequest,
    responses(
        (status = 201, description = "The tenant, active from the start.", body = Tenant,
            headers(("Location" = String, description = "The path of the new resource."))),
        Conflict, Body, Guarded,
    ),
)]
async fn create_tenant(
    State(state): State<ApiState>,
    Extension(origin): Extension<Origin>,
    Keyed { body, key }: Keyed<TenantRequest>,
) -> Result<Response, Problem> {
    let (name, limits) = body.split();
    let tenancy = state.tenancy.by(origin);
    let act = async |keep| {
        let made = tenancy.create_tenant_once(&name, limits, keep).await;
        made.map_err(refusal)
    };
    let word = |made: &tenancy::Tenant| {
        let place = format!("/v1/tenants/{}", made.id);
        Worded::created(place, &Tenant::from(made.clone()))
    };
    state.once(None, key, word, act).await
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
) -> Result<Page<Tenant>, Problem> {
    let tenants = state.tenancy.tenants(&query.page::<Tenant, _>()?).await?;
    Ok(Page::of(tenants))
}

/// Read a tenant
///
/// One tenant with its status and limits.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant_id}", tag = "tenants", security(("oauth2" = ["operator"])),
    params(("tenant_id" = String, Path, description = "The tenant's id."), Known),
    responses((status = 200, description = "The tenant.", body = Tenant), Missing, Guarded),
)]
async fn get_tenant(
    State(state): State<ApiState>,
    TenantIdPath(id): TenantIdPath,
    known: IfNoneMatch,
) -> Result<Response, Problem> {
    let tenant = state.tenancy.tenant(id).await?;
    Ok(shown(&known, tenant.updated_at, &Tenant::from(tenant)))
}

/// Change a tenant
///
/// Sets the name and limits, suspends or resumes the tenant. The gateway refuses a suspended tenant's credentials
/// within 5 seconds.
#[utoipa::path(
    patch, path = "/v1/tenants/{tenant_id}", tag = "tenants", security(("oauth2" = ["operator"])),
    params(("tenant_id" = String, Path, description = "The tenant's id."), Unchanged),
    request_body = TenantChanges,
    responses((status = 200, description = "The present state of the tenant.", body = Tenant), Missing, Body, Guarded),
)]
async fn update_tenant(
    State(state): State<ApiState>,
    Extension(origin): Extension<Origin>,
    TenantIdPath(id): TenantIdPath,
    IfMatch(known_at): IfMatch,
    ApiJson(changes): ApiJson<TenantChanges>,
) -> Result<Response, Problem> {
    let patch = TenantPatch {
        known_at,
        ..changes.into()
    };
    let tenant = state
        .tenancy
        .by(origin)
        .update_tenant(id, patch)
        .await
        .map_err(refusal)?;
    Ok(now_is(tenant.updated_at, &Tenant::from(tenant)))
}

/// Create a key for a tenant
///
/// Only this answer shows the secret. Under an `Idempotency-Key` a repeat shows the secret again, but only to the API
/// key that made the request, with a token of the same scopes. A tenant has at most 100 keys in force.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant_id}/keys", tag = "tenants", security(("oauth2" = ["operator"])),
    params(("tenant_id" = String, Path, description = "The tenant's id."), Repeat),
    request_body = KeyRequest,
    responses((status = 201, description = "The key with its secret.", body = CreatedKey), Missing, Conflict, Body, Guarded),
)]
async fn create_tenant_key(
    State(state): State<ApiState>,
    caller: Authorized,
    Extension(origin): Extension<Origin>,
    TenantIdPath(tenant): TenantIdPath,
    Keyed { body, key }: Keyed<KeyRequest>,
) -> Result<Response, Problem> {
    let (owner, new, key) = (KeyOwner::Tenant(tenant), body.parse()?, caller.own(key));
    let (tenancy, by) = (state.tenancy.by(origin), Some(&caller.0));
    let act = |keep| tenancy.create_key_once(owner, new, by, keep);
    state
        .once(caller.tenant(), key, CreatedKey::shown, act)
        .await
}

/// List a tenant's keys
///
/// Newest first, revoked keys included, without secrets.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant_id}/keys", tag = "tenants", security(("oauth2" = ["operator"])),
    params(("tenant_id" = String, Path, description = "The tenant's id."), PageQuery),
    responses((status = 200, description = "One page.", body = Page<Key>), Missing, Query, Guarded),
)]
async fn list_tenant_keys(
    State(state): State<ApiState>,
    TenantIdPath(tenant): TenantIdPath,
    ApiQuery(query): ApiQuery<PageQuery>,
) -> Result<Page<Key>, Problem> {
    let keys = state
        .tenancy
        .keys(KeyOwner::Tenant(tenant), &query.page::<Key, _>()?)
        .await?;
    Ok(Page::of(keys))
}

/// Revoke a tenant's key
///
/// Within 5 seconds the gateway refuses the key and all its descendants: the keys that were made with the key, the keys
/// that were made with those keys, and so on. `keep_descendants` keeps the descendants in force. Each revoked key has a
/// line in the audit log. Revoking a revoked key changes nothing.
#[utoipa::path(
    delete, path = "/v1/tenants/{tenant_id}/keys/{key_id}", tag = "tenants", security(("oauth2" = ["operator"])),
    params(
        ("tenant_id" = String, Path, description = "The tenant's id."),
        ("key_id" = String, Path, description = "The key's id."),
        Revocation,
    ),
    responses((status = 204, description = "The key is revoked, and so are all keys that were created with this key."), Query, Missing, Guarded),
)]
async fn revoke_tenant_key(
    State(state): State<ApiState>,
    Extension(origin): Extension<Origin>,
    TenantKeyPath(tenant, key): TenantKeyPath,
    ApiQuery(revocation): ApiQuery<Revocation>,
) -> Result<StatusCode, Problem> {
    state
        .tenancy
        .by(origin)
        .revoke_key(KeyOwner::Tenant(tenant), key, revocation.descendants())
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
