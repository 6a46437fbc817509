//! Every text of every operation with U+0000, which PostgreSQL cannot store in a text: no answer may be a server error.
//!
//! The OpenAPI document says which values are texts, so that new fields and parameters are covered without an entry
//! here.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Value, json};

use super::{APP, operations, things_of};
use crate::world::{Client, Mode, World, finish};

/// The text for bodies, and the text for URLs.
const ZERO: &str = "a\0b";
const ENCODED: &str = "a%00b";
/// U+0000 after the text of a URL, so that the text is still a URL.
const URL: &str = "http://127.0.0.1:9/hook\0";

/// `1.`, `i.1.` and `t.` with U+0000 after each, as cursors.
const CURSORS: [&str; 3] = ["MS4A", "aS4xLgA", "dC4A"];

/// A call that has U+0000 in one place.
struct Try {
    method: Method,
    path: String,
    body: Option<Value>,
    place: String,
}

pub(super) async fn no_text_with_a_zero_character_causes_a_server_error(mode: Mode) {
    let world = World::start(mode).await;
    // The test sends one body with each parameter and field of a send, so WeChat gets copies.
    world.expect_copies();
    let tenant = world.tenant("zero").await;
    let things = things_of(&world, &tenant, APP).await;
    let token = drop_in_token(&tenant.client).await;
    let document = operations::document(&world).await;
    let (mut tried, mut refused) = (0, 0);
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let is_wechats = !operation["security"][0]["wechat"].is_null();
            let scope = operation["security"][0]["oauth2"][0].as_str();
            let client = match scope {
                Some("operator") => world.operator(),
                _ => tenant.client.clone(),
            };
            let method: Method = method.to_uppercase().parse().expect("a method");
            for one in tries(&document, &method, path, operation, &things) {
                let mut path = one.path;
                if is_wechats {
                    let mark = if path.contains('?') { '&' } else { '?' };
                    path = format!("{path}{mark}access_token={token}");
                }
                let mut request = match scope {
                    Some(_) => client.request(one.method, &path).await,
                    None => client.bare(one.method, &path),
                };
                if let Some(body) = &one.body {
                    request = request.json(body);
                }
                let answer = finish(request).await;
                let status = answer.status.as_u16();
                let place = format!("{method} {path}, {}", one.place);
                // The drop-in surface answers WeChat's SDKs with status 200 always.
                assert!(status < 500, "{place}: {answer:?}");
                if is_wechats {
                    assert_ne!(answer.body["errcode"], -1, "{place}: {answer:?}");
                }
                tried += 1;
                refused += usize::from(status >= 400);
            }
        }
    }
    assert!(tried > 100 && refused > 80, "{refused} of {tried} refused");
    tenant.client.get("/v1/apps").await.expect(200);
}

async fn drop_in_token(client: &Client) -> String {
    let secret = &client.key().client_secret;
    let path = format!("/cgi-bin/token?grant_type=client_credential&appid={APP}&secret={secret}");
    let answer = finish(client.bare(Method::GET, &path)).await.expect(200);
    answer["access_token"].as_str().expect("a token").to_owned()
}

/// The operation with U+0000 in each of its texts, one after the other.
fn tries(
    document: &Value,
    method: &Method,
    template: &str,
    operation: &Value,
    things: &BTreeMap<&str, String>,
) -> Vec<Try> {
    let name = format!("{method} {template}");
    let fill = |spared: &str| {
        let mut path = template.replace("{path}", "any/call");
        for (name, thing) in things {
            let thing = if *name == spared { ENCODED } else { thing };
            path = path.replace(&format!("{{{name}}}"), thing);
        }
        path
    };
    let plain = format!("{}{}", fill(""), operations::query(&name));
    let body = operations::body(&name);
    let mut found = Vec::new();
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let place = parameter["name"].as_str().expect("a name");
        let query = operations::query(&name);
        let with = |text: &str| {
            let besides = match query {
                query if query.is_empty() || query.contains(place) => "?".to_owned(),
                query => format!("{query}&"),
            };
            format!("{}{besides}{place}={text}", fill(""))
        };
        let paths = match (parameter["in"].as_str(), place) {
            (Some("path"), _) => vec![format!("{}{query}", fill(place))],
            (Some("query"), "cursor") => [&CURSORS[..], &[ENCODED]]
                .concat()
                .into_iter()
                .map(with)
                .collect(),
            (Some("query"), _) => vec![with(ENCODED)],
            _ => continue,
        };
        found.extend(paths.into_iter().map(|path| Try {
            method: method.clone(),
            path,
            body: body.clone(),
            place: place.to_owned(),
        }));
    }
    let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
    let mut places = Vec::new();
    texts(document, schema, "", 0, &mut places);
    places.sort_unstable();
    places.dedup();
    for place in places {
        let mut body = body.clone().unwrap_or_else(|| json!({}));
        let text = if place == "/url" { URL } else { ZERO };
        put(&mut body, &place, text);
        found.push(Try {
            method: method.clone(),
            path: plain.clone(),
            body: Some(body),
            place,
        });
    }
    found
}

/// Adds the places of all texts in what `schema` describes, as pointers: in lists the first item, in maps a key of any
/// name.
fn texts(document: &Value, schema: &Value, place: &str, depth: usize, found: &mut Vec<String>) {
    if depth > 8 {
        return;
    }
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(&reference[1..]).expect(reference);
        return texts(document, target, place, depth + 1, found);
    }
    for kind in ["oneOf", "anyOf", "allOf"] {
        for one in schema[kind].as_array().into_iter().flatten() {
            texts(document, one, place, depth + 1, found);
        }
    }
    let is = |kind: &str| match &schema["type"] {
        Value::Array(kinds) => kinds.iter().any(|one| one == kind),
        one => one == kind,
    };
    // A schema without a type permits any value, so also a text.
    let is_anything = schema
        .as_object()
        .is_some_and(|schema| !schema.contains_key("type"))
        && !["oneOf", "anyOf", "allOf"]
            .iter()
            .any(|kind| schema.get(kind).is_some());
    if !place.is_empty() && (is("string") || is_anything) {
        found.push(place.to_owned());
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        texts(
            document,
            property,
            &format!("{place}/{name}"),
            depth + 1,
            found,
        );
    }
    if schema["items"].is_object() {
        texts(
            document,
            &schema["items"],
            &format!("{place}/0"),
            depth + 1,
            found,
        );
    }
    if schema["additionalProperties"].is_object() {
        found.push(format!("{place}/{ZERO}"));
        let below = format!("{place}/thing1");
        texts(
            document,
            &schema["additionalProperties"],
            &below,
            depth + 1,
            found,
        );
    }
}

/// Puts `text` at `place`, and makes the objects and lists that are missing on the way.
fn put(body: &mut Value, place: &str, text: &str) {
    let mut here = body;
    for step in place[1..].split('/') {
        here = if step == "0" {
            if !here.is_array() {
                *here = json!([]);
            }
            let items = here.as_array_mut().expect("a list");
            if items.is_empty() {
                items.push(Value::Null);
            }
            &mut items[0]
        } else {
            if !here.is_object() {
                *here = json!({});
            }
            &mut here[step]
        };
    }
    *here = json!(text);
}
