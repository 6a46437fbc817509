//! Templates: copied from WeChat, and checked against every message before the message costs anything.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use simulator::{AccountKind, Effect, Fault, GrantRule, KeywordEnum, ListedTemplate as Template};

use crate::{
    drop_in::wechat_token,
    webhooks::{Receiver, hook},
    world::{Mode, TEMPLATE, Tenant, World, finish, message_with, run},
};

const APP: &str = "wx00000000000000a1";
const SUBSCRIBE: &str = "/cgi-bin/message/subscribe/send";
const GET_TEMPLATE: &str = "/wxaapi/newtmpl/gettemplate";
const NEW: &str = "nEw0VxnRzHxkMVwBSkPGXFUNkRDfMlAqV0P1nVTW4Zx9";

both_modes!(
    a_new_app_knows_its_templates,
    every_invalid_value_is_reported_and_costs_nothing,
    a_long_thing_is_truncated_on_request,
    unknown_templates_are_accepted_with_a_warning,
    an_unknown_template_starts_a_sync,
    drift_is_detected_and_reported,
    a_replay_gets_the_first_answer_after_templates_changed,
    other_kinds_of_apps_have_template_lists,
    templates_are_synced_periodically,
);

mod a_sync_at_one_replica_counts_at_the_other {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn production() {
        super::a_sync_at_one_replica_counts_at_the_other().await;
    }
}

fn path(rest: &str) -> String {
    format!("/v1/apps/{APP}{rest}")
}

async fn listed(tenant: &Tenant) -> Value {
    tenant.client.get(&path("/templates")).await.expect(200)
}

async fn sync(tenant: &Tenant) -> Value {
    let path = path("/templates/sync");
    tenant.client.post(&path, &Value::Null).await.expect(200)
}

/// Sets the templates that WeChat lists of the app.
fn lists(world: &World, templates: &[Template]) {
    world
        .wechat()
        .change_app(APP, |app| app.templates = templates.to_vec());
}

fn order() -> Template {
    Template {
        title: "订单".into(),
        keyword_enum_value_list: vec![KeywordEnum {
            keyword_code: "enum_string3.DATA".into(),
            enum_value_list: vec!["排队中".into(), "已过号".into()],
        }],
        ..Template::one_time(TEMPLATE, &["thing1", "number2", "enum_string3", "mystery4"])
    }
}

/// A message that fits [`order`], with these fields.
fn fitting(openid: &str, more: Value) -> Value {
    let data = json!({"thing1": {"value": "杯"}, "number2": {"value": 2}, "enum_string3": {"value": "排队中"},
        "mystery4": {"value": "anything"}});
    let mut message = message_with(openid, json!({"data": data}));
    let Value::Object(more) = more else {
        unreachable!()
    };
    message.as_object_mut().unwrap().extend(more);
    message
}

fn pointers(problem: &Value) -> Vec<&str> {
    let errors = problem["errors"].as_array().expect("errors");
    errors
        .iter()
        .map(|error| error["pointer"].as_str().unwrap_or_default())
        .collect()
}

async fn refused(tenant: &Tenant, message: &Value) -> Value {
    let answer = tenant.client.post(&path("/messages"), message).await;
    answer.problem(422, "validation_failed")
}

async fn a_new_app_knows_its_templates(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    lists(&world, &[order()]);
    tenant.app(APP).await;
    let page = listed(&tenant).await;
    assert!(page["synced_at"].is_string() && page["sync_failure"].is_null());
    let template = &page["data"][0];
    assert_eq!(
        (
            &template["template_id"],
            &template["state"],
            &template["kind"]
        ),
        (&json!(TEMPLATE), &json!("active"), &json!("one_time"))
    );
    let keys = &template["keys"];
    assert_eq!(
        (&keys[0]["name"], &keys[0]["type"], &keys[0]["rule"]),
        (
            &json!("thing1"),
            &json!("thing"),
            &json!("at most 20 characters, where an emoji counts as two or more (UTF-16 units)")
        )
    );
    assert_eq!(keys[2]["values"], json!(["排队中", "已过号"]));
    assert_eq!(keys[3]["rule"], Value::Null, "a type that nobody knows");
    let sent = tenant.send_and_wait(APP, &fitting("o1", json!({}))).await;
    assert_eq!(sent["status"], "sent");
    assert_eq!(world.wechat().stats().total(GET_TEMPLATE), 1);
}

