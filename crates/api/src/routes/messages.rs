//! Messages: send, read, list, cancel, retry.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use delivery::Accepted;
use domain::message::Request;
use http::{HeaderName, HeaderValue, StatusCode};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::location;
use crate::{
    ApiState,
    dto::{
        message_request::MessageRequest,
        message_schema::AnyMessage,
        messages::{Message, MessagesQuery},
        page::Page,
    },
    extract::{ApiQuery, AppIdPath, BareKey, Keyed, MessageIdPath, Wait},
    guard::Authorized,
    once::IDEMPOTENT_REPLAYED,
    openapi::{Body, Conflict, Counted, Guarded, Missing, Query, Unfit},
    problem::Problem,
    refusals::{change_refusal, submit_refusal},
};

const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(send_message, list_messages))
        .routes(routes!(get_message))
        .routes(routes!(cancel_message))
        .routes(routes!(retry_message))
}

/// Send a message
///
/// The gateway stores the message in the database before the answer, and sends the message afterwards. With
/// `Prefer: wait=N` the answer comes when the message has ended or after N seconds. With an `Idempotency-Key`, a repeat
/// of the same request within 24 hours sends nothing twice and gets the first answer again: the message as it was
/// accepted, or with `Prefer: wait` its end.
#[utoipa::path(
    post, path = "/v1/apps/{appid}/messages", tag = "messages", security(("oauth2" = ["messages:send"])),
    params(
        ("appid" = String, Path, description = "The app that sends the message."),
        ("Prefer" = Option<String>, Header, description = "`wait=N`, N from 1 to 30: answer when the message has ended, or after N seconds.", example = "wait=10"),
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible ASCII characters that identify this request.", example = "order-42-paid"),
    ),
    request_body = AnyMessage,
    responses(
        (status = 200, description = "The message has ended, or the request was a dry run.", body = Message,
            headers(
                ("Preference-Applied" = String, description = "The `wait` that was applied."),
                ("Idempotent-Replayed" = String, description = "`true`: the same request was made before."),
            )),
        (status = 202, description = "The message is accepted and will be sent.", body = Message,
            headers(
                ("Location" = String, description = "The path of the new resource."),
                ("Preference-Applied" = String, description = "The `wait` that was applied."),
                ("Idempotent-Replayed" = String, description = "`true`: the same request was made before."),
            )),
        Missing, Body, Counted, Guarded,
    ),
)]
async fn send_message(
    State(state): State<ApiState>,
    caller: Authorized,
    AppIdPath(appid): AppIdPath,
    wait: Wait,
    Keyed { body, key }: Keyed<MessageRequest>,
) -> Result<Response, Problem> {
    let now = (state.now)();
    let tenant = state.owner(&caller, &appid).await?;
    let request = Request::from(body);
    let templates = state.delivery.templates();
    let wanted = [(request.channel, request.template_id.as_str())];
    let catalog = templates.catalog(tenant, &appid, wanted).await;
    let template = catalog.look_up(request.channel, &request.template_id);
    let checked = request.check_against(now, template, catalog.value_rules());
    let mut draft = templates
        .admit(tenant, checked, key.as_ref())
        .await
        .map_err(|error| submit_refusal(error, now))?;
    let dry_run = draft.dry_run;
    let mut warnings = std::mem::take(&mut draft.warnings);
    let accepted = state
        .delivery
        .submit(tenant, &appid, draft, key)
        .await
        .map_err(|error| submit_refusal(error, now))?;
    if dry_run {
        warnings.extend(template.warnings());
        let message = Message::dry(accepted.message, warnings);
        return Ok(Json(message).into_response());
    }
    Ok(answer(&state, accepted, warnings, wait).await)
}

/// Answers 200 if a wait has seen the message's end, else 202 with the message's location.
async fn answer(
    state: &ApiState,
    accepted: Accepted,
    warnings: Vec<String>,
    wait: Wait,
) -> Response {
    let Accepted { message, replayed } = accepted;
    let message = match wait.duration() {
        Some(at_most) => {
            let ended = state
                .delivery
                .wait_ended(message.tenant, message.id, at_most);
            // The message is accepted, whatever happens to the wait: an error here would make clients send a second copy.
            ended.await.unwrap_or_else(|error| {
                tracing::warn!(%error, "cannot wait for a message's end");
                message
            })
        }
        None => message,
    };
    let ended = wait.duration().is_some() && message.status.is_end();
    let place = location(&format!("/v1/messages/{}", message.id));
    let body = Json(Message::with_warnings(message, warnings));
    let mut response = if ended {
        body.into_response()
    } else {
        (StatusCode::ACCEPTED, place, body).into_response()
    };
    let headers = response.headers_mut();
    if let Some(Ok(applied)) = wait.applied().map(HeaderValue::try_from) {
        headers.insert(PREFERENCE_APPLIED, applied);
    }
    if replayed {
        headers.insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

/// List messages
///
/// An app's messages, newest first. Filters can be combined.
#[utoipa::path(
    get, path = "/v1/apps/{appid}/messages", tag = "messages", security(("oauth2" = ["messages:read"])),
    params(("appid" = String, Path, description = "The app that sends the messages."), MessagesQuery),
    responses((status = 200, description = "One page.", body = Page<Message>), Missing, Query, Guarded),
)]
async fn list_messages(
    State(state): State<ApiState>,
    caller: Authorized,
    AppIdPath(appid): AppIdPath,
    ApiQuery(query): ApiQuery<MessagesQuery>,
) -> Result<Page<Message>, Problem> {
    let (filter, page) = query.split()?;
    let tenant = state.owner(&caller, &appid).await?;
    Ok(Page::of(
        state
            .delivery
            .messages(tenant, &appid, &filter, &page)
            .await?,
    ))
}

