//! Permission to write to users: the form-id pool and the subscription ledger.

mod reach;
mod subscription_ledger;

use std::{collections::BTreeMap, time::Duration};

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use simulator::{Effect, Fault, FormId, FormIdKind, FormIdPolicy, GrantRule};

use crate::world::{Mode, TEMPLATE, Tenant, World, finish, message, outcomes, until};

const APP: &str = "wx00000000000000a1";
const WXOPEN: &str = "/cgi-bin/message/wxopen/template/send";

both_modes!(
    sixty_four_sends_use_sixty_four_ids,
    with_one_id_less_one_send_fails,
    collected_ids_are_checked_listed_and_counted,
    collecting_under_a_key_counts_once,
    a_refused_form_id_does_not_fail_its_message,
    a_prepay_id_permits_three_sends,
    after_a_crash_wechat_says_whether_an_id_was_used,
    after_a_crash_an_uncertain_prepay_id_is_used_by_no_other_message,
);

fn path(rest: &str) -> String {
    format!("/v1/apps/{APP}/{rest}")
}

/// A template message without a form id. A unique marker in the page lets the simulator recognise copies.
fn template(openid: &str) -> Value {
    let Value::Object(mut message) = message(openid) else {
        unreachable!("an object")
    };
    message.insert("channel".into(), "template".into());
    message.insert("data".into(), json!({"keyword1": {"value": "339208499"}}));
    message.into()
}

fn form_id(openid: &str, value: &str) -> Value {
    json!({"kind": "form_id", "openid": openid, "value": value})
}

fn subscription(openid: &str, count: u32) -> Value {
    json!({"kind": "subscription", "openid": openid, "template_id": TEMPLATE, "count": count})
}

async fn collect(tenant: &Tenant, grants: &[Value]) -> Vec<Value> {
    let body = json!({ "grants": grants });
    let answer = tenant.client.post(&path("grants"), &body).await.expect(200);
    answer["data"].as_array().expect("data").clone()
}

async fn grants_of(tenant: &Tenant, openid: &str) -> Vec<Value> {
    let path = path(&format!("grants?openid={openid}"));
    let page = tenant.client.get(&path).await.expect(200);
    page["data"].as_array().expect("data").clone()
}

/// The remaining uses of a user's only grant.
async fn remaining(tenant: &Tenant, openid: &str) -> u64 {
    let grants = grants_of(tenant, openid).await;
    assert_eq!(grants.len(), 1, "{grants:?}");
    grants[0]["remaining"].as_u64().expect("a number")
}

/// WeChat accepts only the form ids and subscriptions that the test has added.
fn strict_wechat(world: &World) {
    world.wechat().change_app(APP, |app| {
        app.form_ids = FormIdPolicy::Known;
        app.grants = GrantRule::Counted;
    });
}

fn wechat_made(world: &World, openid: &str, id: &str, kind: FormIdKind) {
    let form_id = FormId {
        id: id.to_owned(),
        openid: openid.to_owned(),
        kind,
        made_at: None,
    };
    world.wechat().add_form_id(APP, form_id);
}

/// The form ids of the messages that WeChat took, in order.
fn used(world: &World) -> Vec<String> {
    let sent = world.wechat().sent(APP).into_iter();
    sent.map(|sent| sent.form_id.expect("a form id")).collect()
}

fn calls(world: &World, path: &str) -> u64 {
    let stats = world.wechat().stats();
    stats
        .calls
        .get(path)
        .map_or(0, |calls| calls.values().sum())
}

/// Collects `count` form ids of one user, of different ages. Returns the ids, oldest first.
async fn pool(world: &World, tenant: &Tenant, count: usize) -> Vec<String> {
    strict_wechat(world);
    let now = world.now();
    let mut grants = Vec::new();
    let mut by_age = BTreeMap::new();
    for number in 0..count {
        // The ages are distinct and in no order.
        let minutes = 1 + number * 37 % 101;
        let id = format!("{number:032x}");
        wechat_made(world, "o1", &id, FormIdKind::Form);
        let collected_at = now - Duration::from_secs(minutes as u64 * 60);
        let mut grant = form_id("o1", &id);
        grant["collected_at"] = json!(collected_at.to_rfc3339());
        grants.push(grant);
        by_age.insert(std::cmp::Reverse(minutes), id);
    }
    for result in collect(tenant, &grants).await {
        assert_eq!(result["status"], 201, "{result}");
    }
    by_age.into_values().collect()
}

async fn send_64(tenant: &Tenant) -> BTreeMap<String, usize> {
    let messages: Vec<Value> = (0..64).map(|_| template("o1")).collect();
    let sends = messages.iter().map(|one| tenant.send(APP, one));
    let accepted = join_all(sends).await;
    let mut ends = BTreeMap::new();
    for message in &accepted {
        let ended = tenant.wait_ended(message).await;
        let code = ended["failure"]["code"].as_str().unwrap_or_default();
        let end = format!("{} {code}", ended["status"].as_str().expect("a status"));
        *ends.entry(end).or_default() += 1;
    }
    ends
}

