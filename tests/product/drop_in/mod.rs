//! The drop-in surface, as an SDK of WeChat sees the gateway.

mod pass_through;
mod waits;

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use simulator::{AccountKind, Effect, Fault};

use crate::world::{
    Answer, Client, Mode, SECRET, Tenant, World, finish, message, message_with, outcomes, until,
};

const APP: &str = "wx00000000000000a1";
const OTHER: &str = "wx00000000000000b2";
const SUBSCRIBE: &str = "/cgi-bin/message/subscribe/send";
const WXOPEN: &str = "/cgi-bin/message/wxopen/template/send";
const OFFICIAL: &str = "/cgi-bin/message/template/send";

both_modes!(
    each_send_call_goes_through_the_gateway,
    a_secret_gets_tokens_for_its_own_apps_alone,
    a_token_is_valid_on_its_own_surface_and_ends_with_its_key,
    a_token_is_valid_a_little_longer_than_announced,
    refusals_of_wechat_are_passed_on_unchanged,
    an_invalid_message_is_refused_before_wechat_is_called,
    limits_are_refused_with_codes_of_wechat,
    refusals_for_want_of_a_scope_count_against_the_rate,
    a_dead_token_of_the_app_is_invisible_to_the_caller,
    a_lost_answer_is_not_called_a_failure,
    a_message_not_sent_in_time_is_never_sent,
    a_removed_app_is_refused,
);

async fn ask_token(client: &Client, appid: &str, secret: &str) -> Value {
    let path = format!("/cgi-bin/token?grant_type=client_credential&appid={appid}&secret={secret}");
    finish(client.bare(Method::GET, &path)).await.expect(200)
}

/// An access token by which the client's key acts for the app.
pub(crate) async fn wechat_token(client: &Client, appid: &str) -> String {
    let answer = ask_token(client, appid, &client.key().client_secret).await;
    assert_eq!(answer["expires_in"], 7200, "{answer}");
    answer["access_token"].as_str().expect("a token").to_owned()
}

/// A call in the form that SDKs use: the token in the query, a body without a content type.
pub(crate) async fn call(
    client: &Client,
    method: Method,
    path: &str,
    token: &str,
    body: &Value,
) -> Answer {
    let path = format!("{path}?access_token={token}");
    let mut request = client.bare(method, &path);
    if !body.is_null() {
        request = request.body(body.to_string());
    }
    client.time().during(finish(request)).await
}

pub(crate) async fn post(client: &Client, path: &str, token: &str, body: &Value) -> Value {
    call(client, Method::POST, path, token, body)
        .await
        .expect(200)
}

/// A tenant with a mini-program, and a gateway token for the app.
pub(crate) async fn ready(world: &World) -> (Tenant, String) {
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let token = wechat_token(&tenant.client, APP).await;
    (tenant, token)
}

async fn each_send_call_goes_through_the_gateway(mode: Mode) {
    let world = World::start(mode).await;
    let (tenant, token) = ready(&world).await;
    let client = &tenant.client;

    let sent = post(client, SUBSCRIBE, &token, &message("o1")).await;
    assert_eq!(
        (&sent["errcode"], &sent["errmsg"]),
        (&json!(0), &json!("ok"))
    );
    let kept = tenant.all(APP).await.remove(0);
    assert_eq!(kept["status"], "sent");
    let msgid = sent["msgid"].as_u64().expect("an integer").to_string();
    assert_eq!(kept["msgid"], msgid);

    let body = json!({"touser": "o2", "template_id": "t1", "form_id": "f1", "page": "",
        "data": {"keyword1": {"value": "339208499", "color": "#173177"}}});
    let sent = post(client, WXOPEN, &token, &body).await;
    assert_eq!(sent, json!({"errcode": 0, "errmsg": "ok"}));

    world
        .wechat()
        .change_app(OTHER, |app| app.kind = AccountKind::OfficialAccount);
    tenant
        .app_with(OTHER, json!({"kind": "official_account"}))
        .await;
    let token = wechat_token(client, OTHER).await;
    let body = json!({"touser": "o3", "template_id": "t1", "url": "", "topcolor": "#FF0000",
        "data": {"thing1": {"value": "保温杯", "color": "#173177"}}});
    let sent = post(client, OFFICIAL, &token, &body).await;
    assert!(sent["errcode"] == 0 && sent["msgid"].is_u64(), "{sent}");
    let wrong_kind = post(client, SUBSCRIBE, &token, &message("o4")).await;
    assert_eq!(wrong_kind["errcode"], 48001, "{wrong_kind}");
}

