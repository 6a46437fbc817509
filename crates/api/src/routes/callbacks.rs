//! Callbacks: the endpoint where WeChat checks an app's URL and reports events.
//!
//! Every callback without proof gets the same refusal, for an unknown app as for a wrong signature: a stranger learns
//! neither which apps exist nor which check failed. The log has the reason.

use std::net::IpAddr;

use axum::{
    RequestPartsExt,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Path, Query, Request, State},
    response::{IntoResponse, Response},
};
use delivery::{CallbackError, CallbackQuery};
use domain::app::AppId;
use http::{Extensions, header, request::Parts};
use tenancy::ClientAddress;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    ApiState,
    body_limits::MAX_CALLBACK,
    extract::{Unread, read_whole},
    openapi::{Always, CALLBACKS, Often, Pushed, Signed, Unready},
    problem::{Problem, ProblemKind},
    request_origin::{origin, proof},
};

/// The URL of an app's callbacks.
pub(crate) fn url(base_url: &str, appid: &AppId) -> String {
    format!("{base_url}/callbacks/{appid}")
}

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(check_callback_url, receive_callback))
        .layer(DefaultBodyLimit::max(MAX_CALLBACK))
}

/// Check an app's URL
///
/// WeChat calls this URL when the URL is saved in WeChat's console. WeChat's signature is the credential: WeChat signs
/// with the Token, which the app must have as `callback_token`.
#[utoipa::path(
    get, path = "/callbacks/{appid}", tag = CALLBACKS,
    params(
        ("appid" = String, Path, description = "The app."),
        ("signature" = String, Query, description = "SHA-1 in hex over the sorted Token, timestamp and nonce.",
            example = "f464b24fc39322e44b38aa78f5edd27bd1441696"),
        ("timestamp" = String, Query, description = "The time of the signature, in seconds since 1970.", example = "1714036504"),
        ("nonce" = String, Query, description = "A random text of WeChat's.", example = "1514711492"),
        ("echostr" = String, Query, description = "The text to answer with."),
    ),
    responses(
        (status = 200, description = "The `echostr`, unchanged.", body = String, content_type = "text/plain"),
        Signed, Often, Unready, Always,
    ),
)]
async fn check_callback_url(
    State(state): State<ApiState>,
    extensions: Extensions,
    Addressed { appid, from, query }: Addressed,
) -> Result<Response, Problem> {
    let callbacks = state.delivery.callbacks();
    match callbacks.check_url(&appid, from, &query).await {
        Ok(echo) => {
            proof(&extensions).give();
            Ok(text(echo))
        }
        Err(error) => Err(told(&state, &extensions, error).await),
    }
}

/// Receive an event
///
/// WeChat calls this URL, in plain, compatible or safe mode, with JSON or XML. WeChat's signature is the credential. If
/// the app has a `callback_aes_key`, the callback must be encrypted, because the plain signature does not cover the
/// body. The gateway answers when the event is in the database. WeChat repeats a callback without an answer, and
/// repeats count once. The timestamp has ten digits and lies within 5 minutes of the gateway's time, and `CreateTime`
/// lies within 5 minutes of the timestamp. The gateway refuses more than 2000 callbacks a second for one app from one
/// address, and callbacks that name one unknown app after the other; WeChat must repeat refused callbacks.
#[utoipa::path(
    post, path = "/callbacks/{appid}", tag = CALLBACKS,
    params(
        ("appid" = String, Path, description = "The app."),
        ("signature" = Option<String>, Query, description = "SHA-1 in hex over the sorted Token, timestamp and nonce.",
            example = "f464b24fc39322e44b38aa78f5edd27bd1441696"),
        ("timestamp" = String, Query, description = "The time of the signature, in seconds since 1970.", example = "1714036504"),
        ("nonce" = String, Query, description = "A random text of WeChat's.", example = "1514711492"),
        ("encrypt_type" = Option<String>, Query, description = "`aes` where the body is encrypted.", example = "aes"),
        ("msg_signature" = Option<String>, Query, description = "SHA-1 in hex over the sorted Token, timestamp, nonce and ciphertext.",
            example = "046e02f8204d34f8ba5fa3b1db94908f3df2e9b3"),
    ),
    request_body(description = "WeChat's event, or the encrypted envelope around the event.", content(
        (Object = "application/json", example = json!({"ToUserName": "gh_0123456789ab", "Encrypt": "…"})),
        (String = "text/xml"),
    )),
    responses(
        (status = 200, description = "`success`", body = String, content_type = "text/plain"),
        Signed, Pushed, Often, Unready, Always,
    ),
)]
async fn receive_callback(
    State(state): State<ApiState>,
    extensions: Extensions,
    Addressed { appid, from, query }: Addressed,
    CallbackBody(body): CallbackBody,
) -> Result<Response, Problem> {
    let callbacks = state.delivery.callbacks();
    match callbacks.receive(&appid, from, &query, &body).await {
        Ok(()) => {
            proof(&extensions).give();
            Ok(text("success".to_owned()))
        }
        Err(error) => Err(told(&state, &extensions, error).await),
    }
}

