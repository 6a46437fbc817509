//! A client of the HTTP API.

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use reqwest::{Method, RequestBuilder, StatusCode, header::HeaderMap};
use serde_json::Value;
use tokio::sync::Mutex;

use super::{document, wait::Time};

/// Longer than the slowest answer takes, including `Prefer: wait=30`.
const TIMEOUT: Duration = Duration::from_secs(40);

/// An API key with the client secret from the answer that created the key.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) client_id: String,
    pub(crate) client_secret: String,
}

impl Key {
    /// Reads the key from the answer that created the key.
    pub(crate) fn of(created: &Value) -> Self {
        let text = |name: &str| created[name].as_str().unwrap_or_default().to_owned();
        Self {
            client_id: text("client_id"),
            client_secret: text("client_secret"),
        }
    }
}

/// A client with or without a key. A client with a key fetches access tokens when requests need one.
#[derive(Clone)]
pub(crate) struct Client {
    base: String,
    http: reqwest::Client,
    key: Option<Key>,
    time: Time,
    token: Arc<Mutex<Option<(u64, String)>>>,
}

impl Client {
    /// A client without a credential.
    pub(crate) fn anonymous(base: &str, time: &Time) -> Self {
        Self {
            base: base.to_owned(),
            http: connections(None),
            key: None,
            time: time.clone(),
            token: Arc::default(),
        }
    }

    /// The same connections with another key.
    pub(crate) fn with_key(&self, key: Key) -> Self {
        Self {
            key: Some(key),
            token: Arc::default(),
            ..self.clone()
        }
    }

    /// The same client from another address of this machine. The gateway counts failures per address.
    pub(crate) fn calling_from(&self, address: [u8; 4]) -> Self {
        Self {
            http: connections(Some(address.into())),
            ..self.clone()
        }
    }

    /// The same client at another gateway.
    pub(crate) fn at(&self, base: &str) -> Self {
        Self {
            base: base.to_owned(),
            ..self.clone()
        }
    }

    /// The clock of the world, which advances while the client waits.
    pub(crate) fn time(&self) -> &Time {
        &self.time
    }

    pub(crate) fn key(&self) -> &Key {
        self.key.as_ref().expect("a client with a key")
    }

    /// A request without a credential, for the test to extend.
    pub(crate) fn bare(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    /// A request with the client's credential, if the client has one, for the test to extend.
    pub(crate) async fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.bare(method, path);
        if self.key.is_some() {
            request.bearer_auth(self.token().await)
        } else {
            request
        }
    }

    /// A valid access token. Concurrent callers share one fetch.
    pub(crate) async fn token(&self) -> String {
        let turn = self.time.turns();
        let mut kept = self.token.lock().await;
        match &*kept {
            Some((fetched, token)) if *fetched == turn => token.clone(),
            _ => {
                let answer = self.fetch_token(None).await.expect(200);
                let token = answer["access_token"].as_str().expect("an access_token");
                kept.insert((turn, token.to_owned())).1.clone()
            }
        }
    }

    /// Asks the token endpoint, with HTTP Basic authentication.
    pub(crate) async fn fetch_token(&self, scope: Option<&str>) -> Answer {
        let Key {
            client_id,
            client_secret,
        } = self.key();
        let mut form = vec![("grant_type", "client_credentials")];
        form.extend(scope.map(|scope| ("scope", scope)));
        let request = self.bare(Method::POST, "/oauth/token");
        finish(
            request
                .basic_auth(client_id, Some(client_secret))
                .form(&form),
        )
        .await
    }

    /// Signs in at the console. Returns the session, the value of the cookie `wxgate_console`.
    pub(crate) async fn session(&self) -> String {
        let request = self
            .bare(Method::POST, "/console/sign-in")
            .header("origin", &self.base)
            .form(&[("client_secret", &self.key().client_secret)]);
        let answer = request.send().await.expect("an answer");
        let cookie = answer.headers().get("set-cookie").expect("a cookie");
        let cookie = cookie.to_str().expect("text").split(';').next();
        let session = cookie.and_then(|cookie| cookie.strip_prefix("wxgate_console="));
        session.expect("a session").to_owned()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        finish(self.request(Method::GET, path).await).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        finish(self.request(Method::DELETE, path).await).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call(Method::POST, path, Some(body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.call(Method::PUT, path, Some(body)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.call(Method::PATCH, path, Some(body)).await
    }

    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let mut request = self.request(method, path).await;
        if let Some(body) = body {
            request = request.json(body);
        }
        finish(request).await
    }
}

/// An HTTP client that connects from this address; `None`: from the default address.
fn connections(from: Option<IpAddr>) -> reqwest::Client {
    let builder = reqwest::Client::builder()
        .timeout(TIMEOUT)
        .connect_timeout(Duration::from_secs(5))
        .local_address(from)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none());
    builder.build().expect("an HTTP client")
}

/// Sends a request and reads the whole answer.
pub(crate) async fn finish(request: RequestBuilder) -> Answer {
    match attempt(request).await {
        Ok(answer) => answer,
        Err(error) => panic!("no answer: {error:?}"),
    }
}

/// As [`finish`], for a gateway that may be gone. Returns an error without an answer, or with an incomplete one.
pub(crate) async fn attempt(request: RequestBuilder) -> reqwest::Result<Answer> {
    let (client, request) = request.build_split();
    let request = request?;
    let asked = format!("{} {}", request.method(), request.url().path());
    let response = client.execute(request).await?;
    let (status, headers) = (response.status(), response.headers().clone());
    let text = response.text().await?;
    let answer = Answer {
        asked,
        status,
        headers,
        body: serde_json::from_str(&text).unwrap_or(Value::Null),
        text,
    };
    answer.check_manners();
    Ok(answer)
}

/// An answer with its whole body.
#[derive(Clone)]
pub(crate) struct Answer {
    asked: String,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// Null where the body is not JSON.
    pub(crate) body: Value,
    pub(crate) text: String,
}

impl Answer {
    /// Checks what must hold for every answer.
    fn check_manners(&self) {
        let status = self.status.as_u16();
        assert!(
            self.header("x-request-id").is_some(),
            "no X-Request-Id: {self:?}"
        );
        assert!(status != 500, "the gateway broke: {self:?}");
        if matches!(status, 429 | 503) {
            let wait = self
                .header("retry-after")
                .and_then(|text| text.parse::<u64>().ok());
            assert!(
                wait.is_some_and(|seconds| seconds > 0),
                "no Retry-After: {self:?}"
            );
        }
        let (method, path) = self.asked.split_once(' ').expect("a method and a path");
        document::check(method, path, status, self.body["code"].as_str());
        let is_oauth = path == "/oauth/token";
        if status >= 400 && !is_oauth {
            assert_eq!(
                self.header("content-type"),
                Some("application/problem+json"),
                "{self:?}"
            );
            for member in ["type", "title", "detail", "instance", "code"] {
                let text = self.body[member].as_str();
                assert!(
                    text.is_some_and(|text| !text.is_empty()),
                    "no {member}: {self:?}"
                );
            }
            assert_eq!(self.body["status"], status, "{self:?}");
        }
    }

    /// Asserts the status and returns the body.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        self.body
    }

    /// Asserts a problem with this status and code, and returns the body.
    #[track_caller]
    pub(crate) fn problem(self, status: u16, code: &str) -> Value {
        assert_eq!(
            (self.status.as_u16(), self.body["code"].as_str()),
            (status, Some(code)),
            "{self:?}"
        );
        self.body
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body: String = self.text.chars().take(1500).collect();
        write!(f, "{} → {} {body}", self.asked, self.status)
    }
}
