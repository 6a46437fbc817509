//! `/v1/keys`: the caller's own keys.

use axum::{Extension, extract::State, response::Response};
use http::StatusCode;
use store::Origin;
use tenancy::KeyOwner;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    ApiState,
    dto::{
        keys::{CreatedKey, Key, KeyRequest, Revocation},
        page::{Page, PageQuery},
    },
    extract::{ApiQuery, KeyIdPath, Keyed, Repeat},
    guard::Authorized,
    openapi::{Body, Conflict, Guarded, Missing, Query},
    problem::Problem,
};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(create_key, list_keys))
        .routes(routes!(revoke_key))
}

/// The owner of the keys that the caller may use: the caller's tenant, or the operators.
fn owner(caller: &Authorized) -> KeyOwner {
    caller.tenant().map_or(KeyOwner::Operator, KeyOwner::Tenant)
}

/// Create a key
///
/// The key has no more scopes than the key that makes the request, and expires no later. Only this answer shows the
/// secret. Under an `Idempotency-Key` a repeat shows the secret again, but only to the API key that made the request,
/// with an access token of the same scopes. A tenant has at most 100 keys in force.
#[utoipa::path(
    post, path = "/v1/keys", tag = "keys", security(("oauth2" = ["keys:write"])),
    params(Repeat),
    request_body = KeyRequest,
    responses((status = 201, description = "The key with its secret.", body = CreatedKey), Conflict, Body, Guarded),
)]
async fn create_key(
    State(state): State<ApiState>,
    caller: Authorized,
    Extension(origin): Extension<Origin>,
    Keyed { body, key }: Keyed<KeyRequest>,
) -> Result<Response, Problem> {
    let (owner, new, key) = (owner(&caller), body.parse()?, caller.own(key));
    let (tenancy, by) = (state.tenancy.by(origin), Some(&caller.0));
    let act = |keep| tenancy.create_key_once(owner, new, by, keep);
    state
        .once(caller.tenant(), key, CreatedKey::shown, act)
        .await
}

/// List keys
///
/// Newest first, revoked keys included, without secrets.
#[utoipa::path(
    get, path = "/v1/keys", tag = "keys", security(("oauth2" = ["keys:write"])),
    params(PageQuery),
    responses((status = 200, description = "One page.", body = Page<Key>), Query, Guarded),
)]
async fn list_keys(
    State(state): State<ApiState>,
    caller: Authorized,
    ApiQuery(query): ApiQuery<PageQuery>,
) -> Result<Page<Key>, Problem> {
    let keys = state
        .tenancy
        .keys(owner(&caller), &query.page::<Key, _>()?)
        .await?;
    Ok(Page::of(keys))
}

/// Revoke a key
///
/// Within 5 seconds the gateway refuses the key and all its descendants: the keys that were made with the key, the keys
/// that were made with those keys, and so on. `keep_descendants` keeps the descendants in force. A key's `created_by`
/// names its creator. Each revoked key has a line in the audit log. Revoking a revoked key changes nothing.
#[utoipa::path(
    delete, path = "/v1/keys/{key_id}", tag = "keys", security(("oauth2" = ["keys:write"])),
    params(("key_id" = String, Path, description = "The key's id."), Revocation),
    responses((status = 204, description = "The key is revoked, and so are all keys that were created with this key."), Query, Missing, Guarded),
)]
async fn revoke_key(
    State(state): State<ApiState>,
    caller: Authorized,
    Extension(origin): Extension<Origin>,
    KeyIdPath(key): KeyIdPath,
    ApiQuery(revocation): ApiQuery<Revocation>,
) -> Result<StatusCode, Problem> {
    let tenancy = state.tenancy.by(origin);
    tenancy
        .revoke_key(owner(&caller), key, revocation.descendants())
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