/// The appid in the path, the client's address and WeChat's query parameters.
struct Addressed {
    appid: AppId,
    /// The network of the client's address, by which the gateway counts callbacks.
    from: Option<IpAddr>,
    query: CallbackQuery,
}

impl FromRequestParts<ApiState> for Addressed {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Problem> {
        let path = parts.extract::<Path<String>>().await.ok();
        let appid = path.and_then(|Path(text)| AppId::parse(text).ok());
        let query = parts.extract::<Query<CallbackQuery>>().await.ok();
        let (Some(appid), Some(Query(query))) = (appid, query) else {
            let why = "the path has no appid, or the query is not WeChat's";
            let refusal = refused().caused_by(why);
            return Err(counted(state, &parts.extensions, refusal).await);
        };
        let client = parts.extensions.get::<ClientAddress>();
        Ok(Self {
            appid,
            from: client.map(|client| client.network()),
            query,
        })
    }
}

/// The body of a callback.
struct CallbackBody(Bytes);

impl<S: Send + Sync> FromRequest<S> for CallbackBody {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        match read_whole(request, state).await {
            Ok(body) => Ok(Self(body)),
            Err(Unread::TooLarge) => {
                let detail = format!(
                    "a callback may have at most {MAX_CALLBACK} bytes: WeChat's callbacks are far smaller"
                );
                Err(Problem::new(ProblemKind::PayloadTooLarge, detail))
            }
            Err(unread) => Err(unread.into()),
        }
    }
}

/// The answer to a callback that the gateway does not accept.
async fn told(state: &ApiState, extensions: &Extensions, error: CallbackError) -> Problem {
    match error {
        CallbackError::Refused(_) => counted(state, extensions, error.into()).await,
        CallbackError::TooMany { .. }
        | CallbackError::Unavailable(_)
        | CallbackError::Broken(_) => error.into(),
    }
}

/// Counts the refusal against the client's address. An address with too many refusals gets 429 instead.
async fn counted(state: &ApiState, extensions: &Extensions, refusal: Problem) -> Problem {
    let tenancy = state.tenancy.by(origin(extensions));
    match tenancy.count_failed_callback().await {
        Ok(()) => refusal,
        Err(wait) => {
            let words = "too many callbacks from this address were not accepted: wait as long as Retry-After says";
            Problem::new(ProblemKind::RateLimited, words).retry_after(wait)
        }
    }
}

/// The one refusal for every callback without proof.
fn refused() -> Problem {
    Problem::new(
        ProblemKind::BadSignature,
        ProblemKind::BadSignature.example(),
    )
}

impl From<CallbackError> for Problem {
    fn from(error: CallbackError) -> Self {
        match error {
            CallbackError::Refused(refusal) => refused().caused_by(refusal),
            CallbackError::TooMany { retry_after } => {
                Self::new(ProblemKind::RateLimited, ProblemKind::RateLimited.example())
                    .retry_after(retry_after)
            }
            CallbackError::Unavailable(cause) => Self::unavailable(cause),
            CallbackError::Broken(cause) => Self::internal(cause),
        }
    }
}

fn text(text: String) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}