async fn every_invalid_value_is_reported_and_costs_nothing(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    lists(&world, &[order()]);
    world
        .wechat()
        .change_app(APP, |app| app.grants = GrantRule::Counted);
    tenant.app(APP).await;
    let wrong = message_with(
        "o1",
        json!({"ttl": 0, "data": {"thing1": {"value": "x".repeat(21)}, "enum_string3": {"value": "到号"},
            "mystery4": {"value": "x"}, "time5": {"value": "08:00"}}}),
    );
    let wanted = [
        "/data/thing1/value",
        "/ttl",
        "/data/number2",
        "/data/enum_string3/value",
        "/data/time5",
    ];
    let problem = refused(&tenant, &wrong).await;
    assert_eq!(pointers(&problem), wanted, "{problem:#}");

    let mut dry = wrong.clone();
    dry["dry_run"] = json!(true);
    assert_eq!(pointers(&refused(&tenant, &dry).await), wanted);

    let fine = fitting("o2", json!({"dry_run": true}));
    let batch = json!({"messages": [wrong, fine]});
    let answer = tenant.client.post(&path("/messages/batch"), &batch).await;
    let answer = answer.expect(200);
    assert_eq!(pointers(&answer["data"][0]["error"]), wanted);
    assert_eq!(answer["data"][1]["status"], 200);
    let warnings = answer["data"][1]["message"]["warnings"].as_array();
    let warnings = warnings.expect("warnings");
    assert!(warnings[0].as_str().unwrap().contains("mystery4"));

    let table = "touser,thing1,number2\no3,x,1\n";
    let command = world.wxgate(&[
        "import",
        "a.csv",
        "--appid",
        APP,
        "--template",
        TEMPLATE,
        "--json",
    ]);
    let folder = command.get_current_dir().expect("a folder");
    std::fs::write(folder.join("a.csv"), table).expect("a file");
    let report = run(command).expect(1).json();
    let reason = report["refused"][0]["reason"].as_str().expect("a reason");
    assert!(
        reason.contains("data/enum_string3") && reason.contains("data/mystery4"),
        "{reason}"
    );

    let token = wechat_token(&tenant.client, APP).await;
    let call = format!("{SUBSCRIBE}?access_token={token}");
    let body = json!({"touser": "o4", "template_id": TEMPLATE, "data": {"thing1": {"value": "x"}, "more5": {"value": "x"}}});
    let request = tenant.client.bare(Method::POST, &call).json(&body);
    let answer = finish(request).await.expect(200);
    assert_eq!(answer["errcode"], 47003, "{answer}");
    let errmsg = answer["errmsg"].as_str().unwrap();
    assert!(
        errmsg.contains("data.number2") && !errmsg.contains("more5"),
        "{errmsg}"
    );

    assert_eq!(world.wechat().stats().total(SUBSCRIBE), 0);
    let quota = tenant.client.get(&path("/quota")).await.expect(200);
    assert_eq!(quota["used"], 0);
}

async fn a_long_thing_is_truncated_on_request(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let long = json!({"data": {"thing1": {"value": "一二三四五六七八九十".repeat(3)}}, "on_too_long": "truncate"});
    let sent = tenant.send_and_wait(APP, &message_with("o1", long)).await;
    let cut = "一二三四五六七八九十一二三四五六七八九…";
    assert_eq!(sent["data"]["thing1"]["value"], cut);
    let body = world.wechat().sent(APP)[0].body.clone().expect("a body");
    assert!(body.contains(cut), "{body}");
    let long = json!({"data": {"phrase1": {"value": "一二三四五六"}}, "on_too_long": "truncate"});
    let problem = refused(&tenant, &message_with("o1", long)).await;
    assert_eq!(pointers(&problem), ["/data/phrase1/value"]);
}

async fn unknown_templates_are_accepted_with_a_warning(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    let busy = Effect::Errcode {
        errcode: -1,
        errmsg: None,
    };
    world
        .wechat()
        .add_fault(Fault::always(busy).for_path(GET_TEMPLATE));
    tenant.app(APP).await;
    let page = listed(&tenant).await;
    assert!(page["synced_at"].is_null(), "{page}");
    assert!(page["sync_failure"].as_str().unwrap().contains("-1"));
    let dry = message_with("o1", json!({"dry_run": true}));
    let answer = tenant.client.post(&path("/messages"), &dry).await;
    let warnings = answer.expect(200)["warnings"].clone();
    assert!(warnings[0].as_str().unwrap().contains("not known"));
    let sent = tenant
        .send_and_wait(APP, &message_with("o1", json!({})))
        .await;
    assert_eq!(sent["status"], "sent");
    assert!(sent.get("warnings").is_none());
    let by_hand = path("/templates/sync");
    let synced = tenant.client.post(&by_hand, &Value::Null).await;
    let problem = synced.problem(502, "wechat_rejected");
    assert_eq!(problem["wechat"]["errcode"], -1);

    // An account that lists no template may still have some: the list of form-id templates has been empty since 2020.
    world.wechat().clear_faults();
    assert_eq!(sync(&tenant).await["added"], 0);
    let sent = tenant
        .send_and_wait(APP, &message_with("o2", json!({})))
        .await;
    assert_eq!(sent["status"], "sent");
}

