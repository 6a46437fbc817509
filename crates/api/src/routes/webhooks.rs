//! Webhooks: the endpoints to which the gateway posts a tenant's events.

use axum::{Extension, Json, extract::State, response::Response};
use domain::id::TenantId;
use http::StatusCode;
use store::Origin;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    ApiState,
    dto::{
        page::{Page, PageQuery},
        webhooks::{
            CreatedWebhook, DeliveriesQuery, Redelivered, Redelivery, Webhook, WebhookChanges,
            WebhookDelivery, WebhookRequest,
        },
    },
    extract::{ApiJson, ApiQuery, BareKey, Keyed, Repeat, WebhookEventPath, WebhookIdPath},
    guard::Authorized,
    once::Worded,
    openapi::{Body, Conflict, Guarded, Missing, Query},
    problem::{Problem, ProblemKind},
};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(create_webhook, list_webhooks))
        .routes(routes!(get_webhook, update_webhook, remove_webhook))
        .routes(routes!(rotate_webhook_secret))
        .routes(routes!(test_webhook))
        .routes(routes!(list_webhook_deliveries))
        .routes(routes!(redeliver_webhook_event))
        .routes(routes!(redeliver_webhook_events))
}

/// The tenant that owns the caller's webhooks: the caller's own tenant. An operator has no webhooks.
fn owner(caller: &Authorized) -> Result<TenantId, Problem> {
    caller.tenant().ok_or_else(|| {
        Problem::new(
            ProblemKind::InsufficientScope,
            "webhooks belong to tenants: use a key of the tenant",
        )
    })
}

/// Create a webhook
///
/// From now on the gateway posts events to the URL, signed by the rules of
/// [Standard Webhooks](https://www.standardwebhooks.com). Only this answer shows the secret. Under an `Idempotency-Key`
/// a repeat shows the secret again, but only to the API key that made the request, with a token of the same scopes. A
/// tenant has at most 20 webhooks.
#[utoipa::path(
    post, path = "/v1/webhooks", tag = "webhooks", security(("oauth2" = ["webhooks:write"])),
    params(Repeat),
    request_body = WebhookRequest,
    responses(
        (status = 201, description = "The webhook with its secret.", body = CreatedWebhook, headers(("Location" = String, description = "The path of the new resource."))),
        Conflict, Body, Guarded,
    ),
)]
async fn create_webhook(
    State(state): State<ApiState>,
    caller: Authorized,
    Extension(origin): Extension<Origin>,
    Keyed { body, key }: Keyed<WebhookRequest>,
) -> Result<Response, Problem> {
    let (tenant, key) = (owner(&caller)?, caller.own(key));
    let desk = state.delivery.webhooks().by(origin);
    let act = |keep| desk.create(tenant, body.into(), keep);
    let word = |made: &(store::Webhook, _)| {
        let place = format!("/v1/webhooks/{}", made.0.id);
        Worded::created(place, &CreatedWebhook::from(made))
    };
    state.once(Some(tenant), key, word, act).await
}

/// List webhooks
///
/// The tenant's webhooks, newest first, without secrets.
#[utoipa::path(
    get, path = "/v1/webhooks", tag = "webhooks", security(("oauth2" = ["webhooks:read"])),
    params(PageQuery),
    responses((status = 200, description = "One page.", body = Page<Webhook>), Query, Guarded),
)]
async fn list_webhooks(
    State(state): State<ApiState>,
    caller: Authorized,
    ApiQuery(query): ApiQuery<PageQuery>,
) -> Result<Page<Webhook>, Problem> {
    let desk = state.delivery.webhooks();
    let webhooks = desk
        .list(owner(&caller)?, &query.page::<Webhook, _>()?)
        .await?;
    Ok(Page::of(webhooks))
}

