//! The load: many senders at once, over HTTP or by the bare client.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use domain::{
    app::AppId,
    message::{Content, Lang, MiniprogramState},
    scope::ScopeSet,
    secret::AppSecret,
};
use serde_json::{Map, Value, json};
use tenancy::{KeyOwner, NewKey};
use wechat::{Client, ClientOptions, Outgoing};

use crate::place::{APP, Place};

/// Sends under way at the same time: the gateway's own default.
const SLOTS: usize = 256;
/// Requests under way at the same time.
const CALLERS: usize = 64;
const TEMPLATE: &str = "8-VxnRzHxkMVwBSkPGXFUNkRDfMlAqV0P1nVTW4Zx9k";

/// So many of something in a second.
pub(crate) struct Rate {
    pub(crate) per_second: f64,
}

impl Rate {
    /// `count` in `time`.
    #[expect(
        clippy::cast_precision_loss,
        reason = "counts of messages are far below 2^52"
    )]
    pub(crate) fn of(count: usize, time: Duration) -> Self {
        Self {
            per_second: count as f64 / time.as_secs_f64(),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:.0}", self.per_second))
    }
}

fn data() -> Value {
    json!({"thing1": {"value": "保温杯"}, "number2": {"value": 2}, "date3": {"value": "2026-03-01 12:30"}})
}

/// Runs `work` for 0, 1, … `count`, so many at once, and measures the whole.
async fn at_once<F, W>(workers: usize, count: usize, work: W) -> Duration
where
    F: Future<Output = ()> + Send,
    W: Fn(usize) -> F + Clone + Send + 'static,
{
    let next = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..workers {
        let (next, work) = (next.clone(), work.clone());
        tasks.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return;
                }
                work(number).await;
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("a sender");
    }
    started.elapsed()
}

/// The bare client: one token, then nothing but sends.
pub(crate) async fn bare(place: &Place, count: usize) -> Duration {
    let options = ClientOptions {
        base_url: place.simulator.base_url(),
        ..ClientOptions::default()
    };
    let client = Client::new(options).expect("a client");
    let appid = AppId::parse("wx00000000000000b2").expect("an appid");
    let fetched = client
        .fetch_stable_token(&appid, &AppSecret::new("secret"), false)
        .await;
    let token = Arc::new(fetched.expect("a token").token);
    let Value::Object(data) = data() else {
        unreachable!("an object")
    };
    let content = Arc::new(subscribe(data));
    at_once(SLOTS, count, move |number| {
        let (client, token, content) = (client.clone(), token.clone(), content.clone());
        async move {
            let touser = format!("o{number}");
            let message = Outgoing {
                touser: &touser,
                template_id: TEMPLATE,
                content: &content,
            };
            let answer = client.send(&token, message).await;
            assert_eq!(answer.errcode, Some(0), "{:?}", answer.errmsg);
        }
    })
    .await
}

fn subscribe(data: Map<String, Value>) -> Content {
    Content::Subscribe {
        data,
        page: Some("pages/order?id=1".to_owned()),
        miniprogram_state: MiniprogramState::Formal,
        lang: Lang::ZhCn,
    }
}

/// A tenant with an app and a token, ready to send.
pub(crate) struct Load {
    http: reqwest::Client,
    url: String,
    token: String,
}

impl Load {
    /// Onboards, as every tenant is.
    pub(crate) async fn prepare(place: &Place) -> Self {
        let tenancy = place.gateway.tenancy();
        let new = NewKey {
            name: "bench".into(),
            scopes: ScopeSet::all(),
            expires_at: None,
        };
        let operator = tenancy
            .create_key(KeyOwner::Operator, new, None)
            .await
            .expect("a key");
        let secret = operator.secret.expose().to_owned();
        let http = reqwest::Client::builder()
            .timeout(Duration::from_mins(1))
            .no_proxy()
            .build()
            .expect("a client");
        let mut load = Self {
            http,
            url: place.gateway.local_url(),
            token: String::new(),
        };

        load.sign_in(&operator.key.id.to_string(), &secret).await;
        let limits = json!({"requests_per_second": 100_000});
        let tenant = load
            .post("/v1/tenants", &json!({"name": "bench", "limits": limits}))
            .await;
        let tenant = tenant["id"].as_str().expect("an id");
        let app = json!({"appid": APP, "secret": "secret", "tenant_id": tenant, "daily_quota": 1_000_000_000});
        load.post("/v1/apps", &app).await;
        let scopes = json!({"name": "bench", "scopes": ["messages:send"]});
        let key = load
            .post(&format!("/v1/tenants/{tenant}/keys"), &scopes)
            .await;
        let text = |name: &str| key[name].as_str().expect("a text").to_owned();
        load.sign_in(&text("client_id"), &text("client_secret"))
            .await;
        load
    }

    /// Hands in `count` messages, one a request.
    pub(crate) async fn accept(&self, count: usize) -> Duration {
        let url = format!("{}/v1/apps/{APP}/messages", self.url);
        let (http, token) = (self.http.clone(), self.token.clone());
        at_once(CALLERS, count, move |number| {
            let message = json!({
                "touser": format!("o{number}"), "template_id": TEMPLATE, "page": "pages/order?id=1", "data": data(),
            });
            let request = http.post(&url).bearer_auth(&token).json(&message);
            async move {
                let answer = request.send().await.expect("an answer");
                assert_eq!(answer.status(), 202, "message {number}");
                answer.bytes().await.expect("a body");
            }
        })
        .await
    }

    async fn sign_in(&mut self, id: &str, secret: &str) {
        let request = self
            .http
            .post(format!("{}/oauth/token", self.url))
            .basic_auth(id, Some(secret));
        let answer = request
            .form(&[("grant_type", "client_credentials")])
            .send()
            .await
            .expect("an answer");
        let body: Value = answer.json().await.expect("JSON");
        body["access_token"]
            .as_str()
            .expect("an access_token")
            .clone_into(&mut self.token);
    }

    async fn post(&self, path: &str, body: &Value) -> Value {
        let request = self
            .http
            .post(format!("{}{path}", self.url))
            .bearer_auth(&self.token)
            .json(body);
        let answer = request.send().await.expect("an answer");
        let status = answer.status();
        let body: Value = answer.json().await.expect("JSON");
        assert_eq!(status, 201, "{path}: {body}");
        body
    }
}
