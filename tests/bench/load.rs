//! The load: senders over HTTP or by the bare client, and messages put straight into the database.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use domain::{
    app::AppId,
    grant::GrantPolicy,
    id::TenantId,
    message::{Content, DEFAULT_TTL, Draft, Lang, MiniprogramState, OnUncertain, Priority},
    quota::PriorityShares,
    scope::ScopeSet,
    secret::{AccessToken, AppSecret},
};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Map, Value, json};
use store::{
    NewMessage, Received, Store, Submission, SubmissionBody as Loaded, Taken, TenantStore,
};
use tenancy::{KeyOwner, NewKey};
use wechat::{Client, ClientOptions, Outgoing};

use crate::{cost::Cpu, place::Place, run::Run};

/// Simultaneous sends: the gateway's own default.
const SLOTS: usize = 1024;
/// Simultaneous requests.
const CALLERS: usize = 64;
/// Messages that one transaction puts into the database.
const BATCH: usize = 512;
pub(crate) const TEMPLATE: &str = "8-VxnRzHxkMVwBSkPGXFUNkRDfMlAqV0P1nVTW4Zx9k";

pub(crate) fn data() -> Value {
    json!({"thing1": {"value": "保温杯"}, "number2": {"value": 2}, "date3": {"value": "2026-03-01 12:30"}})
}

/// Runs `work` for 0, 1, … `count` with `workers` at once. Measures the whole and each run.
pub(crate) async fn at_once<F, W>(workers: usize, count: usize, work: W) -> Run
where
    F: Future<Output = ()> + Send,
    W: Fn(usize) -> F + Clone + Send + 'static,
{
    let next = Arc::new(AtomicUsize::new(0));
    let cpu = Cpu::now();
    let started = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..workers {
        let (next, work) = (next.clone(), work.clone());
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return latencies;
                }
                let started = Instant::now();
                work(number).await;
                latencies.push(started.elapsed());
            }
        });
    }
    let mut latencies = Vec::with_capacity(count);
    while let Some(ended) = tasks.join_next().await {
        latencies.append(&mut ended.expect("a sender"));
    }
    Run::new(count, started.elapsed(), cpu.each(count), latencies)
}

/// The bare client with a token: only sends, without a gateway.
#[derive(Clone)]
pub(crate) struct Bare {
    client: Client,
    token: Arc<AccessToken>,
    content: Arc<Content>,
}

impl Bare {
    /// Fetches the token.
    pub(crate) async fn prepare(place: &Place) -> Self {
        let options = ClientOptions {
            base_url: place.simulator.base_url(),
            ..ClientOptions::default()
        };
        let client = Client::new(options).expect("a client");
        let appid = AppId::parse("wx00000000000000b2").expect("an appid");
        let fetched = client
            .fetch_stable_token(&appid, &AppSecret::new("secret"), false)
            .await;
        Self {
            client,
            token: Arc::new(fetched.expect("a token").token),
            content: Arc::new(content()),
        }
    }

    /// Sends `count` messages, as many at once as the gateway has slots.
    pub(crate) async fn run(&self, count: usize) -> Run {
        let bare = self.clone();
        at_once(SLOTS, count, move |number| {
            let bare = bare.clone();
            async move { bare.send(number).await }
        })
        .await
    }

    pub(crate) async fn send(&self, number: usize) {
        let message = Outgoing {
            touser: &format!("o{number}"),
            template_id: TEMPLATE,
            content: &self.content,
        };
        let answer = self.client.send(&self.token, message).await;
        assert_eq!(answer.errcode, Some(0), "{:?}", answer.errmsg);
    }
}

pub(crate) fn content() -> Content {
    let Value::Object(data) = data() else {
        unreachable!("an object")
    };
    subscribe(data)
}

fn subscribe(data: Map<String, Value>) -> Content {
    Content::Subscribe {
        data,
        page: Some("pages/order?id=1".to_owned()),
        miniprogram_state: MiniprogramState::Formal,
        lang: Lang::ZhCn,
    }
}