async fn a_secret_gets_tokens_for_its_own_apps_alone(mode: Mode) {
    let world = World::start(mode).await;
    let (tenant, _) = ready(&world).await;
    let other_tenant = world.tenant("b").await;
    other_tenant.app(OTHER).await;
    let client = &tenant.client;
    let secret = client.key().client_secret.as_str();
    let errcode = async |query: String| {
        let path = format!("/cgi-bin/token?{query}");
        let answer = finish(client.bare(Method::GET, &path)).await.expect(200);
        answer["errcode"].as_i64().expect("a code")
    };

    let grant = "grant_type=client_credential";
    for (query, code) in [
        (format!("appid={APP}&secret={secret}"), 40002),
        (format!("grant_type=x&appid={APP}&secret={secret}"), 40002),
        (format!("{grant}&secret={secret}"), 41002),
        (format!("{grant}&appid={APP}"), 41004),
        (format!("{grant}&appid={APP}&secret={SECRET}"), 40125),
        (format!("{grant}&appid={APP}&secret={secret}x"), 40125),
        (
            format!("{grant}&appid=wx00000000000000ff&secret={SECRET}"),
            40125,
        ),
    ] {
        assert_eq!(errcode(query.clone()).await, code, "{query}");
    }
    let theirs = ask_token(client, OTHER, secret).await;
    let nobodys = ask_token(client, "wx00000000000000ff", secret).await;
    let none = ask_token(client, "no-appid", secret).await;
    assert_eq!(theirs["errcode"], 40013);
    assert_eq!((&theirs, &theirs), (&nobodys, &none));

    let stable = async |method, body: Value| {
        let request = client.bare(method, "/cgi-bin/stable_token").json(&body);
        finish(request).await.expect(200)
    };
    let asked = json!({"grant_type": "client_credential", "appid": APP, "secret": secret, "force_refresh": true});
    let answer = stable(Method::POST, asked.clone()).await;
    assert_eq!(answer["expires_in"], 7200);
    let token = answer["access_token"].as_str().expect("a token");
    assert!(token.len() < 512, "{}", token.len());
    assert_eq!(stable(Method::GET, asked).await["errcode"], 43002);
    assert_eq!(stable(Method::POST, json!([1])).await["errcode"], 47001);
    let empty = finish(client.bare(Method::POST, "/cgi-bin/stable_token")).await;
    assert_eq!(empty.expect(200)["errcode"], 44002);
}

async fn a_token_is_valid_on_its_own_surface_and_ends_with_its_key(mode: Mode) {
    let world = World::start(mode).await;
    let (tenant, _) = ready(&world).await;
    let key = world.key_of(&tenant.id, &["messages:send"]).await;
    let token = wechat_token(&key, APP).await;
    let at_v1 = key.bare(Method::GET, "/v1/apps").bearer_auth(&token);
    finish(at_v1).await.problem(401, "unauthorized");
    let bearer = key.token().await;
    for (token, code) in [("", 41001), (bearer.as_str(), 40001), ("nonsense", 40001)] {
        let refused = post(&key, SUBSCRIBE, token, &message("o1")).await;
        assert_eq!(refused["errcode"], code, "{refused}");
    }
    let proxied = call(&key, Method::GET, "/cgi-bin/menu/get", &token, &Value::Null).await;
    assert_eq!(proxied.expect(200)["errcode"], 48001);

    let path = format!("/v1/keys/{}", key.key().client_id);
    tenant.client.delete(&path).await.expect(204);
    let refused = post(&key, SUBSCRIBE, &token, &message("o1")).await;
    assert_eq!(refused["errcode"], 40125, "{refused}");
    let no_more = ask_token(&key, APP, &key.key().client_secret).await;
    assert_eq!(no_more["errcode"], 40125, "{no_more}");
    assert!(world.wechat().sent(APP).is_empty());
}

