//! A client of the public REST API.

use std::time::Duration;

use domain::app::AppId;
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};

use super::{Demo, DemoCredentials};
use crate::failure::Failure;

/// The id of the template for the subscribe message of the demo.
pub(super) const SHIPPED: &str = "demo-order-shipped";
/// The id of the template for the form-id message of the demo.
pub(super) const PAID: &str = "demo-order-paid";
/// The longest wait for WeChat's answer, in seconds.
pub(super) const WAIT: u64 = 5;

/// A client with an access token.
#[derive(Debug)]
pub(crate) struct DemoClient {
    http: reqwest::Client,
    url: String,
    token: String,
}

impl DemoClient {
    /// Exchanges the key for an access token.
    pub(crate) async fn sign_in(url: &str, key: &DemoCredentials) -> Result<Self, Failure> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(Duration::from_secs(2))
            .timeout(Duration::from_secs(WAIT + 5));
        let http = http.build().map_err(|error| broken(&error))?;
        let request = http.post(format!("{url}/oauth/token"));
        let request = request
            .basic_auth(&key.client_id, Some(&key.client_secret))
            .form(&[("grant_type", "client_credentials")]);
        let answer = ask(request).await?;
        let token = answer["access_token"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        Ok(Self {
            http,
            url: url.to_owned(),
            token,
        })
    }

    /// Sends one message of each kind, waits for WeChat's answers, and reads both messages back.
    pub(crate) async fn send_demo(&self, demo: &Demo) -> Result<[Value; 2], Failure> {
        let (appid, openid) = (&demo.appid, demo.openid.as_str());
        // A form id permits one message only, so each start uses a new form id.
        let form_id = format!("demo-form-{:016x}", rand::random::<u64>());
        let template = json!({
            "channel": "template", "touser": openid, "template_id": PAID, "form_id": form_id,
            "page": "pages/order?id=1", "data": {"keyword1": {"value": "Coffee, large"}, "keyword2": {"value": "¥ 18.00"}},
        });
        let subscribe = subscribe_body(openid);
        let (subscribe, template) =
            tokio::try_join!(self.send(appid, &subscribe), self.send(appid, &template))?;
        Ok([subscribe, template])
    }

    async fn send(&self, appid: &AppId, body: &Value) -> Result<Value, Failure> {
        let request = self
            .http
            .post(format!("{}/v1/apps/{appid}/messages", self.url));
        let sent = ask(request
            .bearer_auth(&self.token)
            .header("Prefer", format!("wait={WAIT}"))
            .json(body))
        .await?;
        let id = sent["id"].as_str().unwrap_or_default();
        ask(self
            .http
            .get(format!("{}/v1/messages/{id}", self.url))
            .bearer_auth(&self.token))
        .await
    }
}

/// The body of the subscribe message, used by the demo and in the curl commands.
pub(super) fn subscribe_body(openid: &str) -> Value {
    json!({
        "touser": openid, "template_id": SHIPPED, "page": "pages/order?id=1",
        "data": {"thing1": {"value": "Coffee beans"}, "date2": {"value": "2026-03-01"}},
    })
}

async fn ask(request: RequestBuilder) -> Result<Value, Failure> {
    let response = request
        .send()
        .await
        .and_then(Response::error_for_status)
        .map_err(|error| broken(&error))?;
    response.json().await.map_err(|error| broken(&error))
}

fn broken(error: &reqwest::Error) -> Failure {
    Failure::new(
        "demo",
        format!("the demo cannot use the gateway's own API: {error}"),
    )
}
