//! Messages read again: one, and page by page.

use reqwest::Url;
use serde_json::{Value, json};
use simulator::{Effect, Fault};

use crate::world::{Mode, TEMPLATE, Tenant, World, id, message, message_with};

const APP: &str = "wx00000000000000a1";

both_modes!(
    a_message_is_read_as_it_ended,
    a_wait_that_is_too_short_answers_202,
    a_list_is_read_page_by_page,
    a_list_is_filtered,
);

async fn a_message_is_read_as_it_ended(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let path = format!("/v1/apps/{APP}/messages");
    let accepted = tenant.client.post(&path, &message("o1")).await;
    let location = accepted.header("location").expect("a Location").to_owned();
    let accepted = accepted.expect(202);
    assert_eq!(location, format!("/v1/messages/{}", id(&accepted)));
    assert!(id(&accepted).starts_with("msg_"));

    let ended = tenant.wait_ended(&accepted).await;
    assert_eq!(tenant.client.get(&location).await.expect(200), ended);
    for field in [
        "id",
        "appid",
        "touser",
        "template_id",
        "data",
        "page",
        "created_at",
        "expires_at",
        "ttl",
    ] {
        assert_eq!(ended[field], accepted[field], "{field}");
    }
    for nonsense in [
        "msg_01jq2xv1cde8sbw7mv9v6a5kzq",
        "msg_x",
        "ten_01jq2xv1cde8sbw7mv9v6a5kzq",
        "1",
    ] {
        tenant
            .client
            .get(&format!("/v1/messages/{nonsense}"))
            .await
            .problem(404, "not_found");
    }
}

async fn a_wait_that_is_too_short_answers_202(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    world
        .wechat()
        .change_app(APP, |app| app.latency_ms = Some(2000));
    let path = format!("/v1/apps/{APP}/messages");
    let request = tenant.client.request(reqwest::Method::POST, &path).await;
    let answer =
        crate::world::finish(request.header("Prefer", "wait=1").json(&message("o1"))).await;
    assert_eq!(answer.header("preference-applied"), Some("wait=1"));
    let accepted = answer.expect(202);
    assert_eq!(accepted["status"], "sending");
    assert_eq!(tenant.wait_ended(&accepted).await["status"], "sent");
}

/// All items of a list, and the number of pages.
async fn read_all(tenant: &Tenant, path: &str) -> (Vec<Value>, usize) {
    let (mut items, mut pages, mut next) = (Vec::new(), 0, path.to_owned());
    loop {
        let page = tenant.client.get(&next).await.expect(200);
        items.extend(page["data"].as_array().expect("data").clone());
        pages += 1;
        let Some(cursor) = page["next_cursor"].as_str() else {
            return (items, pages);
        };
        let mut url = Url::parse(&format!("http://any{path}")).unwrap();
        url.query_pairs_mut().append_pair("cursor", cursor);
        next = format!("{}?{}", url.path(), url.query().unwrap_or_default());
    }
}

fn references(messages: &[Value]) -> Vec<i64> {
    let number = |message: &Value| message["reference"].as_str()?.parse().ok();
    messages
        .iter()
        .map(|message| number(message).expect("a number"))
        .collect()
}

async fn a_list_is_read_page_by_page(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    for number in 0..12 {
        let message = message_with(
            &format!("o{number}"),
            json!({"reference": number.to_string()}),
        );
        tenant.send(APP, &message).await;
    }
    let (messages, pages) = read_all(&tenant, &format!("/v1/apps/{APP}/messages?limit=5")).await;
    assert_eq!(pages, 3);
    assert_eq!(
        references(&messages),
        (0..12).rev().collect::<Vec<_>>(),
        "newest first, none twice"
    );

    let first = format!("/v1/apps/{APP}/messages?limit=4");
    let page = tenant.client.get(&first).await.expect(200);
    let cursor = page["next_cursor"].as_str().expect("a cursor").to_owned();
    tenant
        .send(APP, &message_with("new", json!({"reference": "12"})))
        .await;
    let next = tenant
        .client
        .get(&format!("{first}&cursor={cursor}"))
        .await
        .expect(200);
    let next = references(next["data"].as_array().expect("data"));
    assert_eq!(next, [7, 6, 5, 4], "what is new does not shift the pages");
}

async fn a_list_is_filtered(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let refuse = Effect::Errcode {
        errcode: 43101,
        errmsg: None,
    };
    world
        .wechat()
        .add_fault(Fault::always(refuse).for_user("o3"));
    for number in 0..6 {
        let fields = json!({"reference": number.to_string(), "template_id": format!("{TEMPLATE}{}", number % 2)});
        let message = message_with(&format!("o{}", number / 2 + 1), fields);
        tenant.send_and_wait(APP, &message).await;
        world.pass(std::time::Duration::from_mins(1));
    }
    let find = async |query: &str| {
        let (messages, _) = read_all(&tenant, &format!("/v1/apps/{APP}/messages?{query}")).await;
        references(&messages)
    };
    let minute = |number: i64| {
        let start = world.now() - chrono::Duration::minutes(6);
        (start + chrono::Duration::minutes(number))
            .format("%Y-%m-%dT%H:%M:%SZ")
            .to_string()
    };
    assert_eq!(find("status=failed").await, [5, 4]);
    assert_eq!(find("status=sent").await, [3, 2, 1, 0]);
    assert_eq!(find("status=uncertain").await, Vec::<i64>::new());
    assert_eq!(find("touser=o2").await, [3, 2]);
    assert_eq!(find(&format!("template_id={TEMPLATE}1")).await, [5, 3, 1]);
    assert_eq!(find("reference=4").await, [4]);
    assert_eq!(find(&format!("created_after={}", minute(4))).await, [5, 4]);
    assert_eq!(find(&format!("created_before={}", minute(2))).await, [1, 0]);
    let between = format!("created_after={}&created_before={}", minute(1), minute(4));
    assert_eq!(find(&between).await, [3, 2, 1]);
    assert_eq!(find("touser=o1&limit=1&status=sent").await, [1, 0]);
}
