//! The client: connections, time-outs and the calls.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use domain::{
    app::AppId,
    message::Channel,
    secret::{AccessToken, AppSecret},
};
use reqwest::{
    Body, Method, Request, Url,
    header::{CONTENT_TYPE, HeaderValue},
};
use serde::Serialize;

use crate::{
    answer::{self, Answer, CallError, FetchedToken, TokenError, WechatQuota},
    codes::path,
    outgoing::Outgoing,
    transport::{self, ExchangeResult},
};

const GRANT_TYPE: &str = "client_credential";

/// The address and the time-outs for calls to WeChat.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Scheme, host and, behind an own proxy, a path: `https://api.weixin.qq.com`, or one of WeChat's alternative hosts
    /// `api2`, `sh.api`, `sz.api` and `hk.api`. Plain `http` is for the simulator: it reveals secrets to the network.
    pub base_url: String,
    /// The limit for name resolution, connection and TLS together. Must be shorter than `timeout`: a request that fails
    /// at this limit certainly did not leave.
    pub connect_timeout: Duration,
    /// The limit for a whole call. WeChat publishes no limit; samples answer within 30 to 310 ms.
    pub timeout: Duration,
    /// How long an idle connection is kept. Shorter than the usual minute of servers, so that the server rarely closes
    /// a connection at the moment of a send.
    pub pool_idle_timeout: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            base_url: "https://api.weixin.qq.com".to_owned(),
            connect_timeout: Duration::from_secs(2),
            timeout: Duration::from_secs(5),
            pool_idle_timeout: Duration::from_secs(55),
        }
    }
}

/// Why no client was made. Each text says what to fix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The base URL cannot be used.
    #[error("WeChat's base URL {fault}: use a URL of the form https://api.weixin.qq.com")]
    BaseUrl {
        /// The fault of the URL. The error omits the URL itself, because the URL may contain a password.
        fault: String,
    },
    /// The time-outs contradict each other.
    #[error(
        "WeChat's connect time-out ({connect_timeout:?}) must be positive and shorter than the total time-out \
         ({timeout:?}): otherwise a send that never left looks like a send without an answer"
    )]
    Timeouts {
        /// The given connect time-out.
        connect_timeout: Duration,
        /// The given total time-out.
        timeout: Duration,
    },
    /// TLS cannot be set up.
    #[error(
        "cannot build the HTTP client: {0}; check that the system's CA certificates are installed"
    )]
    Setup(String),
}

/// A client of WeChat's server API. Cheap to clone; clones share the connections.
///
/// The client always verifies TLS certificates, ignores the proxy variables of the environment, follows no redirects
/// and never repeats a request of which a byte has left.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    timeout: Duration,
    routes: Arc<Routes>,
}

/// The URLs, parsed once.
#[derive(Debug)]
struct Routes {
    /// The base URL without a trailing slash.
    prefix: String,
    token: Url,
    stable_token: Url,
    subscribe: Url,
    template: Url,
    official: Url,
    quota: Url,
}

