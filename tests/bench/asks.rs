//! The requests of tenants in the measurements of `pressure`.

use chrono::{DateTime, SecondsFormat, Utc};
use reqwest::Method;
use serde_json::{Value, json};
use simulator::CallbackRequest;

use crate::load::{Load, TEMPLATE, data};

impl Load {
    /// Posts a batch. Returns how many of its messages the gateway accepted.
    pub(crate) async fn post_batch(&self, count: usize) -> u64 {
        let path = format!("/v1/apps/{}/messages/batch", self.appid);
        let body = batch(count);
        let answer = self.ask(&path, &body).await;
        // The gateway refuses a batch when too many messages wait; that refusal is a valid answer here.
        if answer == 200 { count as u64 } else { 0 }
    }

    /// Posts a message with the `send_at` of `at`.
    pub(crate) async fn schedule(&self, touser: &str, at: &DateTime<Utc>) {
        let path = format!("/v1/apps/{}/messages", self.appid);
        let message = json!({
            "touser": touser, "template_id": TEMPLATE, "data": data(), "send_at": at.to_rfc3339_opts(SecondsFormat::Millis, true),
        });
        assert_eq!(self.ask(&path, &message).await, 202);
    }

    async fn ask(&self, path: &str, body: &Value) -> u16 {
        let request = self.http.post(format!("{}{path}", self.url()));
        let request = request.bearer_auth(self.token()).json(body);
        let answer = request.send().await.expect("an answer");
        let status = answer.status().as_u16();
        answer.bytes().await.expect("a body");
        status
    }

    /// Registers a webhook endpoint for all events.
    pub(crate) async fn hook(&self, url: &str) {
        let hook = json!({"url": url, "events": ["*"]});
        assert_eq!(self.ask("/v1/webhooks", &hook).await, 201);
    }

    /// Makes the gateway accept callbacks that are signed with this token.
    pub(crate) async fn hear(&self, token: &str) {
        let path = format!("/v1/apps/{}", self.appid);
        let settings = json!({"callback_token": token});
        self.operate(Method::PATCH, &path, &settings).await;
    }

    /// Posts a callback as WeChat does. Returns the status of the answer.
    pub(crate) async fn push(&self, letter: &CallbackRequest) -> u16 {
        let url = format!("{}/callbacks/{}?{}", self.url(), self.appid, letter.query);
        let request = self
            .http
            .post(url)
            .header("content-type", letter.content_type);
        let answer = request.body(letter.body.clone()).send().await;
        let answer = answer.expect("an answer");
        let status = answer.status().as_u16();
        answer.bytes().await.expect("a body");
        status
    }
}

fn batch(count: usize) -> Value {
    let messages = (0..count).map(
        |number| json!({"touser": format!("b{number}"), "template_id": TEMPLATE, "data": data()}),
    );
    json!({"messages": messages.collect::<Vec<_>>()})
}
