//! The pass-through: calls that the gateway forwards to WeChat without an own implementation. This module controls what
//! leaves, what comes back, and what must never do either.

use std::time::Duration;

use bytes::Bytes;
use domain::{
    app::AppId,
    retry::Delay,
    secret::{AccessToken, AppSecret},
};
use reqwest::{
    Body, Method, Request, Response,
    header::{
        CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName,
        HeaderValue,
    },
};

mod headers;
mod mask;
mod rules;

pub use self::rules::{is_forwardable, query_carries_secret};

use crate::{
    Client,
    codes::{self, Action, Endpoint},
    decode::{Reply, decode},
    transport::{self, ExchangeResult},
};

/// The largest body that is forwarded, in either direction.
pub const MAX_FORWARDED: usize = 10 * 1024 * 1024;
/// The limit for a whole call. The limit is long because pictures and videos are uploaded by these calls.
const PATIENCE: Duration = Duration::from_secs(30);
/// The largest body that is parsed as a refusal in JSON.
const LONGEST_REFUSAL: usize = 64 * 1024;
/// The path of the login of a mini-program's users.
const CODE_TO_SESSION: &str = "/sns/jscode2session";
const NOT_PASSED_ON: ForwardError = ForwardError::Refused("the gateway does not forward this path");

/// A call to forward.
#[derive(Clone, Debug)]
pub struct ForwardedCall {
    /// The HTTP method, such as `POST`.
    pub method: String,
    /// The path below the base URL, such as `/cgi-bin/menu/create`: see [`is_forwardable`].
    pub path: String,
    /// The query without its token, with the original bytes; may be empty.
    pub query: String,
    /// The content type of the body.
    pub content_type: Option<String>,
    /// The body.
    pub body: Bytes,
}

/// WeChat's answer, which always has HTTP status 200.
#[derive(Clone, Debug)]
pub struct ForwardedAnswer {
    /// The content type of the body, from a list of allowed types.
    pub content_type: Option<String>,
    /// Marks the body as a file, with the name of the file.
    pub content_disposition: Option<String>,
    /// The body, with the token or the AppSecret masked.
    pub body: Bytes,
    /// Whether WeChat refused the token, or refused the AppSecret with the error code for a token, and did nothing.
    pub is_stale: bool,
}

/// Why there is no answer. The texts contain no tokens.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForwardError {
    /// The gateway may not forward the call.
    #[error("{0}")]
    Refused(&'static str),
    /// The query or the body contains a secret.
    #[error("the gateway does not forward calls with a secret")]
    Secret,
    /// WeChat has not acted on the call.
    #[error("{0}")]
    NotDone(String),
    /// The outcome is unknown: WeChat may have acted on the call.
    #[error("{0}")]
    Unclear(String),
}

