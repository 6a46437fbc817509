//! The simulator over real sockets: the behaviour that needs a connection.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{Effect, Fault, Options, Shape, Simulator, SimulatorStartError};

const APP: &str = "wx0a1b2c3d4e5f6789";
const SEND: &str = "/cgi-bin/message/subscribe/send";

struct Visitor {
    wechat: Simulator,
    client: reqwest::Client,
    token: String,
}

impl Visitor {
    async fn new() -> Self {
        let wechat = Simulator::start(Options::default()).await.unwrap();
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(30))
            .build()
            .unwrap();
        let url = format!(
            "{}/cgi-bin/token?grant_type=client_credential&appid={APP}&secret=s",
            wechat.base_url()
        );
        let answer: Value = client.get(url).send().await.unwrap().json().await.unwrap();
        let token = answer["access_token"].as_str().unwrap().to_owned();
        Self {
            wechat,
            client,
            token,
        }
    }

    fn request(&self, openid: &str) -> reqwest::RequestBuilder {
        let url = format!(
            "{}{SEND}?access_token={}",
            self.wechat.base_url(),
            self.token
        );
        let body =
            json!({"touser": openid, "template_id": "t", "data": {"thing1": {"value": "x"}}});
        self.client.post(url).json(&body)
    }

    async fn sim(&self, method: reqwest::Method, path: &str, body: &Value) -> (u16, Value) {
        let url = format!("{}/_sim/{path}", self.wechat.base_url());
        let answer = self
            .client
            .request(method, url)
            .json(body)
            .send()
            .await
            .unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }
}

#[tokio::test]
async fn a_send_is_answered_as_wechat_answers() {
    let visitor = Visitor::new().await;
    let answer = visitor.request("o").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(
        answer.headers()["content-type"],
        "application/json; encoding=utf-8"
    );
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["errcode"], 0);
    visitor.wechat.stop().await;
}

#[tokio::test]
async fn a_broken_connection_is_an_error_and_never_an_answer() {
    let visitor = Visitor::new().await;
    let control = visitor.wechat.control();
    control.add_fault(Fault::next(1, Effect::BreakBefore));
    control.add_fault(Fault::next(1, Effect::BreakAfter).for_user("after"));
    // On a pooled connection the client may repeat a request by itself, but does not repeat a POST once written.
    assert!(visitor.request("before").send().await.is_err());
    assert_eq!(control.stats().accepted, 0);
    assert!(visitor.request("after").send().await.is_err());
    let sent = control.sent(APP);
    assert_eq!((sent.len(), sent[0].touser.as_str()), (1, "after"));
    assert_eq!(visitor.request("o").send().await.unwrap().status(), 200);
    assert_eq!(control.duplicates(APP).max_per_openid, 1);
    visitor.wechat.stop().await;
}

#[tokio::test]
async fn a_hanging_call_ends_with_the_simulator() {
    let visitor = Visitor::new().await;
    visitor
        .wechat
        .control()
        .add_fault(Fault::next(1, Effect::Hang { acted: true }));
    let hanging = visitor.request("o");
    let mut calls = tokio::task::JoinSet::new();
    calls.spawn(hanging.send());
    while visitor.wechat.control().stats().accepted == 0 {
        tokio::task::yield_now().await;
    }
    assert!(calls.try_join_next().is_none());
    visitor.wechat.stop().await;
    assert!(calls.join_next().await.unwrap().unwrap().is_err());
}

#[tokio::test]
async fn concurrent_sends_to_one_user_collide() {
    let visitor = Visitor::new().await;
    let control = visitor.wechat.control().clone();
    control.add_fault(Fault::next(1, Effect::Latency { ms: 600_000 }));
    let mut calls = tokio::task::JoinSet::new();
    calls.spawn(visitor.request("o").send());
    while control.app_stats(APP).in_flight == 0 {
        tokio::task::yield_now().await;
    }
    let second: Value = visitor
        .request("o")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(second["errcode"], 43108);
    visitor.wechat.stop().await;
    let first: Value = calls
        .join_next()
        .await
        .unwrap()
        .unwrap()
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(first["errcode"], 0, "stopping answers what only waited");
}