/// Read a webhook
///
/// `failing_since` and `disabled_reason` show problems of the endpoint.
#[utoipa::path(
    get, path = "/v1/webhooks/{webhook_id}", tag = "webhooks", security(("oauth2" = ["webhooks:read"])),
    params(("webhook_id" = String, Path, description = "The webhook.")),
    responses((status = 200, description = "The webhook.", body = Webhook), Missing, Guarded),
)]
async fn get_webhook(
    State(state): State<ApiState>,
    caller: Authorized,
    WebhookIdPath(id): WebhookIdPath,
) -> Result<Json<Webhook>, Problem> {
    let webhook = state.delivery.webhooks().get(owner(&caller)?, id).await?;
    Ok(Json(webhook.into()))
}

/// Change a webhook
///
/// Absent fields stay unchanged. Setting `status` to `enabled` clears the failures. `disabled` ends the pending
/// deliveries, which can be redelivered later.
#[utoipa::path(
    patch, path = "/v1/webhooks/{webhook_id}", tag = "webhooks", security(("oauth2" = ["webhooks:write"])),
    params(("webhook_id" = String, Path, description = "The webhook.")),
    request_body = WebhookChanges,
    responses((status = 200, description = "The present state of the webhook.", body = Webhook), Missing, Body, Guarded),
)]
async fn update_webhook(
    State(state): State<ApiState>,
    caller: Authorized,
    Extension(origin): Extension<Origin>,
    WebhookIdPath(id): WebhookIdPath,
    ApiJson(changes): ApiJson<WebhookChanges>,
) -> Result<Json<Webhook>, Problem> {
    let desk = state.delivery.webhooks().by(origin);
    let webhook = desk.update(owner(&caller)?, id, changes.into()).await?;
    Ok(Json(webhook.into()))
}

/// Remove a webhook
///
/// The gateway posts no more events to the endpoint and drops the pending deliveries.
#[utoipa::path(
    delete, path = "/v1/webhooks/{webhook_id}", tag = "webhooks", security(("oauth2" = ["webhooks:write"])),
    params(("webhook_id" = String, Path, description = "The webhook.")),
    responses((status = 204, description = "The webhook is removed."), Missing, Guarded),
)]
async fn remove_webhook(
    State(state): State<ApiState>,
    caller: Authorized,
    Extension(origin): Extension<Origin>,
    WebhookIdPath(id): WebhookIdPath,
) -> Result<StatusCode, Problem> {
    state
        .delivery
        .webhooks()
        .by(origin)
        .remove(owner(&caller)?, id)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Rotate a webhook's secret
///
/// Only this answer shows the new secret. For 24 hours each event carries two signatures, one of each secret, so that
/// the receiver can change over at any time in between.
#[utoipa::path(
    post, path = "/v1/webhooks/{webhook_id}/rotate-secret", tag = "webhooks", security(("oauth2" = ["webhooks:write"])),
    params(("webhook_id" = String, Path, description = "The webhook."), Repeat),
    responses((status = 200, description = "The webhook with its new secret.", body = CreatedWebhook), Missing, Conflict, Guarded),
)]
async fn rotate_webhook_secret(
    State(state): State<ApiState>,
    caller: Authorized,
    Extension(origin): Extension<Origin>,
    WebhookIdPath(id): WebhookIdPath,
    BareKey(key): BareKey,
) -> Result<Response, Problem> {
    let (tenant, key) = (owner(&caller)?, caller.own(key));
    let desk = state.delivery.webhooks().by(origin);
    let act = |keep| desk.rotate_secret(tenant, id, keep);
    let word = |rotated: &_| Worded::new(StatusCode::OK, &CreatedWebhook::from(rotated));
    state.once(Some(tenant), key, word, act).await
}

/// Test a webhook
///
/// Posts one event of type `webhook.test` to the endpoint, whatever events the endpoint wants, once. The deliveries of
/// the webhook show the result.
#[utoipa::path(
    post, path = "/v1/webhooks/{webhook_id}/test", tag = "webhooks", security(("oauth2" = ["webhooks:write"])),
    params(("webhook_id" = String, Path, description = "The webhook."), Repeat),
    responses((status = 202, description = "The test event that the gateway posts now.", body = WebhookDelivery), Missing, Conflict, Guarded),
)]
async fn test_webhook(
    State(state): State<ApiState>,
    caller: Authorized,
    Extension(origin): Extension<Origin>,
    WebhookIdPath(id): WebhookIdPath,
    BareKey(key): BareKey,
) -> Result<Response, Problem> {
    let tenant = owner(&caller)?;
    let desk = state.delivery.webhooks().by(origin);
    let act = |keep| desk.test(tenant, id, keep);
    state.once(Some(tenant), key, told, act).await
}

