//! `/v1/audit`: actions, with actor and address.

use axum::extract::State;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    ApiState,
    dto::{
        audit::{AuditEvent, AuditQuery},
        page::Page,
    },
    extract::ApiQuery,
    guard::Authorized,
    openapi::{Guarded, Query},
    problem::Problem,
};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(list_audit))
}

/// Read the audit log
///
/// Actions on the tenant, its keys and its apps, each with actor and address, and failed attempts to authenticate;
/// newest first. Operators read all logs, or the log of one tenant with `tenant_id`.
#[utoipa::path(
    get, path = "/v1/audit", tag = "audit", security(("oauth2" = ["audit:read"])),
    params(AuditQuery),
    responses((status = 200, description = "One page.", body = Page<AuditEvent>), Query, Guarded),
)]
async fn list_audit(
    State(state): State<ApiState>,
    caller: Authorized,
    ApiQuery(query): ApiQuery<AuditQuery>,
) -> Result<Page<AuditEvent>, Problem> {
    let named = query.tenant()?;
    let (filter, page) = query.split()?;
    let Some(own) = caller.tenant() else {
        let lines = state.tenancy.audit(named, &filter, &page).await?;
        return Ok(Page::map(lines, AuditEvent::for_operator));
    };
    if named.is_some_and(|named| named != own) {
        return Err(Problem::invalid_request(
            "`tenant_id` is for operators: leave out `tenant_id` to read your own log",
        ));
    }
    let lines = state.tenancy.audit(Some(own), &filter, &page).await?;
    Ok(Page::map(lines, AuditEvent::for_tenant))
}
