//! Sends one request, and states exactly what is known if no answer comes.

use std::{error::Error, fmt::Write as _, time::Duration};

use domain::retry::Delay;
use reqwest::{Request, Response, StatusCode, header::RETRY_AFTER};

use crate::decode::{self, Reply};

/// The longest body that is read. WeChat's answers have some hundred bytes.
const MAX_BODY: usize = 64 * 1024;
/// The longest body of a list that is read: WeChat's longest lists have 50 templates of a few kilobytes.
const MAX_LIST: usize = 1024 * 1024;
/// The longest wait that the gateway accepts from `Retry-After`.
const MAX_RETRY_AFTER: Duration = Duration::from_hours(1);

/// The result of a request.
pub(crate) enum ExchangeResult {
    /// WeChat answered with JSON of the expected form.
    Reply(Box<Reply>),
    /// WeChat has certainly not acted on the request; the text states the reason.
    NotDone(Delay, String),
    /// The request left and the outcome is unknown; the text states the error.
    Unclear(String),
}

/// Sends `request` once.
///
/// WeChat's API answers every request with HTTP 200, errors too. Another status comes from a proxy on the way:
///
/// - 503 means that the proxy did not pass the request on. The same holds for 3xx and 4xx, by the rules of HTTP: a firewall
///   or a wrong base URL must not end every message of every tenant as failed. The request is retried later, after the time
///   in `Retry-After` if that is within an hour.
/// - All others (500, 502, 504 …) may come from a proxy that had passed the request on: the outcome is unknown.
/// - An `errcode` of a refusal in the body comes from WeChat and counts with any status. A success in the body contradicts
///   the status: the outcome is unknown.
pub(crate) async fn exchange(http: &reqwest::Client, request: Request) -> ExchangeResult {
    exchange_up_to(MAX_BODY, http, request).await
}

/// As [`exchange`], for an answer that is a list.
pub(crate) async fn exchange_list(http: &reqwest::Client, request: Request) -> ExchangeResult {
    exchange_up_to(MAX_LIST, http, request).await
}

async fn exchange_up_to(most: usize, http: &reqwest::Client, request: Request) -> ExchangeResult {
    let mut response = match http.execute(request).await {
        Ok(response) => response,
        Err(error) => return unanswered(error),
    };
    let status = response.status();
    let delay = retry_after(&response).map_or(Delay::Backoff, Delay::After);
    let body = read(&mut response, most).await;
    let reply = body.as_deref().ok().and_then(decode::decode);
    if status.is_success() {
        return match (reply, body) {
            (Some(reply), _) => ExchangeResult::Reply(Box::new(reply)),
            (None, Ok(_)) => ExchangeResult::Unclear(format!(
                "HTTP {} with a body that is not WeChat's JSON",
                status.as_u16()
            )),
            (None, Err(broken)) => ExchangeResult::Unclear(broken),
        };
    }
    match reply {
        Some(reply) if reply.errcode.is_some_and(|code| code != 0) => {
            ExchangeResult::Reply(Box::new(reply))
        }
        reply => proxied(status, reply.as_ref(), delay),
    }
}

/// The result for a status other than success, where the body (parsed as `reply`) contains no refusal from WeChat: a
/// proxy in front of WeChat answers, or a success comes with the wrong status.
pub(crate) fn proxied(status: StatusCode, reply: Option<&Reply>, delay: Delay) -> ExchangeResult {
    let is_kept = status.is_redirection()
        || status.is_client_error()
        || status == StatusCode::SERVICE_UNAVAILABLE;
    let is_success = reply.is_some_and(|reply| reply.errcode == Some(0) || reply.msgid.is_some());
    if is_kept && !is_success {
        ExchangeResult::NotDone(delay, describe_status(status))
    } else {
        ExchangeResult::Unclear(describe_status(status))
    }
}

/// The result of a request without an answer.
pub(crate) fn unanswered(error: reqwest::Error) -> ExchangeResult {
    let at_connect = error.is_connect();
    let timed_out = error.is_timeout();
    let unbuilt = error.is_builder();
    let causes = describe(error);
    if at_connect {
        // No byte of the request leaves before the connection, including TLS, is established.
        ExchangeResult::NotDone(
            Delay::Backoff,
            format!("cannot connect to WeChat: {causes}"),
        )
    } else if unbuilt {
        ExchangeResult::NotDone(
            Delay::Backoff,
            format!("the request could not be built: {causes}"),
        )
    } else if timed_out {
        ExchangeResult::Unclear("no answer within the time-out".to_owned())
    } else {
        // hyper repeats a request itself if hyper had picked a closed idle connection and knows that no byte was
        // written. With any other error WeChat may have read the request.
        ExchangeResult::Unclear(format!("the connection broke before the answer: {causes}"))
    }
}

/// Reads the body, or returns why the body cannot be used.
async fn read(response: &mut Response, most: usize) -> Result<Vec<u8>, String> {
    let announced = response.content_length().unwrap_or(0);
    let mut body = Vec::with_capacity(usize::try_from(announced).unwrap_or(MAX_BODY).min(MAX_BODY));
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > most => {
                return Err(format!("an answer of more than {} KiB", most / 1024));
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body),
            Err(error) if error.is_timeout() => {
                return Err("no complete answer within the time-out".to_owned());
            }
            Err(error) => return Err(format!("the answer is incomplete: {}", describe(error))),
        }
    }
}

/// The whole seconds of a `Retry-After`, if the value is usable. The other form, a date, is not supported: it needs a
/// clock.
fn retry_after(response: &Response) -> Option<Duration> {
    let seconds: u64 = response
        .headers()
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds)).filter(|&wait| !wait.is_zero() && wait <= MAX_RETRY_AFTER)
}

fn describe_status(status: StatusCode) -> String {
    let reason = status.canonical_reason().unwrap_or("unknown status");
    format!(
        "HTTP {} ({reason}) instead of WeChat's answer",
        status.as_u16()
    )
}

/// The error and its causes, outermost first, without the URL: the URL contains the token or the `AppSecret`.
pub(crate) fn describe(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        // Writing to a String cannot fail.
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}
