//! `/v1/keys`: the caller's own keys.

use axum::{Extension, Json, extract::State, response::IntoResponse};
use http::StatusCode;
use store::Origin;
use tenancy::KeyOwner;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    ApiState,
    dto::{
        keys::{CreatedKey, Key, NewKey},
        page::{Page, PageQuery},
    },
    extract::{ApiJson, ApiQuery, KeyIdPath},
    guard::Authorized,
    openapi::{Body, Guarded, Missing, Query},
    problem::Problem,
};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(create_key, list_keys))
        .routes(routes!(revoke_key))
}

/// Whose keys the caller sees: its tenant's, or for an operator the operators'.
fn owner(caller: &Authorized) -> KeyOwner {
    caller.tenant().map_or(KeyOwner::Operator, KeyOwner::Tenant)
}

/// Make a key
///
/// The key has no more scopes than the key that makes it. The secret is shown this once.
#[utoipa::path(
    post, path = "/v1/keys", tag = "keys", security(("oauth2" = ["keys:write"])),
    request_body = NewKey,
    responses((status = 201, description = "The key with its secret.", body = CreatedKey), Body, Guarded),
)]
async fn create_key(
    State(state): State<ApiState>,
    caller: Authorized,
    Extension(origin): Extension<Origin>,
    ApiJson(new): ApiJson<NewKey>,
) -> Result<impl IntoResponse, Problem> {
    let created = state
        .tenancy
        .by(origin)
        .create_key(owner(&caller), new.parse()?, Some(&caller.0))
        .await?;
    Ok((StatusCode::CREATED, Json(CreatedKey::from(created))))
}

/// List keys
///
/// Newest first, revoked ones among them; never their secrets.
#[utoipa::path(
    get, path = "/v1/keys", tag = "keys", security(("oauth2" = ["keys:write"])),
    params(PageQuery),
    responses((status = 200, description = "One page.", body = Page<Key>), Query, Guarded),
)]
async fn list_keys(
    State(state): State<ApiState>,
    caller: Authorized,
    ApiQuery(query): ApiQuery<PageQuery>,
) -> Result<Json<Page<Key>>, Problem> {
    let keys = state.tenancy.keys(owner(&caller), &query.page()?).await?;
    Ok(Json(Page::of(keys)))
}

/// Revoke a key
///
/// It is refused within 5 seconds. Revoking it again changes nothing.
#[utoipa::path(
    delete, path = "/v1/keys/{key_id}", tag = "keys", security(("oauth2" = ["keys:write"])),
    params(("key_id" = String, Path, description = "The key's id.")),
    responses((status = 204, description = "It is revoked."), Missing, Guarded),
)]
async fn revoke_key(
    State(state): State<ApiState>,
    caller: Authorized,
    Extension(origin): Extension<Origin>,
    KeyIdPath(key): KeyIdPath,
) -> Result<StatusCode, Problem> {
    let tenancy = state.tenancy.by(origin);
    tenancy.revoke_key(owner(&caller), key).await?;
    Ok(StatusCode::NO_CONTENT)
}
