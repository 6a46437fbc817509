//! Conditional changes with `If-Match`, conditional reads, and links to the next page of a list.

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{Answer, Client, Mode, World, finish};

const APP: &str = "wx00000000000000a1";

both_modes!(
    a_lost_update_is_refused,
    one_of_several_concurrent_changes_succeeds,
    an_unchanged_resource_is_not_sent_again,
    the_etag_of_a_change_is_the_etag_of_the_next_read,
    an_invalid_condition_changes_nothing,
    a_list_links_to_its_next_page,
);

async fn with(client: &Client, method: Method, path: &str, header: (&str, &str)) -> Answer {
    finish(
        client
            .request(method, path)
            .await
            .header(header.0, header.1),
    )
    .await
}

async fn change(client: &Client, path: &str, tag: &str, body: &Value) -> Answer {
    let request = client.request(Method::PATCH, path).await;
    finish(request.header("If-Match", tag).json(body)).await
}

fn tag(answer: &Answer) -> String {
    let tag = answer.header("etag").expect("an ETag");
    assert!(tag.starts_with('"'), "a strong one: {tag}");
    tag.to_owned()
}

/// The resources that can change, each with a client that may make the change, the path, and two changes.
async fn things(world: &World) -> Vec<(Client, String, [Value; 2])> {
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let names = || [json!({"name": "one"}), json!({"name": "two"})];
    vec![
        (tenant.client.clone(), format!("/v1/apps/{APP}"), names()),
        (
            world.operator(),
            format!("/v1/tenants/{}", tenant.id),
            names(),
        ),
    ]
}

async fn a_lost_update_is_refused(mode: Mode) {
    let world = World::start(mode).await;
    for (client, path, [one, two]) in things(&world).await {
        let read = tag(&client.get(&path).await);
        let changed = change(&client, &path, &read, &one).await;
        let next = tag(&changed);
        changed.expect(200);
        // This change starts from the state before the first change.
        let late = change(&client, &path, &read, &two).await;
        late.problem(412, "conflict");
        assert_eq!(client.get(&path).await.expect(200)["name"], "one");
        change(&client, &path, "\"nonsense\"", &two)
            .await
            .problem(412, "conflict");
        let both = format!("{read}, {next}");
        change(&client, &path, &both, &two)
            .await
            .problem(400, "invalid_request");
        // The `ETag` of a change's answer is valid for the next change, also as a weak tag from a proxy.
        let weak = format!("W/{next}");
        change(&client, &path, &weak, &two).await.expect(200);
        change(&client, &path, "*", &one).await.expect(200);
        client.patch(&path, &two).await.expect(200);
    }
}

async fn one_of_several_concurrent_changes_succeeds(mode: Mode) {
    let world = World::start(mode).await;
    for (client, path, _) in things(&world).await {
        let read = tag(&client.get(&path).await);
        let names: Vec<Value> = (0..10).map(|n| json!({"name": format!("n{n}")})).collect();
        let changes = names.iter().map(|name| change(&client, &path, &read, name));
        let answers = join_all(changes).await;
        let done = answers.iter().filter(|answer| answer.status == 200).count();
        let refused = answers.iter().filter(|answer| answer.status == 412).count();
        assert_eq!((done, refused), (1, 9), "{answers:?}");
    }
}

async fn an_unchanged_resource_is_not_sent_again(mode: Mode) {
    let world = World::start(mode).await;
    for (client, path, [one, _]) in things(&world).await {
        let read = tag(&client.get(&path).await);
        let known = with(&client, Method::GET, &path, ("If-None-Match", &read)).await;
        assert_eq!((known.status.as_u16(), known.text.as_str()), (304, ""));
        assert_eq!(tag(&known), read);
        client.patch(&path, &one).await.expect(200);
        let news = with(&client, Method::GET, &path, ("If-None-Match", &read)).await;
        assert_ne!(tag(&news), read);
        assert_eq!(news.expect(200)["name"], "one");
    }
}

async fn a_list_links_to_its_next_page(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    for n in 0..4 {
        let key = json!({"name": format!("k{n}"), "scopes": ["messages:send"]});
        tenant.client.post("/v1/keys", &key).await.expect(201);
    }
    let mut path = "/v1/keys?limit=2".to_owned();
    let mut names = Vec::new();
    loop {
        let page = tenant.client.get(&path).await;
        let link = page.header("link").map(str::to_owned);
        let body = page.expect(200);
        let keys = body["data"].as_array().expect("data");
        names.extend(keys.iter().map(|key| key["name"].to_string()));
        assert_eq!(link.is_some(), body["next_cursor"].is_string());
        let Some(link) = link else { break };
        let next = link.strip_prefix('<').and_then(|link| link.split_once('>'));
        let (next, relation) = next.expect("a link");
        assert_eq!(relation, "; rel=\"next\"");
        next.clone_into(&mut path);
    }
    // The tenant's first key is the key of this client, so there are five keys.
    assert_eq!(names.len(), 5, "{names:?}");
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 5, "{names:?}");
}

async fn the_etag_of_a_change_is_the_etag_of_the_next_read(mode: Mode) {
    let world = World::start(mode).await;
    for (client, path, [one, _]) in things(&world).await {
        let changed = client.patch(&path, &one).await;
        let tag = tag(&changed);
        let again = with(&client, Method::GET, &path, ("If-None-Match", &tag)).await;
        assert_eq!(again.status, 304, "{path}: {again:?}");
        let read = client.get(&path).await;
        assert_eq!(changed.expect(200), read.expect(200), "{path}");
    }
}

async fn an_invalid_condition_changes_nothing(mode: Mode) {
    let world = World::start(mode).await;
    for (client, path, [one, _]) in things(&world).await {
        let before = client.get(&path).await.expect(200);
        for (condition, status, code) in [
            (&b"\"1-1\xe9\""[..], 412, "conflict"),
            (b"", 412, "conflict"),
            (b"1-1", 400, "invalid_request"),
        ] {
            let request = client.request(Method::PATCH, &path).await;
            let request = request.header("If-Match", condition).json(&one);
            finish(request).await.problem(status, code);
        }
        assert_eq!(client.get(&path).await.expect(200), before, "{path}");
    }
}