/// The answer to a request that makes the gateway post an event.
fn told(delivery: &store::WebhookDelivery) -> Worded {
    let shown = WebhookDelivery::from(delivery.clone());
    Worded::new(StatusCode::ACCEPTED, &shown)
}

/// List a webhook's deliveries
///
/// All deliveries, pending or ended, newest first. The gateway keeps deliveries as long as the payloads of messages.
#[utoipa::path(
    get, path = "/v1/webhooks/{webhook_id}/deliveries", tag = "webhooks", security(("oauth2" = ["webhooks:read"])),
    params(("webhook_id" = String, Path, description = "The webhook."), DeliveriesQuery),
    responses((status = 200, description = "One page.", body = Page<WebhookDelivery>), Query, Missing, Guarded),
)]
async fn list_webhook_deliveries(
    State(state): State<ApiState>,
    caller: Authorized,
    WebhookIdPath(id): WebhookIdPath,
    ApiQuery(query): ApiQuery<DeliveriesQuery>,
) -> Result<Page<WebhookDelivery>, Problem> {
    let (status, page) = query.split()?;
    let desk = state.delivery.webhooks();
    let told = desk.deliveries(owner(&caller)?, id, status, &page).await?;
    Ok(Page::of(told))
}

/// Redeliver one event
///
/// Repeats a delivery that has ended, whatever the result; the attempts start again at zero, with the same
/// `webhook-id`. A pending delivery goes on unchanged.
#[utoipa::path(
    post, path = "/v1/webhooks/{webhook_id}/deliveries/{event_id}/redeliver", tag = "webhooks", security(("oauth2" = ["webhooks:write"])),
    params(("webhook_id" = String, Path, description = "The webhook."), ("event_id" = String, Path, description = "The event."), Repeat),
    responses((status = 202, description = "The present state of the delivery.", body = WebhookDelivery), Missing, Conflict, Guarded),
)]
async fn redeliver_webhook_event(
    State(state): State<ApiState>,
    caller: Authorized,
    Extension(origin): Extension<Origin>,
    WebhookEventPath(id, event): WebhookEventPath,
    BareKey(key): BareKey,
) -> Result<Response, Problem> {
    let tenant = owner(&caller)?;
    let desk = state.delivery.webhooks().by(origin);
    let act = |keep| desk.redeliver(tenant, id, event, keep);
    state.once(Some(tenant), key, told, act).await
}

/// Redeliver failed events
///
/// Repeats the failed deliveries of a time span, for example after the receiver was away for longer than a day. The
/// attempts start again at zero. One request takes the oldest 10,000: if `more` is true, send the request again, under
/// another `Idempotency-Key`.
#[utoipa::path(
    post, path = "/v1/webhooks/{webhook_id}/redeliver", tag = "webhooks", security(("oauth2" = ["webhooks:write"])),
    params(("webhook_id" = String, Path, description = "The webhook."), Repeat),
    request_body = Redelivery,
    responses((status = 202, description = "The number of deliveries that the gateway repeats.", body = Redelivered), Missing, Conflict, Body, Guarded),
)]
async fn redeliver_webhook_events(
    State(state): State<ApiState>,
    caller: Authorized,
    Extension(origin): Extension<Origin>,
    WebhookIdPath(id): WebhookIdPath,
    Keyed { body: time, key }: Keyed<Redelivery>,
) -> Result<Response, Problem> {
    let tenant = owner(&caller)?;
    let desk = state.delivery.webhooks().by(origin);
    let act = |keep| desk.redeliver_failed(tenant, id, time.since, time.until, keep);
    let word = |told: &_| Worded::new(StatusCode::ACCEPTED, &Redelivered::from(told));
    state.once(Some(tenant), key, word, act).await
}
