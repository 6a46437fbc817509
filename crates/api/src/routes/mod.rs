//! The routes, one module for each noun. Each handler is registered together with its documentation, so that no route
//! exists without documentation.

pub(crate) mod callbacks;
pub(crate) mod docs;
pub(crate) mod oauth;

mod apps;
mod audit;
mod batch;
mod grants;
mod keys;
mod messages;
mod operations;
mod templates;
mod tenants;
mod tokens;
mod webhooks;

use domain::{
    app::AppId,
    id::{MessageId, TenantId},
};
use http::{HeaderName, HeaderValue, header};
use utoipa_axum::router::OpenApiRouter;

use crate::{ApiState, drop_in, guard::Authorized, problem::Problem};

/// The routes behind the guard: all of `/v1`.
pub(crate) fn guarded() -> OpenApiRouter<ApiState> {
    let none = OpenApiRouter::default();
    none.merge(messages::routes())
        .merge(batch::routes())
        .merge(grants::routes())
        .merge(apps::routes())
        .merge(tokens::routes())
        .merge(templates::routes())
        .merge(webhooks::routes())
        .merge(keys::routes())
        .merge(tenants::routes())
        .merge(audit::routes())
}

/// The routes outside the guard.
pub(crate) fn open() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .merge(oauth::routes())
        .merge(callbacks::routes())
        .merge(drop_in::routes())
        .merge(operations::routes())
}

impl ApiState {
    /// The tenant that owns the app `appid`: the caller's own tenant, or for an operator the app's owner.
    pub(crate) async fn owner(
        &self,
        caller: &Authorized,
        appid: &AppId,
    ) -> Result<TenantId, Problem> {
        match caller.tenant() {
            Some(tenant) => Ok(tenant),
            None => Ok(self.delivery.apps().get(None, appid).await?.tenant),
        }
    }

    /// The tenant that owns the message `id`: the caller's own tenant, or for an operator the message's owner.
    pub(crate) async fn sender(
        &self,
        caller: &Authorized,
        id: MessageId,
    ) -> Result<TenantId, Problem> {
        match caller.tenant() {
            Some(tenant) => Ok(tenant),
            None => match self.delivery.message(None, id).await? {
                Some(message) => Ok(message.tenant),
                None => Err(Problem::not_found("message")),
            },
        }
    }
}

/// The `Location` header of a new resource.
fn location(path: &str) -> [(HeaderName, HeaderValue); 1] {
    [(
        header::LOCATION,
        HeaderValue::from_str(path).unwrap_or(HeaderValue::from_static("/")),
    )]
}
