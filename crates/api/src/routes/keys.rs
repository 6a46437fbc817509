//! `/v1/keys`: the caller's own keys.

use axum::{Extension, extract::State, response::Response};
use http::StatusCode;
use store::Origin;
use tenancy::KeyOwner;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    ApiState,
    dto::{
        keys::{CreatedKey, Key, NewKey, Revocation},
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

/// Whose keys the caller sees: its tenant's, or for an operator the operators'.
fn owner(caller: &Authorized) -> KeyOwner {
    caller.tenant().map_or(KeyOwner::Operator, KeyOwner::Tenant)
}

/// Make a key
///
/// The key has no more scopes than the key that makes it, and expires no later. The secret is shown this once; under an
/// `Idempotency-Key` it is shown again to the API key that made the request, with an access token of the same
/// scopes, and to no other. A tenant has at most 100 keys in force.
#[utoipa::path(
    post, path = "/v1/keys", tag = "keys", security(("oauth2" = ["keys:write"])),
    params(Repeat),
    request_body = NewKey,
    responses((status = 201, description = "The key with its secret.", body = CreatedKey), Conflict, Body, Guarded),
)]
async fn create_key(
    State(state): State<ApiState>,
    caller: Authorized,
    Extension(origin): Extension<Origin>,
    Keyed { body, key }: Keyed<NewKey>,
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
) -> Result<Page<Key>, Problem> {
    let keys = state
        .tenancy
        .keys(owner(&caller), &query.page::<Key, _>()?)
        .await?;
    Ok(Page::of(keys))
}

/// Revoke a key
///
/// It is refused within 5 seconds, and so are all keys that were made with it, those that were made with them, and so on,
/// unless `keep_descendants` says otherwise. `created_by` of a key says which key made it. Each has a line in the audit log.
/// Revoking it again changes nothing.
#[utoipa::path(
    delete, path = "/v1/keys/{key_id}", tag = "keys", security(("oauth2" = ["keys:write"])),
    params(("key_id" = String, Path, description = "The key's id."), Revocation),
    responses((status = 204, description = "It is revoked, with the keys that were made with it."), Query, Missing, Guarded),
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