impl Client {
    /// Forwards a call with the app's token in place of the caller's. No part of the answer contains the token.
    pub async fn forward(
        &self,
        token: &AccessToken,
        call: &ForwardedCall,
    ) -> Result<ForwardedAnswer, ForwardError> {
        if !is_forwardable(&call.path) {
            return Err(NOT_PASSED_ON);
        }
        if query_carries_secret(&call.query)
            || rules::body_carries_secret(call.content_type.as_deref(), &call.body)
        {
            return Err(ForwardError::Secret);
        }
        let method = Method::from_bytes(call.method.as_bytes())
            .map_err(|_| ForwardError::Refused("the method is not an HTTP method"))?;
        let mut url = self.route(&call.path).ok_or(NOT_PASSED_ON)?;
        url.query_pairs_mut()
            .append_pair("access_token", token.expose());
        if !call.query.is_empty() {
            let token = url.query().unwrap_or_default();
            let query = format!("{token}&{}", call.query);
            url.set_query(Some(&query));
        }
        let mut request = Request::new(method, url);
        *request.timeout_mut() = Some(PATIENCE);
        let content_type = call.content_type.as_deref().map(HeaderValue::from_str);
        if let Some(Ok(content_type)) = content_type {
            request.headers_mut().insert(CONTENT_TYPE, content_type);
        }
        if !call.body.is_empty() {
            *request.body_mut() = Some(Body::from(call.body.clone()));
        } else if *request.method() == Method::POST {
            // Some proxies refuse a POST without a content length (411).
            let headers = request.headers_mut();
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        self.answer(request, token.expose()).await
    }

    /// `GET /sns/jscode2session`: the identity behind a code from `wx.login()`, which is valid once, within five
    /// minutes. No part of the answer contains the AppSecret.
    pub async fn code_to_session(
        &self,
        appid: &AppId,
        secret: &AppSecret,
        js_code: &str,
    ) -> Result<ForwardedAnswer, ForwardError> {
        let mut url = self.route(CODE_TO_SESSION).ok_or(NOT_PASSED_ON)?;
        url.query_pairs_mut()
            .append_pair("appid", appid.as_str())
            .append_pair("secret", secret.expose())
            .append_pair("js_code", js_code)
            .append_pair("grant_type", "authorization_code");
        self.answer(Request::new(Method::GET, url), secret.expose())
            .await
    }

    async fn answer(
        &self,
        request: Request,
        secret: &str,
    ) -> Result<ForwardedAnswer, ForwardError> {
        let mut response = match self.http().execute(request).await {
            Ok(response) => response,
            Err(error) => return Err(forward_error(transport::unanswered(error))),
        };
        let encoding = text(response.headers(), &CONTENT_ENCODING);
        if encoding.is_some_and(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
            // In an encoded body the gateway can neither mask secrets nor detect a refusal.
            let why = "an answer in an encoding that the gateway did not ask for";
            return Err(ForwardError::Unclear(why.to_owned()));
        }
        let body = read(&mut response).await?;
        let reply = (body.len() <= LONGEST_REFUSAL).then(|| decode(&body));
        let reply = reply.flatten();
        let refusal = refusal(reply.as_ref());
        let status = response.status();
        if !status.is_success() && refusal.is_none() {
            let heard = transport::proxied(status, reply.as_ref(), Delay::Backoff);
            return Err(forward_error(heard));
        }
        let content_type = text(response.headers(), &CONTENT_TYPE);
        let disposition = text(response.headers(), &CONTENT_DISPOSITION);
        // The content of a file or a page is not WeChat's answer to the call.
        let is_said = disposition.is_none() && headers::may_be_json(content_type.as_deref());
        Ok(ForwardedAnswer {
            content_type: content_type.map(|value| headers::content_type(&value)),
            content_disposition: disposition
                .map(|value| headers::content_disposition(&value, secret)),
            body: mask::mask(body, secret),
            is_stale: is_said && refusal.is_some_and(is_token_refusal),
        })
    }
}

fn forward_error(heard: ExchangeResult) -> ForwardError {
    match heard {
        ExchangeResult::NotDone(_, why) => ForwardError::NotDone(why),
        ExchangeResult::Unclear(why) => ForwardError::Unclear(why),
        ExchangeResult::Reply(_) => ForwardError::Unclear("an answer without a body".to_owned()),
    }
}

async fn read(response: &mut Response) -> Result<Vec<u8>, ForwardError> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > MAX_FORWARDED => {
                let most = MAX_FORWARDED / 1024 / 1024;
                return Err(ForwardError::Unclear(format!(
                    "an answer of more than {most} MiB"
                )));
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body),
            Err(error) => {
                let why = transport::describe(error);
                return Err(ForwardError::Unclear(format!(
                    "the answer is incomplete: {why}"
                )));
            }
        }
    }
}

/// The errcode of WeChat's refusal.
fn refusal(reply: Option<&Reply>) -> Option<i64> {
    reply?.errcode.filter(|&code| code != 0)
}

/// Whether this code means that the access token is dead, for calls that are not about tokens.
pub fn is_token_refusal(errcode: i64) -> bool {
    codes::action(errcode, Endpoint::Quota) == Some(Action::StaleToken)
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}
