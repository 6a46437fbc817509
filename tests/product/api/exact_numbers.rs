//! Numbers of tenants keep their digits in every form in which a message comes in and goes out.

use reqwest::{Method, header::CONTENT_TYPE};
use serde_json::{Value, json};

use crate::{
    drop_in::wechat_token,
    webhooks::{Receiver, hook},
    world::{Answer, Mode, TEMPLATE, Tenant, World, finish, id, run},
};

const APP: &str = "wx00000000000000a1";
/// Numbers that a float of 64 bits does not represent exactly.
const NUMBERS: [&str; 4] = ["98765432109876543210", "656887888.00", "1.00", "-0.10"];

both_modes!(
    numbers_keep_their_digits_wherever_they_come_in_and_go_out,
    numbers_of_imported_lines_keep_their_digits,
    a_number_whose_text_is_not_certain_is_refused_with_its_pointer,
);

/// A message as text, so that no JSON library changes the numbers.
fn text(openid: &str) -> String {
    let [whole, long, price, minus] = NUMBERS;
    format!(
        r#"{{"touser": "{openid}", "template_id": "{TEMPLATE}", "data": {{"number1": {{"value": {whole}}},
            "number2": {{"value": {long}}}, "amount3": {{"value": {price}}}, "thing4": {{"value": {minus}}}}},
            "metadata": {{"whole": {whole}, "deep": [{{"long": {long}, "price": {price}}}, {minus}]}}}}"#
    )
}

async fn post(tenant: &Tenant, path: &str, key: Option<&str>, body: String) -> Answer {
    let mut request = tenant.client.request(Method::POST, path).await;
    if let Some(key) = key {
        request = request.header("Idempotency-Key", key);
    }
    let request = request.header(CONTENT_TYPE, "application/json").body(body);
    finish(request).await
}

/// Asserts that a message, as the API shows it, has the digits of each number unchanged in data and metadata.
#[track_caller]
fn keeps(shown: &str) {
    for number in NUMBERS {
        let times = shown.matches(&format!(":{number}")).count();
        let listed = shown.matches(&format!(",{number}]")).count();
        assert_eq!(times + listed, 2, "{number} in {shown}");
    }
}

/// Asserts that WeChat got each number as a text of the same digits.
#[track_caller]
fn sends_texts(world: &World, openid: &str) {
    let sent = world.wechat().sent(APP);
    let sent = sent.iter().find(|sent| sent.touser == openid);
    let body = sent.and_then(|sent| sent.body.clone()).expect("a body");
    let body: Value = serde_json::from_str(&body).expect("JSON");
    for (key, number) in ["number1", "number2", "amount3", "thing4"]
        .into_iter()
        .zip(NUMBERS)
    {
        assert_eq!(body["data"][key]["value"], number, "{key} to {openid}");
    }
}

async fn numbers_keep_their_digits_wherever_they_come_in_and_go_out(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let receiver = Receiver::start().await;
    hook(&tenant, &receiver).await;
    let messages = format!("/v1/apps/{APP}/messages");

    let accepted = post(&tenant, &messages, Some("one"), text("o1")).await;
    keeps(&accepted.text);
    let replayed = post(&tenant, &messages, Some("one"), text("o1")).await;
    assert_eq!(replayed.text, accepted.text);
    let accepted = accepted.expect(202);
    tenant.wait_for(&accepted, "sent").await;
    let read = tenant
        .client
        .get(&format!("/v1/messages/{}", id(&accepted)))
        .await;
    keeps(&read.text);
    receiver.wait(&world, 1).await;
    keeps(&receiver.heard()[0].json["data"].to_string());
    sends_texts(&world, "o1");

    let batch = format!("{{\"messages\": [{}]}}", text("o2"));
    let path = format!("{messages}/batch");
    let first = post(&tenant, &path, Some("batch"), batch.clone()).await;
    keeps(&first.text);
    assert_eq!(
        post(&tenant, &path, Some("batch"), batch).await.text,
        first.text
    );
    tenant.wait_count(APP, "sent", 2).await;
    sends_texts(&world, "o2");

    let token = wechat_token(&tenant.client, APP).await;
    let path = format!("/cgi-bin/message/subscribe/send?access_token={token}");
    let request = tenant.client.bare(Method::POST, &path).body(text("o3"));
    let answer = tenant
        .client
        .time()
        .during(finish(request))
        .await
        .expect(200);
    assert_eq!(answer["errcode"], 0, "{answer}");
    sends_texts(&world, "o3");
}

async fn numbers_of_imported_lines_keep_their_digits(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let arguments = [
        "import",
        "m.ndjson",
        "--appid",
        APP,
        "--template",
        TEMPLATE,
        "--json",
    ];
    let command = world.wxgate(&arguments);
    let folder = command.get_current_dir().expect("a folder");
    let line = text("o1").replace('\n', " ");
    std::fs::write(folder.join("m.ndjson"), line + "\n").expect("a file");
    run(command).expect(0);
    sends_texts(&world, "o1");
    let shown = tenant.client.get(&format!("/v1/apps/{APP}/messages")).await;
    keeps(&shown.text);
}

async fn a_number_whose_text_is_not_certain_is_refused_with_its_pointer(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let messages = format!("/v1/apps/{APP}/messages");
    for number in ["1e400", "1E5", "2.5e-7"] {
        let body = text("o1").replacen(NUMBERS[3], number, 1);
        let answer = post(&tenant, &messages, None, body).await;
        let problem = answer.problem(422, "validation_failed");
        assert_eq!(
            problem["errors"][0]["pointer"], "/data/thing4/value",
            "{problem}"
        );
    }
    // The rules of a type are the same for a number and for its text.
    let eleven = json!({"amount1": {"value": "12345678901"}});
    let same = text("o1").replacen(NUMBERS[2], "12345678901", 1);
    let by_number = post(&tenant, &messages, None, same).await;
    let by_number = by_number.problem(422, "validation_failed");
    let body = json!({"touser": "o1", "template_id": TEMPLATE, "data": eleven});
    let by_text = tenant
        .client
        .post(&messages, &body)
        .await
        .problem(422, "validation_failed");
    assert_eq!(by_number["errors"][0]["pointer"], "/data/amount3/value");
    assert_eq!(
        by_number["errors"][0]["detail"],
        by_text["errors"][0]["detail"]
    );
    let ttl = text("o1").replacen(
        "\"metadata\"",
        "\"ttl\": 98765432109876543210, \"metadata\"",
        1,
    );
    let problem = post(&tenant, &messages, None, ttl)
        .await
        .problem(422, "validation_failed");
    assert_eq!(problem["errors"][0]["pointer"], "/ttl");
}
