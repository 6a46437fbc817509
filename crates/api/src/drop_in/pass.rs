//! The pass-through: every other call goes to WeChat with the app's real token in place of the gateway's token.

use std::time::Duration;

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, Request, State},
    response::{IntoResponse, Response},
    routing::any,
};
use delivery::{
    BodyMemory, ForwardError, ForwardedAnswer, ForwardedCall, MAX_FORWARDED, PassThroughError,
    is_forwardable, query_carries_secret,
};
use domain::scope::Scope;
use futures::StreamExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use tokio::time::timeout;
use utoipa::openapi::{
    Content, OpenApi, Ref, Required, ResponseBuilder, ResponsesBuilder,
    path::{HttpMethod, OperationBuilder, ParameterBuilder, ParameterIn, PathItem},
    request_body::RequestBodyBuilder,
    schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type},
    security::SecurityRequirement,
};

use super::{
    gate::{Parameters, enter},
    json::unread,
    reply::{INVALID_APPSECRET, INVALID_URL, UNAUTHORIZED, WechatReply},
};
use crate::{
    ApiState,
    body_limits::PASS_THROUGH,
    extract::{Unread, announced, announces_too_much},
    openapi::{Always, DROP_IN, WECHAT_SCHEME},
};

/// The longest pause in an upload before the gateway gives up.
const STALLED: Duration = Duration::from_secs(10);

pub(super) fn routes() -> Router<ApiState> {
    let users = Router::new().route("/sns/{*path}", any(not_here));
    PASS_THROUGH
        .iter()
        .fold(users, |router, home| {
            router.route(&format!("{home}{{*path}}"), any(pass_on))
        })
        .layer(DefaultBodyLimit::max(MAX_FORWARDED))
}

/// The answer to calls with a user's own token, which the gateway does not handle.
async fn not_here() -> WechatReply {
    WechatReply::refused(
        INVALID_URL,
        "invalid url: under /sns the gateway has only jscode2session, send other calls to https://api.weixin.qq.com",
    )
}

async fn pass_on(State(state): State<ApiState>, request: Request) -> Response {
    match try_pass_on(&state, request).await {
        Ok(answer) => response(answer),
        Err(reply) => reply.into_response(),
    }
}

async fn try_pass_on(state: &ApiState, request: Request) -> Result<ForwardedAnswer, WechatReply> {
    let query = Parameters::of(request.uri());
    let entrant = enter(state, request.extensions(), &query, Scope::WechatProxy).await?;
    let path = request.uri().path().to_owned();
    let method = request.method().clone();
    if !is_forwardable(&path) || !matches!(method, Method::GET | Method::POST) {
        return Err(WechatReply::refused(
            INVALID_URL,
            "invalid url: the gateway does not forward this call",
        ));
    }
    let query = without_token(request.uri().query().unwrap_or_default());
    if query_carries_secret(&query) {
        return Err(with_secret());
    }
    if announces_too_much(&request) {
        return Err(unread(Unread::TooLarge));
    }
    let announced = match method {
        Method::POST => announced(&request).unwrap_or(0),
        _ => 0,
    };
    let room = state.delivery.room(entrant.tenant, announced).await;
    let mut room = room.map_err(|error| refusal(error, &method))?;
    let call = ForwardedCall {
        method: method.to_string(),
        path,
        query,
        content_type: text(request.headers(), &header::CONTENT_TYPE),
        body: if method == Method::POST {
            upload(request, announced, &mut room).await?
        } else {
            Bytes::new()
        },
    };
    let answer = state
        .delivery
        .forward(room, entrant.tenant, &entrant.appid, &call, &entrant.origin)
        .await;
    answer.map_err(|error| refusal(error, &method))
}

/// Reads the body into the memory that the call has reserved. Fails if the upload stalls.
async fn upload(
    request: Request,
    announced: usize,
    room: &mut BodyMemory,
) -> Result<Bytes, WechatReply> {
    let mut parts = request.into_body().into_data_stream();
    let mut body = Vec::with_capacity(announced);
    loop {
        let part = timeout(STALLED, parts.next()).await;
        let part = part.map_err(|_| unread(Unread::TooSlow))?;
        let Some(part) = part else {
            return Ok(body.into());
        };
        let part = part.map_err(|error| unread(Unread::of(StatusCode::BAD_REQUEST, &error)))?;
        let length = body.len() + part.len();
        if length > MAX_FORWARDED {
            return Err(unread(Unread::TooLarge));
        }
        let grown = room.grow_to(length).await;
        grown.map_err(|error| refusal(error, &Method::GET))?;
        body.extend_from_slice(&part);
    }
}

fn with_secret() -> WechatReply {
    WechatReply::refused(
        UNAUTHORIZED,
        "api unauthorized: the gateway does not forward calls with a secret",
    )
}

