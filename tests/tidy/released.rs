//! Clients of the last release continue to work.

use serde_json::{Value, json};

use crate::{breaks, workspace::root};

fn document(name: &str) -> Value {
    let path = root().join("openapi").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn the_document_breaks_no_client_of_the_last_release() {
    let found = breaks::between(&document("released.json"), &document("openapi.json"));
    assert!(
        found.is_empty(),
        "this breaks clients that were made for openapi/released.json. Keep what was there, or see \"Releases and \
         breaking changes\" in docs/CONTRIBUTING.md:\n{}",
        found.join("\n")
    );
}

/// A document of one operation.
fn sample() -> Value {
    json!({
        "paths": {"/v1/things": {"post": {
            "operationId": "make_thing",
            "security": [{"oauth2": ["things:write"]}],
            "parameters": [{"in": "query", "name": "dry", "schema": {"type": "boolean"}}],
            "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/NewThing"}}}},
            "responses": {
                "201": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Thing"}}}},
                "409": {"description": "There is one."},
            },
        }}},
        "components": {"schemas": {
            "NewThing": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": {"type": "string", "maxLength": 100},
                    "kind": {"type": "string", "enum": ["a", "b"]},
                    "parent": {"oneOf": [{"type": "null"}, {"$ref": "#/components/schemas/NewThing"}]},
                },
            },
            "Thing": {
                "type": "object",
                "required": ["id"],
                "properties": {"id": {"type": "string"}, "note": {"type": ["string", "null"]}},
            },
        }},
    })
}

/// The findings when the value at `place` becomes `value`; null removes the value.
#[track_caller]
fn after(place: &str, value: Value) -> Vec<String> {
    let mut changed = sample();
    let (parent, name) = place.rsplit_once('/').expect("a place");
    let parent = changed.pointer_mut(parent).expect("its parent");
    let name = name.replace("~1", "/");
    match (parent.as_object_mut().expect("an object"), value) {
        (parent, Value::Null) => drop(parent.remove(&name)),
        (parent, value) => drop(parent.insert(name, value)),
    }
    breaks::between(&sample(), &changed)
}

const OPERATION: &str = "/paths/~1v1~1things/post";
const NEW: &str = "/components/schemas/NewThing";
const THING: &str = "/components/schemas/Thing";

#[test]
fn what_breaks_clients_is_found() {
    let breaks = [
        (OPERATION.to_owned(), Value::Null),
        (format!("{OPERATION}/operationId"), json!("create_thing")),
        (
            format!("{OPERATION}/security"),
            json!([{"oauth2": ["other"]}]),
        ),
        (format!("{OPERATION}/parameters"), json!([])),
        (
            format!("{OPERATION}/parameters"),
            json!([{"in": "query", "name": "dry", "required": true, "schema": {"type": "boolean"}}]),
        ),
        (format!("{OPERATION}/responses/201"), Value::Null),
        (format!("{NEW}/required"), json!(["name", "kind"])),
        (format!("{NEW}/properties/kind"), Value::Null),
        (format!("{NEW}/properties/kind/enum"), json!(["a"])),
        (format!("{NEW}/properties/name/type"), json!("integer")),
        (format!("{NEW}/properties/name/maxLength"), json!(50)),
        (format!("{NEW}/properties/name/minLength"), json!(1)),
        (
            format!("{NEW}/properties/parent/oneOf"),
            json!([{"type": "null"}]),
        ),
        (format!("{THING}/required"), json!([])),
        (format!("{THING}/properties/note"), Value::Null),
        (
            format!("{THING}/properties/id/type"),
            json!(["string", "null"]),
        ),
    ];
    for (place, value) in breaks {
        let found = after(&place, value.clone());
        assert_eq!(found.len(), 1, "{place} = {value}: {found:?}");
    }
}

#[test]
fn what_breaks_nobody_is_let_through() {
    let growth = [
        (format!("{OPERATION}/summary"), json!("Make a thing")),
        (
            format!("{OPERATION}/responses/429"),
            json!({"description": "Too often."}),
        ),
        (
            format!("{NEW}/properties/kind/enum"),
            json!(["a", "b", "c"]),
        ),
        (
            format!("{NEW}/properties/colour"),
            json!({"type": "string"}),
        ),
        (format!("{NEW}/properties/name/maxLength"), json!(200)),
        (format!("{NEW}/required"), json!([])),
        (format!("{THING}/properties/note/type"), json!("string")),
        (
            format!("{THING}/properties/colour"),
            json!({"type": "string"}),
        ),
    ];
    for (place, value) in growth {
        assert_eq!(after(&place, value.clone()), [""; 0], "{place} = {value}");
    }
}