#[tokio::test]
async fn odd_answers_are_served() {
    let visitor = Visitor::new().await;
    let odd = |shape| {
        visitor
            .wechat
            .control()
            .add_fault(Fault::next(1, Effect::OddAnswer { shape }));
        visitor.request("o").send()
    };
    let plain = odd(Shape::TextPlain).await.unwrap();
    assert_eq!(plain.headers()["content-type"], "text/plain");
    let quoted = odd(Shape::StringErrcode)
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(quoted.starts_with(r#"{"errcode":"0","#), "{quoted}");
    let raw = odd(Shape::ControlCharacters)
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(raw.contains('\u{1}'));
    let bad_gateway = Effect::Status {
        status: 502,
        body: None,
    };
    visitor
        .wechat
        .control()
        .add_fault(Fault::next(1, bad_gateway));
    let answer = visitor.request("o").send().await.unwrap();
    assert_eq!(answer.status(), 502);
    assert!(answer.text().await.unwrap().contains("<html>"));
    visitor.wechat.stop().await;
}

#[tokio::test]
async fn the_control_api_moves_the_same_simulator() {
    use reqwest::Method;
    let visitor = Visitor::new().await;
    let app = |rest: &str| format!("apps/{APP}{rest}");
    let none = Value::Null;

    let (_, clock) = visitor
        .sim(
            Method::POST,
            "clock",
            &json!({"now": 1_767_283_200_000_i64}),
        )
        .await;
    assert_eq!(clock, json!({"now": 1_767_283_200_000_i64, "pinned": true}));
    let advance = json!({"advance_seconds": 5});
    let (_, clock) = visitor.sim(Method::POST, "clock", &advance).await;
    assert_eq!(clock["now"], 1_767_283_205_000_i64);
    visitor
        .sim(Method::POST, "clock", &json!({"release": true}))
        .await;

    let patch = json!({"grants": "counted", "limits": {"token": 7}});
    assert_eq!(visitor.sim(Method::PATCH, &app(""), &patch).await.0, 200);
    let (_, settings) = visitor.sim(Method::GET, &app(""), &none).await;
    assert_eq!(
        (&settings["grants"], &settings["limits"]["token"]),
        (&json!("counted"), &json!(7))
    );
    assert_eq!(settings["limits"]["forced_token"], 20);

    let grants = json!({"grants": [{"openid": "o", "template_id": "t", "count": 1}]});
    visitor.sim(Method::POST, &app("/grants"), &grants).await;
    for expected in [0, 43101] {
        let answer: Value = visitor
            .request("o")
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        assert_eq!(answer["errcode"], expected);
    }
    let (_, sent) = visitor.sim(Method::GET, &app("/sent?limit=1"), &none).await;
    assert_eq!(sent["sent"][0]["touser"], "o");
    let (_, stats) = visitor.sim(Method::GET, "stats", &none).await;
    assert_eq!(
        (&stats["accepted"], &stats["calls"][SEND]["43101"]),
        (&json!(1), &json!(1))
    );

    visitor.sim(Method::POST, &app("/kill_tokens"), &none).await;
    let killed: Value = visitor
        .request("o")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(killed["errcode"], 40001);
    let (_, foreign) = visitor
        .sim(Method::POST, &app("/foreign_fetch"), &none)
        .await;
    assert!(foreign["access_token"].as_str().unwrap().len() > 100);

    visitor.sim(Method::POST, "reset", &none).await;
    assert_eq!(
        visitor.sim(Method::GET, "apps", &none).await.1,
        json!({"apps": []})
    );
    visitor.wechat.stop().await;
}

#[tokio::test]
async fn a_push_is_repeated_until_it_is_taken() {
    use axum::{Router, extract::State, http::StatusCode, routing::post};
    use reqwest::Method;
    use tokio::sync::mpsc;

    let (heard, mut pushes) = mpsc::unbounded_channel();
    let answer = async |State(heard): State<mpsc::UnboundedSender<_>>, body: String| {
        heard.send(body).unwrap();
        (StatusCode::FORBIDDEN, "success")
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let router = Router::new().route("/", post(answer)).with_state(heard);
    let mut servers = tokio::task::JoinSet::new();
    servers.spawn(async move { axum::serve(listener, router).await });

    let visitor = Visitor::new().await;
    let patch = json!({"push": {"url": url, "token": "AAAAA", "receipts": true}});
    visitor
        .sim(Method::PATCH, &format!("apps/{APP}"), &patch)
        .await;
    visitor.request("o").send().await.unwrap();
    let popup = json!({"event": "popup", "openid": "p", "choices": [["t", "accept"]]});
    visitor
        .sim(Method::POST, &format!("apps/{APP}/push"), &popup)
        .await;
    let mut counts = std::collections::BTreeMap::new();
    for _ in 0..6 {
        let push: Value = serde_json::from_str(&pushes.recv().await.unwrap()).unwrap();
        let openid = push["FromUserName"].as_str().unwrap().to_owned();
        *counts.entry(openid).or_insert(0) += 1;
    }
    assert_eq!(counts, [("o".to_owned(), 3), ("p".to_owned(), 3)].into());
    visitor.wechat.stop().await;
}

#[tokio::test]
async fn mistakes_in_control_calls_are_refused() {
    use reqwest::Method;
    let visitor = Visitor::new().await;
    let none = Value::Null;
    let app = format!("apps/{APP}");
    let (_, fault) = visitor
        .sim(
            Method::POST,
            "faults",
            &json!({"kind": "break_after", "count": 1}),
        )
        .await;
    let id = fault["id"].as_u64().unwrap();
    assert_eq!(
        visitor
            .sim(Method::DELETE, &format!("faults/{id}"), &none)
            .await
            .0,
        200
    );
    assert_eq!(
        visitor
            .sim(Method::DELETE, &format!("faults/{id}"), &none)
            .await
            .0,
        404
    );
    assert_eq!(
        visitor.sim(Method::PUT, &app, &json!({"secrt": 1})).await.0,
        400
    );
    assert_eq!(visitor.sim(Method::GET, "nothing", &none).await.0, 404);

    for wrong in [
        json!({"kind": "break_after", "cuont": 1}),
        json!({"kind": "break_after", "probability": 2.0}),
    ] {
        assert_eq!(visitor.sim(Method::POST, "faults", &wrong).await.0, 400);
    }
    visitor.wechat.stop().await;
}

#[tokio::test]
async fn a_taken_port_is_named_with_a_way_out() {
    let first = Simulator::start(Options::default()).await.unwrap();
    let error = Simulator::start(Options::at(first.address()))
        .await
        .unwrap_err();
    assert!(matches!(error, SimulatorStartError::AddressTaken { .. }));
    assert!(error.to_string().contains("choose another port"), "{error}");
    first.stop().await;
}