/// The query without the gateway's token. All other bytes stay unchanged, because the query may be in any encoding.
fn without_token(query: &str) -> String {
    let is_token = |pair: &&str| {
        let mut read = form_urlencoded::parse(pair.as_bytes());
        read.any(|(name, _)| name == "access_token")
    };
    let others = query.split('&').filter(|pair| !is_token(pair));
    others.collect::<Vec<_>>().join("&")
}

pub(super) fn refusal(error: PassThroughError, method: &Method) -> WechatReply {
    match error {
        PassThroughError::App(error) => error.into(),
        PassThroughError::TokenRefused => {
            WechatReply::busy("WeChat refuses the app's own access token")
        }
        PassThroughError::CredentialRefused => WechatReply::busy(
            "WeChat accepts the app's own access token and refuses another credential of this call: check the \
             credentials in the call's body and query",
        ),
        PassThroughError::SecretRefused => WechatReply::refused(
            INVALID_APPSECRET,
            "invalid appsecret: WeChat refuses the AppSecret that the gateway has for the app, set the current one \
             with PUT /v1/apps/{appid}/secret",
        ),
        PassThroughError::NoSecret => WechatReply::busy(
            "the gateway cannot read the app's AppSecret at the moment, try again later",
        ),
        PassThroughError::Full => {
            WechatReply::busy("too many calls are in progress, make fewer calls at the same time")
        }
        PassThroughError::Forward(ForwardError::Refused(why)) => {
            WechatReply::refused(INVALID_URL, format!("invalid url: {why}"))
        }
        PassThroughError::Forward(ForwardError::Secret) => with_secret(),
        PassThroughError::Forward(ForwardError::Unclear(why)) if *method == Method::POST => {
            WechatReply::uncertain(&format!(
                "WeChat may or may not have carried out the call, {why}"
            ))
        }
        PassThroughError::Forward(ForwardError::NotDone(why) | ForwardError::Unclear(why)) => {
            WechatReply::busy(&why)
        }
    }
}

/// A browser must not treat WeChat's content as a page of the gateway, of any content type.
const NO_PAGE: HeaderValue = HeaderValue::from_static("sandbox");

/// Of WeChat's headers the response keeps only the content type and the content disposition.
pub(super) fn response(answer: ForwardedAnswer) -> Response {
    let mut response = Response::new(Body::from(answer.body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, NO_PAGE);
    for (name, value) in [
        (header::CONTENT_TYPE, answer.content_type),
        (header::CONTENT_DISPOSITION, answer.content_disposition),
    ] {
        if let Some(Ok(value)) = value.map(HeaderValue::try_from) {
            headers.insert(name, value);
        }
    }
    response
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// Adds the operations of the pass-through.
pub(super) fn document(document: &mut OpenApi) {
    for home in PASS_THROUGH {
        let name = home.trim_matches('/').replace('-', "_");
        let mut item = PathItem::new(HttpMethod::Get, operation(&name, home, false));
        item.post = Some(operation(&name, home, true));
        document.paths.paths.insert(format!("{home}{{path}}"), item);
    }
}

fn operation(name: &str, home: &str, is_post: bool) -> utoipa::openapi::path::Operation {
    let method = if is_post { "post" } else { "get" };
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let bytes = || {
        let bytes = text().format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary)));
        Content::builder().schema(Some(bytes)).build()
    };
    let path = ParameterBuilder::new()
        .name("path")
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some(
            "The rest of the path, slashes included, such as `menu/create`.",
        ))
        .schema(Some(text()));
    let answer = Content::builder()
        .schema(Some(Ref::from_schema_name("WechatReply")))
        .build();
    let passed = ResponseBuilder::new()
        .description("WeChat's answer, unchanged except that the token is removed; or `errcode` and `errmsg` of the gateway.")
        .content("application/json", answer)
        .content("*/*", bytes())
        .build();
    let operation = OperationBuilder::new()
        .operation_id(Some(format!("pass_on_{method}_{name}")))
        .tag(DROP_IN)
        .summary(Some(format!("Forward a call under `{home}` to WeChat")))
        .description(Some(
            "Forwards any call that the gateway does not answer itself, with the app's real token in place of the \
             gateway's token. Query, body and content type stay unchanged; the limit is 10 MiB in each direction. \
             Where WeChat refuses the token, the gateway repeats the call once, with a fresh token if the refused \
             token is dead. The gateway does not forward calls that return tokens, tickets or credentials or that \
             clear quotas, nor paths with dots or escapes: 40066; nor calls with a field named like a secret in the \
             query or the body: 48001. Needs a key with the scope `wechat:proxy`: 48001.",
        ))
        .security(SecurityRequirement::new(
            WECHAT_SCHEME,
            Vec::<String>::new(),
        ))
        .parameter(path)
        .responses(
            ResponsesBuilder::new()
                .response("200", passed)
                .responses_from_into_responses::<Always>(),
        );
    if is_post {
        let body = RequestBodyBuilder::new()
            .description(Some("The body of WeChat's call."))
            .content("*/*", bytes());
        operation.request_body(Some(body.build())).build()
    } else {
        operation.build()
    }
}
