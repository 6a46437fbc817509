//! A tenant's own server, which receives webhooks.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinSet};

use crate::world::World;

/// One received post.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) json: Value,
}

impl Heard {
    /// The event's type.
    pub(crate) fn kind(&self) -> &str {
        self.json["type"].as_str().expect("a type")
    }

    /// Whether this secret signed the post.
    pub(crate) fn is_signed_by(&self, secret: &str) -> bool {
        let webhook = standardwebhooks::Webhook::new(secret).expect("a secret");
        let text = |name| self.headers[name].to_str().expect("a text");
        let at = text("webhook-timestamp").parse().expect("seconds");
        let wanted = webhook.sign(text("webhook-id"), at, &self.body);
        let wanted = wanted.expect("a signature");
        text("webhook-signature")
            .split(' ')
            .any(|one| one == wanted)
    }
}

#[derive(Default)]
struct Mind {
    heard: Vec<Heard>,
    answer: u16,
}

/// A server on a free port, which stops when dropped.
pub(crate) struct Receiver {
    pub(crate) url: String,
    mind: Arc<Mutex<Mind>>,
    _server: JoinSet<()>,
}

impl Receiver {
    /// Starts a receiver that accepts everything.
    pub(crate) async fn start() -> Self {
        let mind = Arc::new(Mutex::new(Mind {
            answer: 204,
            ..Mind::default()
        }));
        let router = Router::new().fallback(hear).with_state(mind.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
        let mut server = JoinSet::new();
        server.spawn(async move {
            axum::serve(listener, router).await.expect("a server");
        });
        Self {
            url,
            mind,
            _server: server,
        }
    }

    /// Sets the status of all further answers.
    pub(crate) fn answers(&self, status: u16) {
        lock(&self.mind).answer = status;
    }

    /// All posts received so far.
    pub(crate) fn heard(&self) -> Vec<Heard> {
        lock(&self.mind).heard.clone()
    }

    /// All posts, when the receiver has `count` posts.
    pub(crate) async fn wait(&self, world: &World, count: usize) -> Vec<Heard> {
        let what = format!("{count} posts to the receiver");
        let time = world.anonymous().time().clone();
        time.eventually(&what, || async {
            Some(self.heard()).filter(|heard| heard.len() >= count)
        })
        .await
    }
}

/// The ids of the different events among these posts.
pub(crate) fn events(heard: &[Heard]) -> BTreeSet<String> {
    heard
        .iter()
        .map(|one| one.json["id"].as_str().expect("an id").to_owned())
        .collect()
}

fn lock(mind: &Mutex<Mind>) -> MutexGuard<'_, Mind> {
    mind.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn hear(State(mind): State<Arc<Mutex<Mind>>>, headers: HeaderMap, body: Bytes) -> Response {
    let mut mind = lock(&mind);
    mind.heard.push(Heard {
        headers,
        json: serde_json::from_slice(&body).unwrap_or_default(),
        body: body.to_vec(),
    });
    let status = StatusCode::from_u16(mind.answer).expect("a status");
    if status.is_redirection() {
        (status, [("location", "/elsewhere")]).into_response()
    } else {
        (status, "words").into_response()
    }
}
