//! An example of every JSON and form body, built from the schemas of the fields: the field's own example, else its
//! first enumeration value, null for a nullable field, and no optional fields.

use serde_json::{Map, Value, json};
use utoipa::openapi::{Content, OpenApi, RefOr, example::ExampleBuilder, path::Operation};

use super::links;

/// Optional fields that are the subject of their object, and therefore part of the example.
const SHOWN: [&str; 2] = ["grant", "message"];

/// Adds an example to each body of an operation that has none yet.
pub(super) fn describe(document: &mut OpenApi) {
    let components = serde_json::to_value(&document.components).unwrap_or_default();
    let schemas = Schemas(&components["schemas"]);
    for item in document.paths.paths.values_mut() {
        for operation in links::operations(item) {
            for content in bodies(operation) {
                illustrate(content, &schemas);
            }
        }
    }
}

/// The JSON and form bodies of an operation, requests and responses.
fn bodies(operation: &mut Operation) -> impl Iterator<Item = &mut Content> {
    let asked = match &mut operation.request_body {
        Some(RefOr::T(body)) => Some(&mut body.content),
        _ => None,
    };
    let asked = asked.into_iter().flatten();
    let responses = operation.responses.responses.values_mut();
    let answered = responses.flat_map(|response| match response {
        RefOr::T(response) => response.content.iter_mut().collect(),
        RefOr::Ref(_) => Vec::new(),
    });
    asked
        .chain(answered)
        .filter_map(|(media, content)| match content {
            RefOr::T(content) if media == "application/json" || media.ends_with("-urlencoded") => {
                Some(content)
            }
            _ => None,
        })
}

fn illustrate(content: &mut Content, schemas: &Schemas<'_>) {
    if content.example.is_some() || !content.examples.is_empty() {
        return;
    }
    let schema = serde_json::to_value(&content.schema).unwrap_or_default();
    let forms = schemas.forms(&schema);
    if forms.is_empty() {
        content.example = schemas.example(&schema);
    }
    // Documentation tools show the first example by name.
    content.examples = (1..)
        .zip(forms)
        .map(|(place, (name, form))| {
            let example = ExampleBuilder::new().value(schemas.example(&form));
            let example = example.summary(&name).build();
            (format!("{place}-{name}"), example.into())
        })
        .collect();
}

/// The schemas by name.
struct Schemas<'a>(&'a Value);

impl<'a> Schemas<'a> {
    fn named(&self, reference: &Value) -> Option<&'a Value> {
        let name = reference.as_str()?.rsplit('/').next()?;
        self.0.get(name)
    }

    /// The alternatives of a schema with a discriminator, each with its discriminator value, in the schema's order.
    fn forms(&self, schema: &Value) -> Vec<(String, Value)> {
        let schema = self.named(&schema["$ref"]).unwrap_or(schema);
        let mapping = schema["discriminator"]["mapping"].as_object();
        let words = mapping.into_iter().flatten();
        let mut forms: Vec<_> = words
            .map(|(word, place)| (word.clone(), json!({ "$ref": place })))
            .collect();
        let order = schema["oneOf"].as_array().map_or(&[][..], Vec::as_slice);
        forms.sort_by_key(|(_, form)| order.iter().position(|one| one == form));
        forms
    }

    /// A value of the schema; `None` if the schema does not determine an example.
    fn example(&self, schema: &Value) -> Option<Value> {
        let own = [
            &schema["example"],
            &schema["examples"][0],
            &schema["enum"][0],
        ];
        if let Some(own) = own.into_iter().find(|own| !own.is_null()) {
            return Some(own.clone());
        }
        if let Some(named) = self.named(&schema["$ref"]) {
            return self.example(named);
        }
        if let Some(forms) = schema["oneOf"].as_array() {
            let nothing = forms.iter().any(|form| form["type"] == "null");
            return if nothing {
                Some(Value::Null)
            } else {
                self.example(forms.first()?)
            };
        }
        match &schema["type"] {
            Value::Array(_) => Some(Value::Null),
            kind if kind == "object" => self.object(schema),
            kind if kind == "array" => self.example(&schema["items"]).map(|item| json!([item])),
            kind if kind == "boolean" => Some(json!(false)),
            kind if kind == "integer" => Some(json!(0)),
            _ => None,
        }
    }

    fn object(&self, schema: &Value) -> Option<Value> {
        let required = |name: &str| {
            let mut names = schema["required"].as_array().into_iter().flatten();
            names.any(|one| one == name)
        };
        let mut object = Map::new();
        for (name, property) in schema["properties"].as_object()? {
            if required(name) {
                object.insert(name.clone(), self.example(property)?);
            } else if !property["example"].is_null() {
                object.insert(name.clone(), property["example"].clone());
            } else if SHOWN.contains(&name.as_str()) {
                let shown = property["oneOf"].as_array().into_iter().flatten();
                let mut shown = shown.filter(|form| form["type"] != "null");
                object.insert(
                    name.clone(),
                    self.example(shown.next().unwrap_or(property))?,
                );
            }
        }
        Some(object.into())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    #[test]
    fn every_body_has_an_example() {
        let document = serde_json::to_value(crate::openapi()).unwrap();
        let items = document["paths"].as_object().unwrap().values();
        for operation in items.flat_map(|item| item.as_object().unwrap().values()) {
            let responses = operation["responses"].as_object().unwrap().values();
            let bodies = responses.chain([&operation["requestBody"]]);
            let contents = bodies.filter_map(|body| body["content"].as_object());
            for (media, content) in contents.flatten() {
                let has = !content["example"].is_null() || content["examples"].is_object();
                let is_text =
                    media.starts_with("text/") || media.contains("openmetrics") || media == "*/*";
                assert!(has || is_text, "{} {media}", operation["operationId"]);
            }
        }
    }

    #[test]
    fn an_example_has_what_an_answer_always_has() {
        let document = serde_json::to_value(crate::openapi()).unwrap();
        let sent = &document["paths"]["/v1/apps/{appid}/messages"]["post"];
        let asked = &sent["requestBody"]["content"]["application/json"]["examples"];
        assert_eq!(asked["1-subscribe"]["value"]["channel"], "subscribe");
        let message = &sent["responses"]["202"]["content"]["application/json"]["example"];
        assert_eq!(message["data"]["thing1"]["value"], "保温杯");
        assert_eq!(
            (&message["failure"], &message["url"]),
            (&Value::Null, &Value::Null)
        );
        assert!(
            message.as_object().unwrap().get("url").is_none(),
            "{message}"
        );
        let batch = &document["paths"]["/v1/apps/{appid}/messages/batch"]["post"];
        let item = &batch["responses"]["200"]["content"]["application/json"]["example"]["data"][0];
        assert_eq!((&item["message"], item.get("error")), (message, None));
    }
}
