//! Ids in paths. A text that is not an id gets 404, like any other id that does not exist.

use axum::{
    RequestPartsExt,
    extract::{FromRequestParts, Path},
};
use domain::{
    app::AppId,
    id::{EventId, KeyId, MessageId, TenantId, WebhookId},
};
use http::request::Parts;

use crate::problem::Problem;

macro_rules! ids {
    ($($(#[$doc:meta])* $extractor:ident($id:ty) = $what:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub(crate) struct $extractor(pub(crate) $id);

        impl<S: Send + Sync> FromRequestParts<S> for $extractor {
            type Rejection = Problem;

            async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
                let Ok(Path(text)) = parts.extract::<Path<String>>().await else { return Err(Problem::not_found($what)) };
                text.parse().map(Self).map_err(|_| Problem::not_found($what))
            }
        }
    )*};
}

ids! {
    /// `{appid}`
    AppIdPath(AppId) = "app";
    /// `{tenant_id}`
    TenantIdPath(TenantId) = "tenant";
    /// `{key_id}`
    KeyIdPath(KeyId) = "key";
    /// `{id}` of a message
    MessageIdPath(MessageId) = "message";
    /// `{webhook_id}`
    WebhookIdPath(WebhookId) = "webhook";
}

/// `{tenant_id}` and `{key_id}`
#[derive(Debug)]
pub(crate) struct TenantKeyPath(pub(crate) TenantId, pub(crate) KeyId);

impl<S: Send + Sync> FromRequestParts<S> for TenantKeyPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let path = parts.extract::<Path<(String, String)>>().await;
        let Ok(Path((tenant, key))) = path else {
            return Err(Problem::not_found("key"));
        };
        match (tenant.parse(), key.parse()) {
            (Ok(tenant), Ok(key)) => Ok(Self(tenant, key)),
            _ => Err(Problem::not_found("key")),
        }
    }
}

/// `{webhook_id}` and `{event_id}`
#[derive(Debug)]
pub(crate) struct WebhookEventPath(pub(crate) WebhookId, pub(crate) EventId);

impl<S: Send + Sync> FromRequestParts<S> for WebhookEventPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let path = parts.extract::<Path<(String, String)>>().await;
        let Ok(Path((webhook, event))) = path else {
            return Err(Problem::not_found("delivery"));
        };
        match (webhook.parse(), event.parse()) {
            (Ok(webhook), Ok(event)) => Ok(Self(webhook, event)),
            _ => Err(Problem::not_found("delivery")),
        }
    }
}
