//! The requests of a tenant.

use std::sync::atomic::{AtomicUsize, Ordering};

use reqwest::Method;
use serde_json::{Value, json};

use super::client::{Answer, Client, finish};

/// Every scope that a tenant's key may have.
pub(crate) const SCOPES: [&str; 13] = [
    "messages:send",
    "messages:read",
    "grants:write",
    "grants:read",
    "apps:read",
    "apps:write",
    "tokens:read",
    "templates:read",
    "webhooks:write",
    "webhooks:read",
    "keys:write",
    "audit:read",
    "wechat:proxy",
];

/// A tenant with a key that has all scopes of a tenant.
#[derive(Clone)]
pub(crate) struct Tenant {
    pub(crate) id: String,
    pub(crate) client: Client,
}

impl Tenant {
    /// Registers a mini-program. The simulator accepts any secret unless the test has set one.
    pub(crate) async fn app(&self, appid: &str) {
        self.app_with(appid, json!({})).await;
    }

    /// As [`Tenant::app`], with more fields, such as `daily_quota`.
    pub(crate) async fn app_with(&self, appid: &str, more: Value) {
        let mut body = json!({"appid": appid, "secret": SECRET});
        merge(&mut body, more);
        self.client.post("/v1/apps", &body).await.expect(201);
        self.wait_templates(appid).await;
    }

    /// Waits for the app's first template synchronisation, so that this call falls between no other calls to WeChat.
    async fn wait_templates(&self, appid: &str) {
        let path = format!("/v1/apps/{appid}/templates");
        let what = format!("the templates of {appid} are asked for");
        let time = self.client.time();
        time.eventually(&what, || async {
            let page = self.client.get(&path).await.expect(200);
            let is_asked = !page["synced_at"].is_null() || !page["sync_failure"].is_null();
            is_asked.then_some(())
        })
        .await;
    }

    /// Submits a message without waiting for the send. Returns the accepted message.
    pub(crate) async fn send(&self, appid: &str, message: &Value) -> Value {
        let path = format!("/v1/apps/{appid}/messages");
        self.client.post(&path, message).await.expect(202)
    }

    /// Submits a message and waits for the answer of WeChat. Returns the ended message.
    pub(crate) async fn send_and_wait(&self, appid: &str, message: &Value) -> Value {
        self.try_send_and_wait(appid, message).await.expect(200)
    }

    /// As [`Tenant::send_and_wait`], with any status of the answer.
    pub(crate) async fn try_send_and_wait(&self, appid: &str, message: &Value) -> Answer {
        let path = format!("/v1/apps/{appid}/messages");
        let request = self.client.request(Method::POST, &path).await;
        let answered = finish(request.header("Prefer", "wait=20").json(message));
        self.client.time().during(answered).await
    }

    /// Submits a message under an idempotency key.
    pub(crate) async fn send_keyed(&self, appid: &str, key: &str, message: &Value) -> Answer {
        let path = format!("/v1/apps/{appid}/messages");
        let request = self.client.request(Method::POST, &path).await;
        finish(request.header("Idempotency-Key", key).json(message)).await
    }

    /// Reads the present state of the message.
    pub(crate) async fn read(&self, message: &Value) -> Value {
        let path = format!("/v1/messages/{}", id(message));
        self.client.get(&path).await.expect(200)
    }

    /// Waits until the message has the status `wanted`, which must be a lasting status: a short one may pass unseen.
    pub(crate) async fn wait_for(&self, message: &Value, wanted: &str) -> Value {
        let what = format!("{} is {wanted}", id(message));
        self.client
            .time()
            .eventually(&what, || async {
                let message = self.read(message).await;
                (message["status"] == wanted).then_some(message)
            })
            .await
    }

    /// Waits until the message has any final status.
    pub(crate) async fn wait_ended(&self, message: &Value) -> Value {
        let what = format!("{} has ended", id(message));
        self.client
            .time()
            .eventually(&what, || async {
                let message = self.read(message).await;
                let open = ["scheduled", "queued", "sending"].map(Value::from);
                (!open.contains(&message["status"])).then_some(message)
            })
            .await
    }

    /// Waits until the last attempt of the message has this outcome.
    pub(crate) async fn wait_attempt(&self, message: &Value, outcome: &str) -> Value {
        let what = format!("the last attempt of {} is {outcome}", id(message));
        self.client
            .time()
            .eventually(&what, || async {
                let message = self.read(message).await;
                (outcomes(&message).last().map(String::as_str) == Some(outcome)).then_some(message)
            })
            .await
    }

    /// All messages of the app, newest first.
    pub(crate) async fn all(&self, appid: &str) -> Vec<Value> {
        let first = format!("/v1/apps/{appid}/messages?limit=200");
        let (mut all, mut path) = (Vec::new(), first.clone());
        loop {
            let page = self.client.get(&path).await.expect(200);
            all.extend(page["data"].as_array().expect("data").iter().cloned());
            match page["next_cursor"].as_str() {
                Some(cursor) => path = format!("{first}&cursor={cursor}"),
                None => return all,
            }
        }
    }

    /// The number of the app's messages with this status, at most 200.
    pub(crate) async fn count(&self, appid: &str, status: &str) -> usize {
        let path = format!("/v1/apps/{appid}/messages?limit=200&status={status}");
        let page = self.client.get(&path).await.expect(200);
        page["data"].as_array().expect("data").len()
    }

    /// Waits until exactly `wanted` messages of the app have this status.
    pub(crate) async fn wait_count(&self, appid: &str, status: &str, wanted: usize) {
        let what = format!("{wanted} messages of {appid} are {status}");
        self.client
            .time()
            .eventually(&what, || async {
                (self.count(appid, status).await == wanted).then_some(())
            })
            .await;
    }
}

/// The AppSecret of every app in these tests.
pub(crate) const SECRET: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";

/// A subscribe message to `openid`. A unique marker in the page lets the simulator recognise copies.
pub(crate) fn message(openid: &str) -> Value {
    static MARKERS: AtomicUsize = AtomicUsize::new(0);
    let marker = MARKERS.fetch_add(1, Ordering::Relaxed);
    json!({
        "touser": openid,
        "template_id": TEMPLATE,
        "page": format!("pages/order?marker=m{marker}"),
        "data": {"thing1": {"value": "保温杯"}, "number2": {"value": 2}},
    })
}

/// The template of every message in these tests.
pub(crate) const TEMPLATE: &str = "8-VxnRzHxkMVwBSkPGXFUNkRDfMlAqV0P1nVTW4Zx9k";

/// [`message`] with added or replaced fields.
pub(crate) fn message_with(openid: &str, more: Value) -> Value {
    let mut message = message(openid);
    merge(&mut message, more);
    message
}

fn merge(body: &mut Value, more: Value) {
    let (Value::Object(body), Value::Object(more)) = (body, more) else {
        panic!("two objects");
    };
    body.extend(more);
}

/// The `id` of an object.
#[track_caller]
pub(crate) fn id(thing: &Value) -> &str {
    thing["id"].as_str().expect("an id")
}

/// The outcomes of a message's attempts, in order.
pub(crate) fn outcomes(message: &Value) -> Vec<String> {
    let attempts = message["attempts"].as_array().expect("attempts");
    attempts
        .iter()
        .map(|attempt| attempt["outcome"].as_str().unwrap_or_default().to_owned())
        .collect()
}