async fn sixty_four_sends_use_sixty_four_ids(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let oldest_first = pool(&world, &tenant, 64).await;
    let ends = send_64(&tenant).await;
    assert_eq!(ends, BTreeMap::from([("sent ".to_owned(), 64)]));
    assert_eq!(used(&world), oldest_first);
    assert_eq!(calls(&world, WXOPEN), 64);
    assert_eq!(grants_of(&tenant, "o1").await, Vec::<Value>::new());
}

async fn with_one_id_less_one_send_fails(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let oldest_first = pool(&world, &tenant, 63).await;
    let ends = send_64(&tenant).await;
    let expected = [("failed no_grant".to_owned(), 1), ("sent ".to_owned(), 63)];
    assert_eq!(ends, BTreeMap::from(expected));
    assert_eq!(used(&world), oldest_first);
    assert_eq!(calls(&world, WXOPEN), 63, "nothing was sent without an id");
}

async fn collected_ids_are_checked_listed_and_counted(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let fake = form_id("o1", "the formId is a mock one");
    let prepay =
        json!({"kind": "prepay_id", "openid": "o2", "value": "wx20170304215222954be2703f0862"});
    let grants = [
        form_id("o1", "f1"),
        fake,
        form_id("o1", "f1"),
        form_id("o3", "f1"),
        prepay,
        subscription("o1", 2),
        json!({"kind": "form_id", "openid": "o1", "value": "f2", "surprise": 1}),
    ];
    let results = collect(&tenant, &grants).await;
    let statuses: Vec<_> = results.iter().map(|one| one["status"].as_u64()).collect();
    let expected = [201, 422, 200, 409, 201, 201, 422].map(Some);
    assert_eq!(statuses, expected, "{results:?}");
    let error = &results[1]["error"];
    assert_eq!(error["code"], "validation_failed");
    assert_eq!(error["errors"][0]["pointer"], "/value");
    let detail = error["errors"][0]["detail"].as_str().unwrap();
    assert!(detail.contains("the formId is a mock one"), "{detail}");

    let listed = grants_of(&tenant, "o1").await;
    let kinds: Vec<_> = listed.iter().map(|grant| &grant["kind"]).collect();
    assert_eq!(kinds, [&json!("form_id"), &json!("subscription")]);
    assert_eq!(listed[0], results[0]["grant"]);
    assert_eq!(
        (&listed[0]["remaining"], &listed[0]["held"]),
        (&json!(1), &json!(false))
    );
    let first = path("grants?openid=o1&limit=1");
    let page = tenant.client.get(&first).await.expect(200);
    let next = page["next_cursor"].as_str().expect("another page");
    let second = tenant.client.get(&format!("{first}&cursor={next}")).await;
    let second = second.expect(200);
    assert_eq!(second["data"][0]["kind"], "subscription");
    assert_eq!(second["next_cursor"], Value::Null);

    let summary = tenant.client.get(&path("grants/summary")).await.expect(200);
    let pool = &summary["form_ids"];
    assert_eq!((&pool["users"], &pool["sends"]), (&json!(2), &json!(4)));
    assert_eq!(pool["next_expiry_at"], listed[0]["expires_at"]);
    let template = json!({"template_id": TEMPLATE, "users": 1, "sends": 2});
    assert_eq!(summary["subscriptions"], json!([template]));

    let too_many = json!({"grants": vec![form_id("o1", "f"); 1001]});
    let answer = tenant.client.post(&path("grants"), &too_many).await;
    answer.problem(422, "validation_failed");
    let nobodys = tenant.client.get(&path("grants")).await;
    nobodys.problem(400, "invalid_request");
    let bulk: Vec<Value> = (0..1000)
        .map(|number| form_id("o9", &format!("bulk-{number}")))
        .collect();
    let results = collect(&tenant, &bulk).await;
    assert!(results.iter().all(|result| result["status"] == 201));
}

async fn collecting_under_a_key_counts_once(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let collect = async |count: u32| {
        let body = json!({"grants": [subscription("o1", count)]});
        let request = tenant.client.request(Method::POST, &path("grants")).await;
        finish(request.header("Idempotency-Key", "k1").json(&body)).await
    };
    let first = collect(2).await;
    assert_eq!(first.header("idempotent-replayed"), None);
    let again = collect(2).await;
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(again.expect(200), first.expect(200));
    assert_eq!(remaining(&tenant, "o1").await, 2);
    collect(3).await.problem(422, "idempotency_key_reused");
}

