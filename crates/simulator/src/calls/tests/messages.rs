//! Which messages are accepted.

use super::*;
use crate::account::{FormIdPolicy, GrantRule, UserPolicy};
use crate::form_ids::{FormId, FormIdKind};
use crate::template::ListedTemplate;

#[test]
fn a_subscribe_message_is_answered_a_msgid_above_2_53() {
    let fixture = SendContext::new();
    let answer = fixture.subscribe(&fixture.token(), "o", &thing());
    assert_eq!(answer["errmsg"], "ok");
    assert!(answer["msgid"].as_u64().unwrap() > 1 << 53, "{answer}");
    let sent = fixture.world.find(APP).unwrap().journal.last(1).remove(0);
    assert_eq!(
        (sent.touser.as_str(), Some(sent.msgid)),
        ("o", answer["msgid"].as_u64())
    );
    assert!(sent.body.unwrap().contains("保温杯"));
}

#[test]
fn values_are_judged_by_their_keys() {
    let fixture = SendContext::new();
    let token = fixture.token();
    let errmsg = |data: Value| {
        let answer = fixture.subscribe(&token, "o", &data);
        assert_eq!(code(&answer), 47003, "{answer}");
        text(&answer, "errmsg")
            .split(" rid: ")
            .next()
            .unwrap()
            .to_owned()
    };
    assert_eq!(
        errmsg(json!({"thing2": {"value": "字".repeat(21)}})),
        "argument invalid! data.thing2.value invalid"
    );
    assert_eq!(
        errmsg(json!({"thing2": {"value": ""}})),
        "argument invalid! data.thing2.value is emtpy"
    );
    assert_eq!(
        errmsg(json!({"thing2": "bare"})),
        "argument invalid! data.thing2.value invalid"
    );
    assert_eq!(
        errmsg(json!("{\"thing2\":{}}")),
        "argument invalid! data invalid"
    );
    assert_eq!(fixture.world.stats().accepted, 0);
}

#[test]
fn registered_templates_decide_over_ids_and_keys() {
    let fixture = SendContext::with(|app| {
        app.templates = vec![ListedTemplate::one_time("t", &["thing2", "number3"])];
    });
    let token = fixture.token();
    let missing = fixture.subscribe(&token, "o", &thing());
    assert!(text(&missing, "errmsg").starts_with("argument invalid! data.number3.value rid:"));
    let whole =
        json!({"thing2": {"value": "x"}, "number3": {"value": "1"}, "extra": {"value": ""}});
    assert_eq!(code(&fixture.subscribe(&token, "o", &whole)), 0);
    let body = json!({"touser": "o", "template_id": "other", "data": whole});
    assert_eq!(
        code(&fixture.post("/cgi-bin/message/subscribe/send", &token, &body)),
        40037
    );
    let listed = fixture.call(
        "GET",
        &format!("/wxaapi/newtmpl/gettemplate?access_token={token}"),
        "",
    );
    assert_eq!(listed["data"][0]["priTmplId"], "t");
    assert_eq!(listed["data"][0]["type"], 2);
}

#[test]
fn counted_grants_are_spent_only_by_accepted_messages() {
    let fixture = SendContext::with(|app| app.grants = GrantRule::Counted);
    let (token, app) = (fixture.token(), fixture.world.register(APP));
    assert_eq!(code(&fixture.subscribe(&token, "o", &thing())), 43101);
    app.grants.add("o", "t", 1);
    assert_eq!(
        code(&fixture.subscribe(&token, "o", &json!({"thing2": {"value": ""}}))),
        47003
    );
    assert_eq!(code(&fixture.subscribe(&token, "o", &thing())), 0);
    assert_eq!(code(&fixture.subscribe(&token, "o", &thing())), 43101);
}

#[test]
fn unknown_users_are_refused_where_users_are_known() {
    let fixture = SendContext::with(|app| app.users = UserPolicy::Known);
    let token = fixture.token();
    fixture.world.register(APP).users.insert("o".into());
    assert_eq!(code(&fixture.subscribe(&token, "o", &thing())), 0);
    assert_eq!(code(&fixture.subscribe(&token, "O", &thing())), 40003);
}

#[test]
fn two_sends_to_one_user_collide_while_the_first_is_in_flight() {
    let fixture = SendContext::with(|app| app.latency_ms = Some(50));
    let token = fixture.token();
    let uri = format!("access_token={token}");
    let body = json!({"touser": "o", "template_id": "t", "data": thing()}).to_string();
    let call = ParsedCall {
        endpoint: CallEndpoint::SubscribeSend,
        path: CallEndpoint::SubscribeSend.name(),
        is_get: false,
        query: &uri,
        body: body.as_bytes(),
        ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        now: START,
    };
    let first = serve(&fixture.world, &call);
    assert_eq!(first.delay, Duration::from_millis(50));
    assert_eq!(code(&fixture.subscribe(&token, "o", &thing())), 43108);
    assert_eq!(code(&fixture.subscribe(&token, "p", &thing())), 0);
    drop(first);
    assert_eq!(code(&fixture.subscribe(&token, "o", &thing())), 0);
}

#[test]
fn form_ids_by_policy() {
    let fixture = SendContext::new();
    let token = fixture.token();
    let codes = [("o", "f"), ("o", "f"), ("p", "f"), ("p", "")]
        .map(|(openid, id)| fixture.form(&token, openid, id));
    assert_eq!(codes, [0, 41029, 41028, 41028]);
    let app = fixture.world.register(APP);
    app.set(AppSettings {
        form_ids: FormIdPolicy::Known,
        ..AppSettings::default()
    });
    assert_eq!(fixture.form(&token, "o", "new"), 41028);
    let paid = FormId {
        id: "order".into(),
        openid: "o".into(),
        kind: FormIdKind::Prepay,
        made_at: None,
    };
    app.form_ids.add(paid, START);
    let codes = [(); 4].map(|()| fixture.form(&token, "o", "order"));
    assert_eq!(codes, [0, 0, 0, 41029]);
    app.set(AppSettings {
        wxopen_withdrawn: Some(45103),
        ..AppSettings::default()
    });
    assert_eq!(fixture.form(&token, "o", "fresh"), 45103);
}

#[test]
fn official_accounts_send_once_per_client_id_and_their_tokens_are_their_own() {
    let fixture = SendContext::new();
    let body = json!({"touser": "o", "template_id": "t", "client_msg_id": "c", "data": thing()});
    let path = "/cgi-bin/message/template/send";
    let mini = fixture.token();
    assert_eq!(code(&fixture.post(path, &mini, &body)), 48001);
    fixture.world.register(APP).set(AppSettings {
        kind: AccountKind::OfficialAccount,
        ..AppSettings::default()
    });
    let (first, second) = (
        fixture.post(path, &mini, &body),
        fixture.post(path, &mini, &body),
    );
    assert_eq!((code(&first), &first["msgid"]), (0, &second["msgid"]));
    assert_eq!(fixture.world.stats().accepted, 1);
    assert_eq!(code(&fixture.subscribe(&mini, "o", &thing())), 48001);
}
