//! The document as OpenAPI 3.0, for generators that cannot read 3.1.
//!
//! OpenAPI 3.1 takes its schemas from JSON Schema 2020-12; 3.0 has a dialect of its own, without the type `null`, lists
//! of types, `const`, and members beside `$ref`. The conversion loses nothing of this document.

use serde_json::{Map, Value, json};

/// Converts a document of OpenAPI 3.1 to 3.0.
pub(super) fn convert(document: &mut Value) {
    document["openapi"] = json!("3.0.3");
    if let Some(document) = document.as_object_mut() {
        document.remove("webhooks");
    }
    // The licence by its SPDX identifier is new in 3.1.
    if let Some(license) = document
        .pointer_mut("/info/license")
        .and_then(Value::as_object_mut)
    {
        license.remove("identifier");
    }
    walk(document);
    let schemas = document["components"]["schemas"].clone();
    complete(document, &schemas);
}

/// Gives a nullable reference the type of the referenced schema: without a type, `nullable` has no effect. A scalar
/// schema without an enumeration is inlined: OpenAPI Generator for C# turns a reference to such a schema into a type
/// that cannot be null.
fn complete(value: &mut Value, schemas: &Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| complete(item, schemas)),
        Value::Object(object) => {
            object
                .values_mut()
                .for_each(|member| complete(member, schemas));
            let reference = object.get("allOf").and_then(|all| all[0]["$ref"].as_str());
            let name = reference.and_then(|place| place.rsplit('/').next());
            if object.get("nullable").is_some_and(|flag| flag == true)
                && let Some(name) = name
            {
                let named = &schemas[name];
                let is_plain = named["enum"].is_null() && named["properties"].is_null();
                if let Some(members) = named.as_object().filter(|_| is_plain) {
                    object.remove("allOf");
                    for (member, value) in members {
                        object.entry(member).or_insert_with(|| value.clone());
                    }
                } else {
                    object.entry("type").or_insert(named["type"].clone());
                }
            }
        }
        _ => {}
    }
}

/// Visits everything that may hold a schema. Examples hold values, which stay unchanged.
fn walk(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(walk),
        Value::Object(object) => {
            for (name, member) in object.iter_mut() {
                match name.as_str() {
                    "schema" => schema(member),
                    "schemas" => each(member, schema),
                    "example" | "examples" => {}
                    _ => walk(member),
                }
            }
        }
        _ => {}
    }
}

fn each(value: &mut Value, change: fn(&mut Value)) {
    let members = value.as_object_mut().map(Map::values_mut);
    members.into_iter().flatten().for_each(change);
}

/// Converts one schema and all schemas in it.
fn schema(value: &mut Value) {
    let Some(object) = value.as_object_mut() else {
        return;
    };
    if let Some(properties) = object.get_mut("properties") {
        each(properties, schema);
    }
    for name in ["items", "additionalProperties", "not"] {
        if let Some(inner) = object.get_mut(name) {
            schema(inner);
        }
    }
    for name in ["oneOf", "anyOf", "allOf"] {
        if let Some(Value::Array(all)) = object.get_mut(name) {
            all.iter_mut().for_each(schema);
        }
    }
    types(object);
    alternatives(object);
    words(object);
    bounds(object);
    object.remove("propertyNames");
    // The `channel` of each message schema is required and has one value, so the alternatives stay distinct. OpenAPI
    // Generator for Rust serializes the discriminator property twice, and the gateway refuses duplicate fields.
    object.remove("discriminator");
    if object.len() > 1
        && let Some(reference) = object.remove("$ref")
    {
        object.insert("allOf".to_owned(), json!([{ "$ref": reference }]));
    }
}

/// `["string", "null"]` becomes a string that is `nullable`; several types become alternatives.
fn types(object: &mut Map<String, Value>) {
    let Some(Value::Array(mut types)) = object.get("type").cloned() else {
        return;
    };
    let all = types.len();
    types.retain(|name| name != "null");
    if types.len() < all {
        object.insert("nullable".to_owned(), json!(true));
    }
    if let [only] = types.as_slice() {
        object.insert("type".to_owned(), only.clone());
    } else {
        object.remove("type");
        let forms: Vec<Value> = types.iter().map(form).collect();
        object.insert("oneOf".to_owned(), forms.into());
    }
}