async fn an_unknown_template_starts_a_sync(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let tenant = world.tenant("a").await;
    lists(&world, &[order()]);
    tenant.app(APP).await;
    lists(&world, &[order(), Template::one_time(NEW, &["thing1"])]);
    let message = message_with(
        "o1",
        json!({"template_id": NEW, "data": {"thing1": {"value": "x"}}}),
    );
    let problem = refused(&tenant, &message).await;
    assert_eq!(pointers(&problem), ["/template_id"], "asked a moment ago");
    world.pass(Duration::from_secs(61));
    let sent = tenant.send_and_wait(APP, &message).await;
    assert_eq!(sent["status"], "sent");
    assert_eq!(world.wechat().stats().total(GET_TEMPLATE), 2);
    world.pass(Duration::from_secs(61));
    let nowhere = message_with("o1", json!({"template_id": "nowhere"}));
    for _ in 0..3 {
        assert_eq!(
            pointers(&refused(&tenant, &nowhere).await),
            ["/template_id"]
        );
    }
    assert_eq!(world.wechat().stats().total(GET_TEMPLATE), 3);
    assert_eq!(world.wechat().stats().total(SUBSCRIBE), 1);
}

async fn drift_is_detected_and_reported(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    let other = Template::one_time(NEW, &["thing1"]);
    lists(&world, &[order(), other]);
    tenant.app(APP).await;
    let receiver = Receiver::start().await;
    let webhook = hook(&tenant, &receiver).await;
    let secret = webhook["secret"].as_str().expect("a secret");
    lists(&world, &[Template::one_time(NEW, &["thing1", "time2"])]);
    let synced = sync(&tenant).await;
    assert_eq!(
        (&synced["changed"], &synced["gone"]),
        (&json!(1), &json!(1))
    );
    let heard = receiver.wait(&world, 2).await;
    let mut told: Vec<(String, String)> = heard
        .iter()
        .map(|one| {
            assert!(one.is_signed_by(secret));
            assert_eq!(one.kind(), "template.changed");
            let data = &one.json["data"];
            assert_eq!(data["appid"], APP);
            let text = |name: &str| data[name].as_str().expect("a text").to_owned();
            (text("change"), text("template_id"))
        })
        .collect();
    told.sort();
    let wanted = [("changed", NEW), ("gone", TEMPLATE)];
    assert_eq!(told, wanted.map(|(change, id)| (change.into(), id.into())));
    let audit = tenant.client.get("/v1/audit?action=template.changed").await;
    assert_eq!(audit.expect(200)["data"].as_array().unwrap().len(), 2);
    let by_hand = tenant.client.get("/v1/audit?action=templates.sync").await;
    assert_eq!(by_hand.expect(200)["data"].as_array().unwrap().len(), 1);

    let page = listed(&tenant).await;
    let gone = page["data"].as_array().unwrap().iter();
    let gone: Vec<_> = gone.filter(|one| one["state"] == "gone").collect();
    assert_eq!(gone.len(), 1);
    assert!(gone[0]["gone_at"].is_string());
    let problem = refused(&tenant, &fitting("o1", json!({}))).await;
    assert_eq!(pointers(&problem), ["/template_id"]);
    let old = message_with(
        "o1",
        json!({"template_id": NEW, "data": {"thing1": {"value": "x"}}}),
    );
    let problem = refused(&tenant, &old).await;
    assert_eq!(pointers(&problem), ["/data/time2"]);
    assert_eq!(world.wechat().stats().total(SUBSCRIBE), 0);
}