async fn a_refused_form_id_does_not_fail_its_message(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    strict_wechat(&world);
    let age = |minutes: u64| (world.now() - Duration::from_secs(minutes * 60)).to_rfc3339();
    let mut grants = [
        form_id("o1", "f1"),
        form_id("o1", "f2"),
        form_id("o1", "f3"),
    ];
    for (grant, minutes) in grants.iter_mut().zip([30, 20, 10]) {
        grant["collected_at"] = json!(age(minutes));
    }
    collect(&tenant, &grants).await;
    // WeChat does not know the first id; another system has used the second.
    for id in ["f2", "f3"] {
        wechat_made(&world, "o1", id, FormIdKind::Form);
    }
    let mut outside = template("o1");
    outside["form_id"] = json!("f2");
    assert_eq!(tenant.send_and_wait(APP, &outside).await["status"], "sent");

    let sent = tenant.send_and_wait(APP, &template("o1")).await;
    assert_eq!(sent["status"], "sent", "{sent}");
    assert_eq!(outcomes(&sent), ["retry", "retry", "accepted"]);
    let codes: Vec<_> = (0..3).map(|n| &sent["attempts"][n]["errcode"]).collect();
    assert_eq!(codes, [&json!(41028), &json!(41029), &json!(0)]);
    assert_eq!(grants_of(&tenant, "o1").await, Vec::<Value>::new());
    assert_eq!(used(&world), ["f2", "f3"]);
}

async fn a_prepay_id_permits_three_sends(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    strict_wechat(&world);
    wechat_made(&world, "o1", "wx2017", FormIdKind::Prepay);
    let prepay = json!({"kind": "prepay_id", "openid": "o1", "value": "wx2017"});
    collect(&tenant, &[prepay]).await;
    for left in [2, 1] {
        let sent = tenant.send_and_wait(APP, &template("o1")).await;
        assert_eq!(sent["status"], "sent", "{sent}");
        assert_eq!(remaining(&tenant, "o1").await, left);
    }
    tenant.send_and_wait(APP, &template("o1")).await;
    let none = tenant.send_and_wait(APP, &template("o1")).await;
    assert_eq!(none["failure"]["code"], "no_grant");
    assert_eq!(none["attempts"], json!([]));
    assert_eq!(used(&world), ["wx2017"; 3]);
}

/// The gateway dies after WeChat has accepted the message and before WeChat answers.
async fn killed_in_a_send(world: &mut World, tenant: &Tenant) -> Value {
    world
        .wechat()
        .add_fault(Fault::next(1, Effect::Hang { acted: true }).for_path(WXOPEN));
    let lost = tenant.send(APP, &template("o1")).await;
    until("WeChat has the message", || {
        world.wechat().sent(APP).len() == 1
    })
    .await;
    let held = grants_of(tenant, "o1").await;
    assert_eq!(held[0]["held"], true, "{held:?}");
    world.kill_replica();
    lost
}

async fn after_a_crash_wechat_says_whether_an_id_was_used(mode: Mode) {
    let mut world = World::plan(mode).own_process().start().await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    strict_wechat(&world);
    wechat_made(&world, "o1", "f1", FormIdKind::Form);
    collect(&tenant, &[form_id("o1", "f1")]).await;
    let lost = killed_in_a_send(&mut world, &tenant).await;
    world.leap(Duration::from_mins(2));
    world.add_replica(false).await;

    let tenant = world.at(0, &tenant);
    let ended = tenant.wait_ended(&lost).await;
    assert_eq!(ended["status"], "sent", "{ended}");
    assert_eq!(outcomes(&ended), ["unknown", "accepted"]);
    assert_eq!(ended["attempts"][1]["errcode"], 41029);
    assert_eq!(used(&world), ["f1"], "it arrived once");
    let next = tenant.send_and_wait(APP, &template("o1")).await;
    assert_eq!(next["failure"]["code"], "no_grant", "{next}");
}

async fn after_a_crash_an_uncertain_prepay_id_is_used_by_no_other_message(mode: Mode) {
    let mut world = World::plan(mode).own_process().start().await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    strict_wechat(&world);
    wechat_made(&world, "o1", "wx2017", FormIdKind::Prepay);
    let prepay = json!({"kind": "prepay_id", "openid": "o1", "value": "wx2017"});
    collect(&tenant, &[prepay]).await;
    let lost = killed_in_a_send(&mut world, &tenant).await;
    world.leap(Duration::from_mins(2));
    world.add_replica(false).await;

    let tenant = world.at(0, &tenant);
    let ended = tenant.wait_ended(&lost).await;
    assert_eq!(
        (&ended["status"], &ended["failure"]["code"]),
        (&json!("uncertain"), &json!("unanswered"))
    );
    assert_eq!(
        remaining(&tenant, "o1").await,
        2,
        "the use in doubt is spent"
    );
    for _ in 0..2 {
        let sent = tenant.send_and_wait(APP, &template("o1")).await;
        assert_eq!(sent["status"], "sent", "{sent}");
    }
    let none = tenant.send_and_wait(APP, &template("o1")).await;
    assert_eq!(none["failure"]["code"], "no_grant");
    assert_eq!(used(&world), ["wx2017"; 3]);
}