impl Client {
    /// Checks the options and sets up TLS. Opens no connection.
    pub fn new(options: ClientOptions) -> Result<Self, ClientError> {
        let ClientOptions {
            base_url,
            connect_timeout,
            timeout,
            pool_idle_timeout,
        } = options;
        if connect_timeout.is_zero() || connect_timeout >= timeout {
            return Err(ClientError::Timeouts {
                connect_timeout,
                timeout,
            });
        }
        let routes = Routes::new(&base_url)?;
        let http = reqwest::Client::builder()
            .connect_timeout(connect_timeout)
            .timeout(timeout)
            .pool_idle_timeout(pool_idle_timeout)
            .http1_only()
            .no_proxy()
            .referer(false)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .user_agent(concat!("wxgate/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| ClientError::Setup(transport::describe(error)))?;
        Ok(Self {
            http,
            timeout,
            routes: Arc::new(routes),
        })
    }

    /// The maximum duration of one call.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// `GET /cgi-bin/token`. Each success ends the previous legacy token, after five minutes in which both tokens work.
    pub async fn fetch_legacy_token(
        &self,
        appid: &AppId,
        secret: &AppSecret,
    ) -> Result<FetchedToken, TokenError> {
        let mut url = self.routes.token.clone();
        url.query_pairs_mut()
            .append_pair("grant_type", GRANT_TYPE)
            .append_pair("appid", appid.as_str())
            .append_pair("secret", secret.expose());
        let heard = transport::exchange(&self.http, Request::new(Method::GET, url)).await;
        answer::fetch_result(heard, secret.expose())
    }

    /// `POST /cgi-bin/stable_token`. Without `force_refresh` WeChat returns the token that is alive, so many callers
    /// may repeat the call. With `force_refresh` that token ends (at most 20 calls a day, at least 30 s apart).
    pub async fn fetch_stable_token(
        &self,
        appid: &AppId,
        secret: &AppSecret,
        force_refresh: bool,
    ) -> Result<FetchedToken, TokenError> {
        let ask = StableTokenBody {
            grant_type: GRANT_TYPE,
            appid: appid.as_str(),
            secret: secret.expose(),
            force_refresh,
        };
        let heard = match serde_json::to_vec(&ask) {
            Ok(body) => self.post(self.routes.stable_token.clone(), body).await,
            Err(error) => ExchangeResult::Unclear(error.to_string()),
        };
        answer::fetch_result(heard, secret.expose())
    }

    /// Sends a message by the call of the message's channel. Never fails: every result is a verdict.
    pub async fn send(&self, token: &AccessToken, message: Outgoing<'_>) -> Answer {
        let started = Instant::now();
        let channel = message.content.channel();
        let body = match message.to_bytes() {
            Ok(body) => body,
            Err(error) => return Answer::unserialised(&error, started.elapsed()),
        };
        let heard = self
            .post(with_token(self.routes.of(channel), token), body)
            .await;
        Answer::send_result(heard, channel, token.expose(), started.elapsed())
    }

    /// `POST /cgi-bin/openapi/quota/get`: the rest of the daily quota for sends on a channel.
    pub async fn quota(
        &self,
        token: &AccessToken,
        channel: Channel,
    ) -> Result<WechatQuota, CallError> {
        let heard = match serde_json::to_vec(&QuotaBody {
            cgi_path: path(channel),
        }) {
            Ok(body) => self.post(with_token(&self.routes.quota, token), body).await,
            Err(error) => ExchangeResult::Unclear(error.to_string()),
        };
        answer::quota_result(heard, token.expose())
    }

    pub(crate) fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// The URL of a path without a call of its own in this module.
    pub(crate) fn route(&self, path: &str) -> Option<Url> {
        Url::parse(&format!("{}{path}", self.routes.prefix)).ok()
    }

    async fn post(&self, url: Url, body: Vec<u8>) -> ExchangeResult {
        transport::exchange(&self.http, Self::json_post(url, body)).await
    }

    pub(crate) fn json_post(url: Url, body: Vec<u8>) -> Request {
        let mut request = Request::new(Method::POST, url);
        request
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        *request.body_mut() = Some(Body::from(body));
        request
    }
}

impl Routes {
    fn new(base_url: &str) -> Result<Self, ClientError> {
        let fault = |fault: &str| ClientError::BaseUrl {
            fault: fault.to_owned(),
        };
        let base = Url::parse(base_url.trim())
            .map_err(|error| fault(&format!("cannot be read ({error})")))?;
        if !matches!(base.scheme(), "https" | "http") {
            return Err(fault(
                "must begin with https://, or http:// for the simulator",
            ));
        }
        if !base.username().is_empty() || base.password().is_some() {
            return Err(fault("must not contain a user name or password"));
        }
        if base.query().is_some() || base.fragment().is_some() {
            return Err(fault("must end after the host or path, without ? and #"));
        }
        let prefix = base.as_str().trim_end_matches('/');
        let route = |path: &str| {
            Url::parse(&format!("{prefix}{path}"))
                .map_err(|error| fault(&format!("cannot be extended ({error})")))
        };
        Ok(Self {
            prefix: prefix.to_owned(),
            token: route("/cgi-bin/token")?,
            stable_token: route("/cgi-bin/stable_token")?,
            subscribe: route(path(Channel::Subscribe))?,
            template: route(path(Channel::Template))?,
            official: route(path(Channel::Official))?,
            quota: route("/cgi-bin/openapi/quota/get")?,
        })
    }

    fn of(&self, channel: Channel) -> &Url {
        match channel {
            Channel::Subscribe => &self.subscribe,
            Channel::Template => &self.template,
            Channel::Official => &self.official,
        }
    }
}

pub(crate) fn with_token(route: &Url, token: &AccessToken) -> Url {
    let mut url = route.clone();
    url.query_pairs_mut()
        .append_pair("access_token", token.expose());
    url
}

#[derive(Serialize)]
struct StableTokenBody<'a> {
    grant_type: &'static str,
    appid: &'a str,
    secret: &'a str,
    force_refresh: bool,
}

#[derive(Serialize)]
struct QuotaBody {
    cgi_path: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(base_url: &str) -> String {
        let options = ClientOptions {
            base_url: base_url.to_owned(),
            ..ClientOptions::default()
        };
        Client::new(options).map_or_else(
            |error| error.to_string(),
            |client| client.routes.quota.to_string(),
        )
    }

    #[test]
    fn a_base_url_may_have_a_path() {
        assert_eq!(
            told("https://api.weixin.qq.com"),
            "https://api.weixin.qq.com/cgi-bin/openapi/quota/get"
        );
        assert_eq!(
            told("http://127.0.0.1:9000/wechat/"),
            "http://127.0.0.1:9000/wechat/cgi-bin/openapi/quota/get"
        );
    }

    #[test]
    fn a_bad_base_url_is_told_without_its_password() {
        for (wrong, told_part) in [
            ("api.weixin.qq.com", "cannot be read"),
            ("ftp://api.weixin.qq.com", "must begin with https://"),
            (
                "https://me:hunter2@api.weixin.qq.com",
                "user name or password",
            ),
            ("https://api.weixin.qq.com/?a=b", "without ? and #"),
        ] {
            let told = told(wrong);
            assert!(
                told.contains(told_part) && told.contains("use a URL of the form"),
                "{told}"
            );
            assert!(!told.contains("hunter2"), "{told}");
        }
    }

    #[test]
    fn connecting_must_end_before_the_call_does() {
        let options = ClientOptions {
            connect_timeout: Duration::from_secs(5),
            ..ClientOptions::default()
        };
        assert!(matches!(
            Client::new(options),
            Err(ClientError::Timeouts { .. })
        ));
    }
}