async fn a_replay_gets_the_first_answer_after_templates_changed(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    lists(&world, &[order()]);
    tenant.app(APP).await;
    let message = fitting("o1", json!({}));
    let batch = json!({"messages": [fitting("o2", json!({})), {"touser": "o3"}]});
    let send_batch = async || {
        let path = path("/messages/batch");
        let request = tenant.client.request(Method::POST, &path).await;
        finish(request.header("Idempotency-Key", "many").json(&batch)).await
    };
    let first = tenant.send_keyed(APP, "one", &message).await.expect(202);
    let many = send_batch().await.expect(200);
    lists(&world, &[Template::one_time(NEW, &["thing1"])]);
    sync(&tenant).await;
    refused(&tenant, &message).await;
    let again = tenant.send_keyed(APP, "one", &message).await;
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(again.expect(202)["id"], first["id"]);
    let again = send_batch().await;
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    let again = again.expect(200);
    assert_eq!(
        again["data"][0]["message"]["id"],
        many["data"][0]["message"]["id"]
    );
    assert_eq!(again["data"][1], many["data"][1]);
    let fresh = tenant.send_keyed(APP, "two", &message).await;
    fresh.problem(422, "validation_failed");
}

async fn other_kinds_of_apps_have_template_lists(mode: Mode) {
    const OFFICIAL: &str = "wx00000000000000b2";
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    let old = Template::one_time("old", &["keyword1", "keyword2"]);
    let many: Vec<Template> = (0..24)
        .map(|number| Template::one_time(format!("old{number}"), &["keyword1"]))
        .collect();
    world.wechat().change_app(APP, |app| {
        app.wxopen_templates = [vec![old.clone()], many].concat();
    });
    world.wechat().change_app(OFFICIAL, |app| {
        app.kind = AccountKind::OfficialAccount;
        app.templates = vec![Template::one_time("t1", &["thing1", "time2"])];
    });
    tenant.app(APP).await;
    assert_eq!(listed(&tenant).await["data"].as_array().unwrap().len(), 25);
    let wrong = json!({"touser": "o1", "channel": "template", "template_id": "old", "form_id": "f1",
        "data": {"keyword3": {"value": "x"}}});
    assert_eq!(
        pointers(&refused(&tenant, &wrong).await),
        ["/data/keyword3"]
    );
    let fine = json!({"touser": "o1", "channel": "template", "template_id": "old", "form_id": "f1",
        "data": {"keyword2": {"value": "x"}}});
    assert_eq!(tenant.send_and_wait(APP, &fine).await["status"], "sent");

    let kind = json!({"kind": "official_account"});
    tenant.app_with(OFFICIAL, kind).await;
    let message = |data: Value| json!({"touser": "o1", "channel": "official", "template_id": "t1", "data": data});
    let partly = message(json!({"thing1": {"value": "x"}, "first": {"value": "shown no more"}}));
    assert_eq!(
        tenant.send_and_wait(OFFICIAL, &partly).await["status"],
        "sent"
    );
    let wrong = message(json!({"thing1": {"value": "x"}, "thing9": {"value": "x"}}));
    let path = format!("/v1/apps/{OFFICIAL}/messages");
    let answer = tenant.client.post(&path, &wrong).await;
    let problem = answer.problem(422, "validation_failed");
    assert_eq!(pointers(&problem), ["/data/thing9"]);
}

async fn templates_are_synced_periodically(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let tenant = world.tenant("a").await;
    lists(&world, &[order()]);
    tenant.app(APP).await;
    lists(&world, &[Template::one_time(NEW, &["thing1"])]);
    world.pass(Duration::from_hours(5));
    assert_eq!(listed(&tenant).await["data"].as_array().unwrap().len(), 1);
    world.pass(Duration::from_hours(2));
    let time = tenant.client.time();
    time.eventually("the new template is known", || async {
        let page = listed(&tenant).await;
        let all = page["data"].as_array().expect("data").clone();
        all.iter()
            .any(|one| one["template_id"] == NEW)
            .then_some(())
    })
    .await;
    assert_eq!(world.wechat().stats().total(GET_TEMPLATE), 2);
}

async fn a_sync_at_one_replica_counts_at_the_other() {
    let world = World::plan(Mode::Production).replicas(2).start().await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    assert_eq!(
        world.wechat().stats().total(GET_TEMPLATE),
        1,
        "by one of them"
    );
    let there = world.at(1, &tenant);
    let dry = message_with("o1", json!({"dry_run": true}));
    there
        .client
        .post(&path("/messages"), &dry)
        .await
        .expect(200);
    lists(&world, &[order()]);
    sync(&tenant).await;
    let time = tenant.client.time();
    time.eventually("the other replica knows", || async {
        let answer = there.client.post(&path("/messages"), &dry).await;
        (answer.status.as_u16() == 422).then_some(())
    })
    .await;
}
