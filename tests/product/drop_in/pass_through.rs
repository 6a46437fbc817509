//! Pass-through calls: what leaves the gateway, what comes back, and what never does.

use reqwest::Method;
use serde_json::{Value, json};
use simulator::{Effect, Fault};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    api::hostile_requests::connect,
    drop_in::{call, post, ready},
    world::{Mode, SECRET, World, finish},
};

const APP: &str = "wx00000000000000a1";
const OTHER: &str = "wx00000000000000b2";
const SUBSCRIBE: &str = "/cgi-bin/message/subscribe/send";

both_modes!(
    other_calls_are_passed_on_with_the_apps_token,
    calls_with_secrets_are_not_passed_on,
    a_call_that_did_not_reach_wechat_may_be_repeated,
    users_sign_in_with_the_apps_real_secret,
);

async fn other_calls_are_passed_on_with_the_apps_token(mode: Mode) {
    let world = World::start(mode).await;
    let (tenant, token) = ready(&world).await;
    let client = &tenant.client;
    let templates = "/wxaapi/newtmpl/gettemplate";
    let answer = call(client, Method::GET, templates, &token, &Value::Null).await;
    assert_eq!(
        answer.header("content-type"),
        Some("application/json; encoding=utf-8"),
        "{answer:?}"
    );
    assert_eq!(answer.header("content-security-policy"), Some("sandbox"));
    let answer = answer.expect(200);
    assert!(
        answer["errcode"] == 0 && answer["data"].is_array(),
        "{answer}"
    );

    // The body arrives at WeChat, and the gateway replaces a dead token.
    world.wechat().kill_tokens(APP);
    let asked = json!({"cgi_path": SUBSCRIBE});
    let quota = post(client, "/cgi-bin/openapi/quota/get", &token, &asked).await;
    assert!(quota["quota"]["daily_limit"].is_u64(), "{quota}");

    let large = json!({"text": "x".repeat(2 * 1024 * 1024)});
    let unknown = post(client, "/cgi-bin/any/thing", &token, &large).await;
    assert_eq!(unknown["errcode"], 40066);
    let words = unknown["errmsg"].as_str().expect("errmsg");
    assert!(!words.contains("gateway"), "WeChat itself says it: {words}");

    let mut stream = connect(&world).await;
    let announced = format!(
        "POST /cgi-bin/media/upload?access_token={token} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        10 * 1024 * 1024 + 1
    );
    stream
        .write_all(announced.as_bytes())
        .await
        .expect("a head");
    let mut said = String::new();
    stream.read_to_string(&mut said).await.expect("an answer");
    assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
    assert!(said.contains("\"errcode\":45002"), "{said}");
}

async fn calls_with_secrets_are_not_passed_on(mode: Mode) {
    let world = World::start(mode).await;
    let (tenant, token) = ready(&world).await;
    let before = world.wechat().stats();
    for path in [
        "/cgi-bin/clear_quota",
        "/cgi-bin/clear_quota/v2",
        "/cgi-bin/stable_token/",
        "/cgi-bin//stable_token",
        "/cgi-bin/%73table_token",
        "/cgi-bin/Token",
        "/cgi-bin/message/subscribe/SEND",
    ] {
        let refused = post(&tenant.client, path, &token, &json!({"appid": APP})).await;
        assert_eq!(refused["errcode"], 40066, "{path}: {refused}");
        let words = refused["errmsg"].as_str().expect("errmsg");
        assert!(words.contains("gateway"), "{path}: {words}");
    }
    let secret = &tenant.client.key().client_secret;
    let path = format!("/cgi-bin/menu/get?access_token={token}&secret={secret}");
    let refused = finish(tenant.client.bare(Method::GET, &path)).await;
    assert_eq!(refused.expect(200)["errcode"], 48001);
    let outside = finish(tenant.client.bare(Method::GET, "/sns/userinfo")).await;
    let refused = outside.expect(200);
    assert_eq!(refused["errcode"], 40066, "{refused}");
    let words = refused["errmsg"].as_str().expect("errmsg");
    assert!(words.contains("https://api.weixin.qq.com"), "{words}");
    assert_eq!(
        json!(world.wechat().stats().calls.len()),
        json!(before.calls.len())
    );
}