async fn a_token_is_valid_a_little_longer_than_announced(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let (tenant, token) = ready(&world).await;
    world.pass(Duration::from_mins(121));
    let sent = post(&tenant.client, SUBSCRIBE, &token, &message("o1")).await;
    assert_eq!(sent["errcode"], 0, "{sent}");
    world.pass(Duration::from_mins(4));
    let expired = post(&tenant.client, SUBSCRIBE, &token, &message("o1")).await;
    assert_eq!(expired["errcode"], 42001, "{expired}");
}

async fn refusals_of_wechat_are_passed_on_unchanged(mode: Mode) {
    let world = World::start(mode).await;
    let (tenant, token) = ready(&world).await;
    for code in [43101, 40003, 40037, 47003] {
        let refusal = Effect::Errcode {
            errcode: code,
            errmsg: None,
        };
        world
            .wechat()
            .add_fault(Fault::next(1, refusal).for_path(SUBSCRIBE));
        let refused = post(&tenant.client, SUBSCRIBE, &token, &message("o1")).await;
        assert_eq!(refused["errcode"], code, "{refused}");
        let words = refused["errmsg"].as_str().expect("errmsg");
        assert!(words.contains(" rid: "), "{words}");
    }
    tenant.wait_count(APP, "failed", 4).await;
}

async fn an_invalid_message_is_refused_before_wechat_is_called(mode: Mode) {
    let world = World::start(mode).await;
    let (tenant, token) = ready(&world).await;
    let client = &tenant.client;
    for (more, code) in [
        (json!({"touser": ""}), 40003),
        (json!({"template_id": ""}), 40037),
        (json!({"data": {"number1": {"value": "two"}}}), 47003),
        (json!({"data": null}), 47003),
        (json!({"lang": "tlh"}), 47003),
        (json!({"data": "text"}), 47003),
    ] {
        let refused = post(client, SUBSCRIBE, &token, &message_with("o1", more.clone())).await;
        assert_eq!(refused["errcode"], code, "{more}: {refused}");
    }
    let no_form = post(client, WXOPEN, &token, &message("o1")).await;
    assert_eq!(no_form["errcode"], 41028, "{no_form}");
    let empty = post(client, SUBSCRIBE, &token, &Value::Null).await;
    assert_eq!(empty["errcode"], 44002, "{empty}");
    let got = call(client, Method::GET, SUBSCRIBE, &token, &Value::Null).await;
    assert_eq!(got.expect(200)["errcode"], 43002);
    assert_eq!(world.wechat().app_stats(APP).total(SUBSCRIBE), 0);
}

async fn limits_are_refused_with_codes_of_wechat(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let slow = world
        .tenant_with("slow", json!({"requests_per_second": 1}))
        .await;
    let operator = world.operator();
    let app = json!({"appid": APP, "secret": SECRET, "tenant_id": slow.id, "daily_quota": 1});
    operator.post("/v1/apps", &app).await.expect(201);
    let token = wechat_token(&slow.client, APP).await;

    let first = post(&slow.client, SUBSCRIBE, &token, &message("o1")).await;
    assert_eq!(first["errcode"], 0, "{first}");
    let spent = post(&slow.client, SUBSCRIBE, &token, &message("o2")).await;
    assert_eq!(spent["errcode"], 45009, "{spent}");
    let mut codes = Vec::new();
    for _ in 0..20 {
        let answer = post(&slow.client, SUBSCRIBE, &token, &message("o2")).await;
        codes.push(answer["errcode"].as_i64().expect("a code"));
    }
    assert_eq!(codes.last(), Some(&45011), "{codes:?}");
}

