//! One request, one answer, and an honest word on what is known when there is none.

use std::{error::Error, fmt::Write as _, time::Duration};

use domain::retry::Delay;
use reqwest::{Request, Response, StatusCode, header::RETRY_AFTER};

use crate::decode::{self, Reply};

/// The longest body read. WeChat's answers have some hundred bytes.
const MAX_BODY: usize = 64 * 1024;
/// The same for a list: WeChat's longest have 50 templates of a few kilobytes.
const MAX_LIST: usize = 1024 * 1024;
/// The longest wait that a `Retry-After` may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_hours(1);

/// What came of a request.
pub(crate) enum Heard {
    /// WeChat answered in its own words.
    Reply(Box<Reply>),
    /// WeChat has certainly not acted on it; the text says why.
    NotDone(Delay, String),
    /// The request left and nobody knows what became of it; the text says how it broke.
    Unclear(String),
}

/// Sends `request` once.
///
/// WeChat's API answers every request with HTTP 200, errors too. Another status comes from a gateway on the way:
///
/// - 504 means that it passed the request on and got no answer (RFC 9110 §15.6.5): nobody knows.
/// - Other 5xx and 429 mean that it could not pass the request on. Tried later, when `Retry-After` says if that is
///   within an hour.
/// - 3xx and other 4xx mean by HTTP's own rules that the request was not carried out. Tried later too: a firewall or
///   a wrong base URL must not fail every message of every tenant for good.
/// - An `errcode` in the body is WeChat's word and counts whatever the status.
pub(crate) async fn exchange(http: &reqwest::Client, request: Request) -> Heard {
    exchange_up_to(MAX_BODY, http, request).await
}

/// As [`exchange`], where the answer is a list.
pub(crate) async fn exchange_list(http: &reqwest::Client, request: Request) -> Heard {
    exchange_up_to(MAX_LIST, http, request).await
}

async fn exchange_up_to(most: usize, http: &reqwest::Client, request: Request) -> Heard {
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
            (Some(reply), _) => Heard::Reply(Box::new(reply)),
            (None, Ok(_)) => Heard::Unclear(format!(
                "HTTP {} with a body that is not WeChat's JSON",
                status.as_u16()
            )),
            (None, Err(broken)) => Heard::Unclear(broken),
        };
    }
    match reply.filter(|reply| reply.errcode.is_some_and(|code| code != 0)) {
        Some(reply) => Heard::Reply(Box::new(reply)),
        None => proxied(status, delay),
    }
}

/// What a status other than success says where the body is not WeChat's: a proxy before WeChat answers, and only its
/// time-out leaves open what WeChat did.
pub(crate) fn proxied(status: StatusCode, delay: Delay) -> Heard {
    if status == StatusCode::GATEWAY_TIMEOUT {
        Heard::Unclear(describe_status(status))
    } else {
        Heard::NotDone(delay, describe_status(status))
    }
}

/// What is known of a request that got no answer.
pub(crate) fn unanswered(error: reqwest::Error) -> Heard {
    let at_connect = error.is_connect();
    let timed_out = error.is_timeout();
    let unbuilt = error.is_builder();
    let causes = describe(error);
    if at_connect {
        // Nothing of the request leaves before the connection, TLS included, stands.
        Heard::NotDone(
            Delay::Backoff,
            format!("cannot connect to WeChat: {causes}"),
        )
    } else if unbuilt {
        Heard::NotDone(
            Delay::Backoff,
            format!("the request could not be built: {causes}"),
        )
    } else if timed_out {
        Heard::Unclear("no answer within the time-out".to_owned())
    } else {
        // hyper repeats a request itself when it had picked an idle connection that was closed and knows that no
        // byte of it was written; whatever arrives here may have been read by WeChat.
        Heard::Unclear(format!("the connection broke before the answer: {causes}"))
    }
}

/// Reads the body, or says why it cannot be used.
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
            Err(error) => return Err(format!("the answer broke off: {}", describe(error))),
        }
    }
}

/// The whole seconds of a `Retry-After`, when they are usable; its other form, a date, is not worth a clock here.
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

/// The causes from the outside in. The URL is cut off first: it carries the token or the `AppSecret`.
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