/// Read a message
///
/// The content of the message, its status and every attempt to send the message.
#[utoipa::path(
    get, path = "/v1/messages/{id}", tag = "messages", security(("oauth2" = ["messages:read"])),
    params(("id" = String, Path, description = "The message's id.")),
    responses((status = 200, description = "The message.", body = Message), Missing, Guarded),
)]
async fn get_message(
    State(state): State<ApiState>,
    caller: Authorized,
    MessageIdPath(id): MessageIdPath,
) -> Result<Json<Message>, Problem> {
    let message = state.delivery.message(caller.tenant(), id).await?;
    message
        .map(|message| Json(message.into()))
        .ok_or_else(|| Problem::not_found("message"))
}

/// Cancel a message
///
/// Withdraws a message that has not been sent. A message that may have reached WeChat in an earlier attempt ends as
/// `uncertain`. A canceled message stays canceled. A message that WeChat may have already cannot be canceled: the
/// answer is 409 and names the message's status.
#[utoipa::path(
    post, path = "/v1/messages/{id}/cancel", tag = "messages", security(("oauth2" = ["messages:send"])),
    params(("id" = String, Path, description = "The message's id.")),
    responses((status = 200, description = "The message is canceled.", body = Message), Missing, Conflict, Guarded),
)]
async fn cancel_message(
    State(state): State<ApiState>,
    caller: Authorized,
    MessageIdPath(id): MessageIdPath,
) -> Result<Json<Message>, Problem> {
    let tenant = state.sender(&caller, id).await?;
    match state.delivery.cancel(tenant, id).await {
        Ok(message) => Ok(Json(message.into())),
        Err(error) => Err(change_refusal(error, (state.now)())),
    }
}

/// Retry a message
///
/// Sends a failed, expired, canceled, uncertain or undelivered message again. If the message's `send_at` is still to
/// come, the message becomes `scheduled` again and waits for that time. The ttl starts again at `send_at`, or now if
/// that time has passed. The earlier attempts stay in the message. The retry counts as a message of today. With
/// `Prefer: wait=N` the answer comes when the message has ended or after N seconds. With an `Idempotency-Key`, a repeat
/// of the same request within 24 hours retries only once.
#[utoipa::path(
    post, path = "/v1/messages/{id}/retry", tag = "messages", security(("oauth2" = ["messages:send"])),
    params(
        ("id" = String, Path, description = "The message's id."),
        ("Prefer" = Option<String>, Header, description = "`wait=N`, N from 1 to 30: answer when the message has ended, or after N seconds.", example = "wait=10"),
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible ASCII characters that identify this request.", example = "order-42-again"),
    ),
    responses(
        (status = 200, description = "The message has ended.", body = Message,
            headers(
                ("Preference-Applied" = String, description = "The `wait` that was applied."),
                ("Idempotent-Replayed" = String, description = "`true`: the same request was made before."),
            )),
        (status = 202, description = "The message will be sent again.", body = Message,
            headers(
                ("Location" = String, description = "The path of the new resource."),
                ("Preference-Applied" = String, description = "The `wait` that was applied."),
                ("Idempotent-Replayed" = String, description = "`true`: the same request was made before."),
            )),
        Missing, Conflict, Unfit, Counted, Guarded,
    ),
)]
async fn retry_message(
    State(state): State<ApiState>,
    caller: Authorized,
    MessageIdPath(id): MessageIdPath,
    wait: Wait,
    BareKey(key): BareKey,
) -> Result<Response, Problem> {
    let tenant = state.sender(&caller, id).await?;
    match state.delivery.retry(tenant, id, key).await {
        Ok(accepted) => Ok(answer(&state, accepted, Vec::new(), wait).await),
        Err(error) => Err(change_refusal(error, (state.now)())),
    }
}