/// As under `/v1`: repeated calls without the required scope lead to 45011, which asks the caller to wait.
async fn refusals_for_want_of_a_scope_count_against_the_rate(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let slow = world
        .tenant_with("slow", json!({"requests_per_second": 20}))
        .await;
    slow.app(APP).await;
    let weak = world.key_of(&slow.id, &["messages:read"]).await;
    let token = wechat_token(&weak, APP).await;
    let mut codes = Vec::new();
    for path in [SUBSCRIBE, "/cgi-bin/openapi/quota/get"] {
        for _ in 0..20 {
            let answer = post(&weak, path, &token, &message("o1")).await;
            codes.push(answer["errcode"].as_i64().expect("a code"));
        }
    }
    assert_eq!((codes[0], codes.last()), (48001, Some(&45011)), "{codes:?}");
}

async fn a_dead_token_of_the_app_is_invisible_to_the_caller(mode: Mode) {
    let world = World::start(mode).await;
    let (tenant, token) = ready(&world).await;
    world.wechat().kill_tokens(APP);
    let sent = post(&tenant.client, SUBSCRIBE, &token, &message("o1")).await;
    assert_eq!(sent["errcode"], 0, "{sent}");
    let kept = tenant.all(APP).await.remove(0);
    assert_eq!(outcomes(&kept), ["stale_token", "accepted"], "{kept}");

    // WeChat refuses fresh tokens too. An SDK that saw this refusal would fetch tokens in an endless loop.
    let dead = Effect::Errcode {
        errcode: 40001,
        errmsg: None,
    };
    let path = "/wxaapi/newtmpl/gettemplate";
    world.wechat().add_fault(Fault::always(dead).for_path(path));
    let busy = call(&tenant.client, Method::GET, path, &token, &Value::Null).await;
    assert_eq!(busy.expect(200)["errcode"], -1);
}

async fn a_lost_answer_is_not_called_a_failure(mode: Mode) {
    let world = World::start(mode).await;
    let (tenant, token) = ready(&world).await;
    let lost = Fault::next(1, Effect::BreakAfter).for_path(SUBSCRIBE);
    world.wechat().add_fault(lost);
    let unknown = post(&tenant.client, SUBSCRIBE, &token, &message("o1")).await;
    assert_eq!(unknown["errcode"], 99001, "{unknown}");
    let kept = tenant.all(APP).await.remove(0);
    assert_eq!(kept["status"], "uncertain");
    let words = unknown["errmsg"].as_str().expect("errmsg");
    assert!(
        words.contains(kept["id"].as_str().expect("an id")),
        "{words}"
    );
    assert_eq!(world.wechat().sent(APP).len(), 1);
}

async fn a_message_not_sent_in_time_is_never_sent(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let (tenant, token) = ready(&world).await;
    let busy = Effect::Errcode {
        errcode: -1,
        errmsg: None,
    };
    let wechat = world.wechat();
    wechat.add_fault(Fault::always(busy).for_path(SUBSCRIBE));
    let message = message("o1");
    let waiting = post(&tenant.client, SUBSCRIBE, &token, &message);
    let turning = async {
        until("WeChat was asked", || {
            wechat.app_stats(APP).total(SUBSCRIBE) > 0
        })
        .await;
        world.pass(Duration::from_secs(20));
    };
    let (answer, ()) = futures::join!(waiting, turning);
    assert_eq!(answer["errcode"], -1, "{answer}");
    wechat.clear_faults();
    tenant.wait_count(APP, "expired", 1).await;

    let again = post(&tenant.client, SUBSCRIBE, &token, &message).await;
    assert_eq!(again["errcode"], 0, "{again}");
    assert_eq!(wechat.sent(APP).len(), 1);
}

async fn a_removed_app_is_refused(mode: Mode) {
    let world = World::start(mode).await;
    let (tenant, token) = ready(&world).await;
    let path = format!("/v1/apps/{APP}");
    tenant.client.delete(&path).await.expect(204);
    for path in [SUBSCRIBE, "/cgi-bin/openapi/quota/get"] {
        let refused = post(&tenant.client, path, &token, &message("o1")).await;
        assert_eq!(refused["errcode"], 40013, "{path}: {refused}");
    }
}
