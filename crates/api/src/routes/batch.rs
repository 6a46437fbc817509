//! Batches of messages.

use axum::{
    Json,
    extract::{DefaultBodyLimit, State},
    response::{IntoResponse, Response},
};
use delivery::BatchItem;
use http::HeaderValue;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    ApiState,
    body_limits::MAX_BATCH_BODY,
    dto::batch::{BatchAnswer, BatchRequest, items},
    extract::{AppIdPath, Keyed},
    guard::Authorized,
    once::IDEMPOTENT_REPLAYED,
    openapi::{Body, Guarded, Missing},
    problem::Problem,
    refusals::submit_refusal,
};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(send_batch))
        .layer(DefaultBodyLimit::max(MAX_BATCH_BODY))
}

/// Send many messages
///
/// Up to 1000 messages, or 8 MiB, in one request. The gateway accepts or refuses each message by itself: the answer is
/// 200 and has a result for each message, in order. The gateway stores the accepted messages in the database, all in
/// one transaction, before the answer. With an `Idempotency-Key`, a repeat of the same request within 24 hours sends
/// nothing twice and gets the same results; take a new key to send refused messages again.
#[utoipa::path(
    post, path = "/v1/apps/{appid}/messages/batch", tag = "messages", security(("oauth2" = ["messages:send"])),
    params(
        ("appid" = String, Path, description = "The app that sends the messages."),
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible ASCII characters that identify this request.", example = "newsletter-7-part-1"),
    ),
    request_body = BatchRequest,
    responses(
        (status = 200, description = "Every message has a result.", body = BatchAnswer,
            headers(("Idempotent-Replayed" = String, description = "`true`: the same request was made before."))),
        Missing, Body, Guarded,
    ),
)]
async fn send_batch(
    State(state): State<ApiState>,
    caller: Authorized,
    AppIdPath(appid): AppIdPath,
    Keyed { body, key }: Keyed<BatchRequest>,
) -> Result<Response, Problem> {
    let now = (state.now)();
    let requests = body.requests()?;
    let tenant = state.owner(&caller, &appid).await?;
    let wanted = requests
        .iter()
        .flatten()
        .map(|request| (request.channel, request.template_id.as_str()));
    let templates = state.delivery.templates();
    let catalog = templates.catalog(tenant, &appid, wanted).await;
    let mut items = items(requests, &catalog, now);
    let warnings = items.iter_mut().map(BatchItem::take_warnings).collect();
    let accepted = state
        .delivery
        .submit_batch(tenant, &appid, items, key)
        .await
        .map_err(|error| submit_refusal(error, now))?;
    let mut response =
        Json(BatchAnswer::of(accepted.results, warnings, &catalog, now)).into_response();
    if accepted.replayed {
        let headers = response.headers_mut();
        headers.insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use crate::body_limits::BATCH_PATH;

    #[test]
    fn the_path_is_the_documented_one() {
        assert!(crate::openapi().paths.paths.contains_key(BATCH_PATH));
    }
}