/// A message to put into the database.
pub(crate) struct Wish {
    pub(crate) appid: AppId,
    pub(crate) touser: String,
    pub(crate) content: Content,
    pub(crate) grant_policy: Option<GrantPolicy>,
}

/// A tenant with an app, ready to send.
#[derive(Clone)]
pub(crate) struct Load {
    pub(crate) http: reqwest::Client,
    url: String,
    store: Store,
    tenant: TenantId,
    /// The app of the requests.
    pub(crate) appid: &'static str,
    operator: String,
    sender: String,
}

impl Load {
    /// Makes the tenant, its keys and its app by the same steps as for every tenant.
    pub(crate) async fn prepare(place: &Place, appid: &'static str) -> Self {
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
            store: place.gateway.store().clone(),
            tenant: domain::id::new(place.now(), 0, 0),
            appid,
            operator: String::new(),
            sender: String::new(),
        };

        load.operator = load.sign_in(&operator.key.id.to_string(), &secret).await;
        let limits = json!({"requests_per_second": 100_000});
        let tenant = json!({"name": "bench", "limits": limits});
        let tenant = load.operate(Method::POST, "/v1/tenants", &tenant).await;
        load.tenant = text(&tenant, "id").parse().expect("an id");
        load.register(appid).await;
        let (id, secret) = load.new_key().await;
        load.sender = load.sign_in(&id, &secret).await;
        load
    }

    /// A new key of the tenant: its id and its secret.
    pub(crate) async fn new_key(&self) -> (String, String) {
        let wish = json!({"name": "bench", "scopes": ["messages:send", "messages:read", "webhooks:write"]});
        let keys = format!("/v1/tenants/{}/keys", self.tenant);
        let key = self.operate(Method::POST, &keys, &wish).await;
        let word = |name| text(&key, name).to_owned();
        (word("client_id"), word("client_secret"))
    }

    pub(crate) async fn revoke_key(&self, id: &str) {
        let path = format!("/v1/tenants/{}/keys/{id}", self.tenant);
        self.operate(Method::DELETE, &path, &Value::Null).await;
    }

    pub(crate) async fn register(&self, appid: &str) {
        let app = json!({
            "appid": appid, "secret": "secret", "tenant_id": self.tenant, "daily_quota": 1_000_000_000, "verify": false,
        });
        self.operate(Method::POST, "/v1/apps", &app).await;
    }

    /// Sets the tenant's status: "active" lets the gateway send the messages, "suspended" keeps the messages queued.
    pub(crate) async fn let_send(&self, status: &str) {
        let path = format!("/v1/tenants/{}", self.tenant);
        self.operate(Method::PATCH, &path, &json!({"status": status}))
            .await;
    }

    /// Posts `count` messages, one a request.
    pub(crate) async fn accept(&self, count: usize) -> Run {
        let load = self.clone();
        at_once(CALLERS, count, move |number| {
            let load = load.clone();
            async move {
                let answer = load.hand_in(number).send().await.expect("an answer");
                assert_eq!(answer.status(), 202, "message {number}");
                answer.bytes().await.expect("a body");
            }
        })
        .await
    }

    /// Posts one message and waits until the message has been sent.
    pub(crate) async fn send(&self, number: usize) {
        let request = self.hand_in(number).header("prefer", "wait=30");
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), 200, "message {number} has not ended");
        answer.bytes().await.expect("a body");
    }

    /// Posts one message without waiting for the send. Returns the id.
    pub(crate) async fn post(&self, number: usize) -> String {
        let answer = self.hand_in(number).send().await.expect("an answer");
        assert_eq!(answer.status(), 202, "message {number}");
        let message: Value = answer.json().await.expect("JSON");
        text(&message, "id").to_owned()
    }

    pub(crate) async fn read(&self, id: &str) {
        let path = format!("{}/v1/messages/{id}", self.url);
        let request = self.http.get(path).bearer_auth(&self.sender);
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), 200, "message {id}");
        answer.bytes().await.expect("a body");
    }

    /// Puts `count` messages into the database that are due now, in turn one of each of `apps`.
    pub(crate) async fn fill(&self, apps: &[AppId], count: usize, now: DateTime<Utc>) {
        let content = content();
        let wish = |number: usize| Wish {
            appid: apps[number % apps.len()].clone(),
            touser: format!("o{number}"),
            content: content.clone(),
            grant_policy: None,
        };
        self.fill_with(count, now, wish).await;
    }

    /// Puts `count` messages into the database that are due now, each as `wish` says.
    pub(crate) async fn fill_with(
        &self,
        count: usize,
        now: DateTime<Utc>,
        wish: impl Fn(usize) -> Wish,
    ) {
        for from in (0..count).step_by(BATCH) {
            let batch: Vec<Submission> = (from..count.min(from + BATCH))
                .map(|number| self.new_message(wish(number), now))
                .collect();
            let platform = self.store.platform();
            let received = platform
                .intake(&batch, PriorityShares::default(), now)
                .await;
            let received = received.expect("a transaction");
            let stored = Taken::Fresh(vec![Received::Stored]);
            assert!(received.iter().all(|one| *one == stored));
        }
    }

    /// The gateway's URL.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The access token of the requests.
    pub(crate) fn token(&self) -> &str {
        &self.sender
    }

    pub(crate) fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// The tenant's store.
    pub(crate) fn door(&self) -> TenantStore {
        self.store.tenant(self.tenant)
    }

    fn new_message(&self, wish: Wish, now: DateTime<Utc>) -> Submission {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let at = now + chrono::Duration::milliseconds(i64::try_from(serial >> 12).unwrap_or(0));
        let new = NewMessage {
            id: domain::id::new(at, u16::try_from(serial & 0xfff).unwrap_or(0), serial),
            tenant: self.tenant,
            appid: wish.appid,
            draft: Draft {
                touser: wish.touser,
                template_id: TEMPLATE.to_owned(),
                content: wish.content,
                priority: Priority::Normal,
                send_at: None,
                ttl: DEFAULT_TTL,
                reference: None,
                metadata: None,
                on_uncertain: OnUncertain::Hold,
                grant_policy: wish.grant_policy,
                dry_run: false,
                warnings: Vec::new(),
            },
            received_at: now,
        };
        Submission {
            tenant: new.tenant,
            appid: new.appid.clone(),
            key: None,
            received_at: now,
            load: Loaded::One(Box::new(new)),
        }
    }

    fn hand_in(&self, number: usize) -> RequestBuilder {
        let message = json!({
            "touser": format!("o{number}"), "template_id": TEMPLATE, "page": "pages/order?id=1", "data": data(),
        });
        self.http
            .post(format!("{}/v1/apps/{}/messages", self.url, self.appid))
            .bearer_auth(&self.sender)
            .json(&message)
    }

    async fn sign_in(&self, id: &str, secret: &str) -> String {
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
        text(&body, "access_token").to_owned()
    }

    pub(crate) async fn operate(&self, method: Method, path: &str, body: &Value) -> Value {
        let ask = || {
            self.http
                .request(method.clone(), format!("{}{path}", self.url))
                .bearer_auth(&self.operator)
                .json(body)
        };
        // Operators have a rate limit of their own. The client waits for a second, as `Retry-After` says.
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        let mut answer = ask().send().await.expect("an answer");
        while answer.status() == StatusCode::TOO_MANY_REQUESTS {
            seconds.tick().await;
            answer = ask().send().await.expect("an answer");
        }
        let status = answer.status();
        let text = answer.text().await.expect("a body");
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or_default()
    }
}

fn text<'a>(object: &'a Value, name: &str) -> &'a str {
    object[name].as_str().expect("a text")
}