/// One of several types. Generators treat a number without a format as a 32-bit number.
fn form(name: &Value) -> Value {
    match name.as_str() {
        Some("number") => json!({ "type": "number", "format": "double" }),
        _ => json!({ "type": name }),
    }
}

/// An alternative of type `null` becomes `nullable`.
fn alternatives(object: &mut Map<String, Value>) {
    for name in ["oneOf", "anyOf"] {
        let Some(Value::Array(mut forms)) = object.remove(name) else {
            continue;
        };
        let all = forms.len();
        forms.retain(|form| form["type"] != "null");
        if forms.len() < all {
            object.insert("nullable".to_owned(), json!(true));
        }
        // A single alternative needs no list. A bare reference may have no members beside it.
        match (forms.pop(), forms.is_empty()) {
            (Some(Value::Object(only)), true) if only.contains_key("$ref") => {
                object.insert("allOf".to_owned(), json!([only]));
            }
            (Some(Value::Object(only)), true) => {
                for (member, value) in only {
                    object.entry(member).or_insert(value);
                }
            }
            (last, _) => {
                forms.extend(last);
                object.insert(name.to_owned(), forms.into());
            }
        }
    }
}

/// `const` becomes an `enum` of one value, and the first of several `examples` becomes `example`.
fn words(object: &mut Map<String, Value>) {
    if let Some(only) = object.remove("const") {
        object.insert("enum".to_owned(), json!([only]));
    }
    if let Some(Value::Array(examples)) = object.remove("examples")
        && let Some(first) = examples.into_iter().next()
    {
        object.entry("example").or_insert(first);
    }
}

/// Exclusive bounds become flags beside the bound.
fn bounds(object: &mut Map<String, Value>) {
    for (exclusive, bound) in [
        ("exclusiveMinimum", "minimum"),
        ("exclusiveMaximum", "maximum"),
    ] {
        if let Some(value) = object.get(exclusive).cloned()
            && value.is_number()
        {
            object.insert(bound.to_owned(), value);
            object.insert(exclusive.to_owned(), json!(true));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(mut given: Value, expected: &Value) {
        schema(&mut given);
        assert_eq!(&given, expected);
    }

    #[test]
    fn null_becomes_nullable() {
        check(
            json!({"type": ["string", "null"], "description": "x"}),
            &json!({"type": "string", "nullable": true, "description": "x"}),
        );
        check(
            json!({"oneOf": [{"type": "null"}, {"$ref": "#/a"}], "description": "x"}),
            &json!({"allOf": [{"$ref": "#/a"}], "nullable": true, "description": "x"}),
        );
        check(
            json!({"oneOf": [{"type": "null"}, {"$ref": "#/a", "description": "x"}]}),
            &json!({"allOf": [{"$ref": "#/a"}], "nullable": true, "description": "x"}),
        );
        check(
            json!({"type": ["string", "number"]}),
            &json!({"oneOf": [{"type": "string"}, {"type": "number", "format": "double"}]}),
        );
    }

    #[test]
    fn the_rest_of_the_dialect_is_translated() {
        check(
            json!({"$ref": "#/a", "description": "x"}),
            &json!({"allOf": [{"$ref": "#/a"}], "description": "x"}),
        );
        check(json!({"$ref": "#/a"}), &json!({"$ref": "#/a"}));
        check(
            json!({"const": "a", "examples": ["a", "b"], "exclusiveMinimum": 3}),
            &json!({"enum": ["a"], "example": "a", "minimum": 3, "exclusiveMinimum": true}),
        );
        check(
            json!({"type": "object", "properties": {"type": {"type": ["integer", "null"]}}, "additionalProperties": {"const": 1}}),
            &json!({"type": "object", "properties": {"type": {"type": "integer", "nullable": true}}, "additionalProperties": {"enum": [1]}}),
        );
    }

    #[test]
    fn nothing_of_3_1_is_left() {
        let text = crate::Part::Api.json_3_0();
        let document: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(document["openapi"], "3.0.3");
        for word in [
            "\"null\"",
            "\"const\"",
            "\"identifier\"",
            "\"propertyNames\"",
        ] {
            assert!(!text.contains(word), "{word} is left");
        }
    }
}
