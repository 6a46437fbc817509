//! One post to an endpoint, with limits on time, size and address.

use std::{error::Error, fmt::Write as _, time::Duration};

use chrono::{DateTime, Utc};
use domain::secret::WebhookSecret;
use reqwest::{Response, Url, header};
use store::StoreError;

use super::{address, signature};

/// The longest that one exchange may take, from the name lookup to the last byte of the answer.
const EXCHANGE: Duration = Duration::from_secs(15);
/// The longest that a connection may take, TLS included.
const CONNECT: Duration = Duration::from_secs(5);
/// How many bytes of an answer are read.
const READ: usize = 4 * 1024;
/// How many characters of an answer are kept.
const EXCERPT: usize = 256;

/// Posts signed events.
#[derive(Clone, Debug)]
pub(super) struct WebhookClient {
    http: reqwest::Client,
    allow_private: bool,
}

/// The answer of an endpoint, or why there is none.
pub(super) struct PostResult {
    pub(super) status: Option<u16>,
    pub(super) excerpt: Option<String>,
    /// What is wrong with the answer. `None`: success.
    pub(super) error: Option<String>,
    /// How long the endpoint wants no further post.
    pub(super) retry_after: Option<Duration>,
}

/// One webhook delivery, ready to be signed and posted.
pub(super) struct DeliveryRequest<'a> {
    pub(super) url: &'a str,
    pub(super) event: &'a str,
    pub(super) secrets: &'a [WebhookSecret],
    pub(super) body: Vec<u8>,
    pub(super) at: DateTime<Utc>,
}

impl WebhookClient {
    /// `allow_private`: endpoints may have any address, and may use plain http.
    pub(super) fn new(allow_private: bool) -> Result<Self, StoreError> {
        let mut http = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .timeout(EXCHANGE)
            .pool_max_idle_per_host(2)
            .http1_only()
            .no_proxy()
            .referer(false)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .user_agent(concat!("wxgate/", env!("CARGO_PKG_VERSION")));
        if !allow_private {
            http = http.dns_resolver(address::resolver());
        }
        let http = http.build().map_err(|error| {
            StoreError::Settings(format!(
                "cannot build the HTTP client for webhooks: {}; check that the system's CA certificates are installed",
                describe(error)
            ))
        })?;
        Ok(Self {
            http,
            allow_private,
        })
    }

    /// Posts once.
    pub(super) async fn send(&self, letter: DeliveryRequest<'_>) -> PostResult {
        let url = match Url::parse(letter.url) {
            Ok(url) => url,
            Err(error) => return PostResult::broken(format!("the URL cannot be read: {error}")),
        };
        if !self.allow_private {
            // The endpoint may have been created while http was allowed.
            if url.scheme() != "https" {
                return PostResult::broken("the endpoint must have an https URL".to_owned());
            }
            // An address in the URL itself is not resolved, so the resolver does not check it.
            if address::literal(&url).is_some_and(|literal| !address::is_public(literal)) {
                return PostResult::broken(address::NOT_PUBLIC.to_owned());
            }
        }
        let signed = signature::sign(letter.secrets, letter.event, letter.at, &letter.body);
        let request = self
            .http
            .post(url)
            .header(header::CONTENT_TYPE, "application/json")
            .header("webhook-id", letter.event)
            .header("webhook-timestamp", letter.at.timestamp().to_string())
            .header("webhook-signature", signed)
            .body(letter.body);
        match request.send().await {
            Ok(response) => PostResult::read(response, letter.at).await,
            Err(error) if error.is_timeout() => {
                PostResult::broken("no answer within the time-out".to_owned())
            }
            Err(error) => PostResult::broken(describe(error)),
        }
    }
}

impl PostResult {
    pub(super) fn broken(error: String) -> Self {
        Self {
            status: None,
            excerpt: None,
            error: Some(error),
            retry_after: None,
        }
    }

    async fn read(mut response: Response, now: DateTime<Utc>) -> Self {
        let status = response.status();
        let retry_after = retry_after(&response, now);
        let mut body = Vec::new();
        let mut broke = None;
        while body.len() < READ {
            match response.chunk().await {
                Ok(Some(chunk)) => body.extend_from_slice(&chunk[..chunk.len().min(READ)]),
                Ok(None) => break,
                Err(error) if error.is_timeout() => {
                    broke = Some("no complete answer within the time-out".to_owned());
                    break;
                }
                Err(error) => {
                    broke = Some(format!("the answer is incomplete: {}", describe(error)));
                    break;
                }
            }
        }
        let error = if status.is_success() {
            broke
        } else if status.is_redirection() {
            Some(format!(
                "HTTP {}: redirects are not followed, register the URL itself",
                status.as_u16()
            ))
        } else {
            Some(format!("HTTP {}", status.as_u16()))
        };
        Self {
            status: Some(status.as_u16()),
            excerpt: Some(excerpt(&body)).filter(|text| !text.is_empty()),
            error,
            retry_after,
        }
    }
}

/// The beginning of a body, as a text that every database takes.
fn excerpt(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let clean = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(EXCERPT);
    clean.collect::<String>().trim().to_owned()
}

/// Both forms of `Retry-After`: seconds, or a date.
fn retry_after(response: &Response, now: DateTime<Utc>) -> Option<Duration> {
    let text = response
        .headers()
        .get(header::RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = DateTime::parse_from_rfc2822(text).ok()?;
    (date.with_timezone(&Utc) - now).to_std().ok()
}

/// The chain of causes, outermost first. Without the URL, which may contain a secret key of its owner.
fn describe(error: reqwest::Error) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_short_and_clean() {
        assert_eq!(excerpt(b"\0 no\r\nway \xff "), "no  way \u{fffd}");
        assert_eq!(
            excerpt("好".repeat(500).as_bytes()).chars().count(),
            EXCERPT
        );
    }

    async fn refusal(url: &str) -> String {
        let letter = DeliveryRequest {
            url,
            event: "evt_1",
            secrets: &[],
            body: Vec::new(),
            at: DateTime::UNIX_EPOCH,
        };
        let answer = WebhookClient::new(false).unwrap().send(letter).await;
        assert_eq!(answer.status, None);
        answer.error.unwrap()
    }

    /// Also an endpoint created while private addresses were allowed, or with a name that resolves differently now.
    #[tokio::test]
    async fn nothing_private_is_connected_to() {
        for url in [
            "https://localhost:9/",
            "https://127.0.0.1:9/",
            "https://[::1]:9/",
        ] {
            let error = refusal(url).await;
            assert!(error.contains(address::NOT_PUBLIC), "{url}: {error}");
        }
        assert!(refusal("http://1.1.1.1/").await.contains("https"));
    }
}