async fn a_call_that_did_not_reach_wechat_may_be_repeated(mode: Mode) {
    let mut world = World::start(mode).await;
    let (tenant, token) = ready(&world).await;
    let (quota, templates) = ("/cgi-bin/openapi/quota/get", "/wxaapi/newtmpl/gettemplate");
    let asked = json!({"cgi_path": SUBSCRIBE});
    let status = |status| Effect::Status { status, body: None };
    for (effect, of_post) in [
        (Effect::BreakAfter, 99001),
        (Effect::StatusAfter { status: 504 }, 99001),
        (Effect::StatusAfter { status: 502 }, 99001),
        (status(500), 99001),
        (status(502), 99001),
        (status(503), -1),
        (status(302), -1),
    ] {
        for path in [quota, templates] {
            let once = Fault::next(1, effect.clone()).for_path(path);
            world.wechat().add_fault(once);
        }
        let changed = post(&tenant.client, quota, &token, &asked).await;
        assert_eq!(changed["errcode"], of_post, "{effect:?}: {changed}");
        let read = call(&tenant.client, Method::GET, templates, &token, &Value::Null).await;
        assert_eq!(read.expect(200)["errcode"], -1, "{effect:?}");
    }

    world.wechat_goes_away().await;
    let busy = post(&tenant.client, quota, &token, &asked).await;
    assert_eq!(busy["errcode"], -1, "{busy}");
    world.wechat_comes_back().await;
}

async fn users_sign_in_with_the_apps_real_secret(mode: Mode) {
    let world = World::start(mode).await;
    let (tenant, _) = ready(&world).await;
    let client = &tenant.client;
    let other_tenant = world.tenant("b").await;
    other_tenant.app(OTHER).await;
    let weak = world.key_of(&tenant.id, &["messages:send"]).await;
    let ask = async |query: &str| {
        let path = format!("/sns/jscode2session?{query}");
        finish(client.bare(Method::GET, &path)).await.expect(200)
    };
    let sign_in = async |appid: &str, secret: &str, code: &str| {
        let query = format!("appid={appid}&secret={secret}&js_code={code}");
        ask(&format!("{query}&grant_type=authorization_code")).await
    };
    let secret = client.key().client_secret.as_str();

    // SDKs add the token of their cache; the gateway does not forward that token.
    let session = sign_in(APP, secret, "c1&access_token=any").await;
    assert_eq!(session["openid"], "oc1", "{session}");
    assert!(session["session_key"].is_string(), "{session}");
    for (appid, secret, code, refusal) in [
        (APP, secret, "c1", 40163),
        (APP, secret, "the+code+is+a+mock+one", 40029),
        (APP, secret, "", 41008),
        (APP, SECRET, "c2", 40125),
        (APP, "", "c2", 41004),
        ("", secret, "c2", 41002),
        (OTHER, secret, "c2", 40013),
        (APP, weak.key().client_secret.as_str(), "c2", 48001),
    ] {
        let refused = sign_in(appid, secret, code).await;
        assert_eq!(refused["errcode"], refusal, "{appid} {code}: {refused}");
    }
    let refused = ask(&format!("appid={APP}&secret={secret}&js_code=c2")).await;
    assert_eq!(refused["errcode"], 40002, "{refused}");

    let path = "/sns/jscode2session";
    let says = |errcode| Effect::Errcode {
        errcode,
        errmsg: None,
    };
    for (effect, refusal) in [
        (Effect::BreakAfter, -1),
        (says(40001), 40125),
        (says(40226), 40226),
    ] {
        world
            .wechat()
            .add_fault(Fault::next(1, effect).for_path(path));
        let refused = sign_in(APP, secret, "c2").await;
        assert_eq!(refused["errcode"], refusal, "{refused}");
    }
}
