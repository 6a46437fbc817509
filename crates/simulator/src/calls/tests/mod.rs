//! The rules, call by call, without a socket.

mod messages;
mod tokens;

use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Value, json};

use super::*;
use crate::account::AppSettings;
use crate::faults::Fault;
use crate::options::Options;

const APP: &str = "wx0a1b2c3d4e5f6789";
const START: i64 = 1_767_283_200_000;

struct SendContext {
    world: World,
}

impl SendContext {
    fn new() -> Self {
        let world = World::new(Options::default(), 1);
        world.clock.pin(START);
        Self { world }
    }

    /// A new world; the account `APP` has these settings.
    fn with(change: impl FnOnce(&mut AppSettings)) -> Self {
        let fixture = Self::new();
        let mut settings = AppSettings::default();
        change(&mut settings);
        fixture.world.register(APP).set(settings);
        fixture
    }

    fn call(&self, method: &str, uri: &str, body: &str) -> Value {
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let served = serve(
            &self.world,
            &ParsedCall {
                endpoint: CallEndpoint::of_path(path),
                path,
                is_get: method == "GET",
                query,
                body: body.as_bytes(),
                ip: IpAddr::V4(Ipv4Addr::new(203, 0, 113, 24)),
                now: self.world.clock.now_ms(),
            },
        );
        match served.ending {
            Ending::Json(json) => serde_json::from_str(&json).unwrap(),
            other => json!({ "ending": format!("{other:?}") }),
        }
    }

    fn legacy(&self, secret: &str) -> Value {
        let uri =
            format!("/cgi-bin/token?grant_type=client_credential&appid={APP}&secret={secret}");
        self.call("GET", &uri, "")
    }

    fn stable(&self, force: bool) -> Value {
        let body = json!({"grant_type": "client_credential", "appid": APP, "secret": "s", "force_refresh": force});
        self.call("POST", "/cgi-bin/stable_token", &body.to_string())
    }

    fn token(&self) -> String {
        text(&self.stable(false), "access_token")
    }

    fn post(&self, path: &str, token: &str, body: &Value) -> Value {
        self.call(
            "POST",
            &format!("{path}?access_token={token}"),
            &body.to_string(),
        )
    }

    fn subscribe(&self, token: &str, openid: &str, data: &Value) -> Value {
        let body = json!({"touser": openid, "template_id": "t", "data": data});
        self.post("/cgi-bin/message/subscribe/send", token, &body)
    }

    fn form(&self, token: &str, openid: &str, form_id: &str) -> i64 {
        let body = json!({"touser": openid, "template_id": "t", "form_id": form_id, "data": {}});
        code(&self.post("/cgi-bin/message/wxopen/template/send", token, &body))
    }

    fn advance(&self, seconds: i64) {
        self.world.clock.advance_ms(seconds * 1_000);
    }
}

fn code(answer: &Value) -> i64 {
    answer["errcode"].as_i64().unwrap_or(0)
}

fn text(answer: &Value, key: &str) -> String {
    answer[key]
        .as_str()
        .unwrap_or_else(|| panic!("{answer}"))
        .to_owned()
}

fn thing() -> Value {
    json!({"thing2": {"value": "保温杯"}})
}

#[test]
fn quotas_are_told_spent_and_cleared() {
    let fixture = SendContext::with(|app| {
        app.limits.subscribe_send = 2;
        app.limits.clear_quota = 1;
    });
    let token = fixture.token();
    let codes = [(); 3].map(|()| code(&fixture.subscribe(&token, "o", &thing())));
    assert_eq!(codes, [0, 0, 45009]);
    let path = json!({"cgi_path": "/cgi-bin/message/subscribe/send"});
    let quota = fixture.post("/cgi-bin/openapi/quota/get", &token, &path);
    assert_eq!(
        quota["quota"],
        json!({"daily_limit": 2, "used": 2, "remain": 0})
    );
    let unknown = json!({"cgi_path": "/nowhere"});
    assert_eq!(
        code(&fixture.post("/cgi-bin/openapi/quota/get", &token, &unknown)),
        76021
    );
    let clear =
        |appid: &str| code(&fixture.post("/cgi-bin/clear_quota", &token, &json!({"appid": appid})));
    assert_eq!([clear("wx0000000000000000"), clear(APP)], [40013, 0]);
    assert_eq!(code(&fixture.subscribe(&token, "o", &thing())), 0);
    let v2 = json!({"appid": APP, "appsecret": "s"}).to_string();
    assert_eq!(
        code(&fixture.call("POST", "/cgi-bin/clear_quota/v2", &v2)),
        48006
    );
}

#[test]
fn faults_strike_before_or_after_the_act() {
    let fixture = SendContext::new();
    let token = fixture.token();
    let path = CallEndpoint::SubscribeSend.name();
    let accepted = |effect: Effect| {
        fixture
            .world
            .faults
            .add(Fault::next(1, effect).for_path(path).for_user("o"));
        let before = fixture.world.stats().accepted;
        let answer = fixture.subscribe(&token, "o", &thing());
        (answer, fixture.world.stats().accepted - before)
    };
    let (answer, count) = accepted(Effect::Errcode {
        errcode: -1,
        errmsg: None,
    });
    assert!(text(&answer, "errmsg").starts_with("system error rid: "));
    assert_eq!((code(&answer), count), (-1, 0));
    assert_eq!(
        accepted(Effect::BreakBefore),
        (json!({"ending": "Break"}), 0)
    );
    assert_eq!(
        accepted(Effect::BreakAfter),
        (json!({"ending": "Break"}), 1)
    );
    assert_eq!(
        accepted(Effect::Hang { acted: false }),
        (json!({"ending": "Hang"}), 0)
    );
    assert_eq!(
        accepted(Effect::Hang { acted: true }),
        (json!({"ending": "Hang"}), 1)
    );
    let bad_gateway = Effect::Status {
        status: 502,
        body: None,
    };
    assert_eq!(accepted(bad_gateway).1, 0);
    assert_eq!(accepted(Effect::StatusAfter { status: 504 }).1, 1);
    let stats = fixture.world.stats();
    let broken = ["break_after", "status_502", "status_504_after"].map(|kind| stats.broken[kind]);
    assert_eq!(broken, [1, 1, 1]);
    assert_eq!(stats.count(path, 0), 3);
}
