//! Objects that serde flattens into others are flattened in the document too: all generators support one object with
//! all fields best.

use std::collections::BTreeMap;

use utoipa::openapi::{
    Components, OpenApi, Ref, RefOr,
    schema::{Object, Schema},
};

use super::links;

/// The prefix of references to schemas.
const HOME: &str = "#/components/schemas/";

/// Makes one object of every schema that is composed of several.
pub(super) fn flatten(components: &mut Components) {
    let before = components.schemas.clone();
    for schema in components.schemas.values_mut() {
        if matches!(schema, RefOr::T(Schema::AllOf(_)))
            && let Some(object) = object(&before, schema)
        {
            *schema = RefOr::T(Schema::Object(object));
        }
    }
}

/// Renames the pages of lists from their generated names, and refers to the item's common schema: `Page_App` becomes
/// `AppPage`, and the items become `App`.
pub(super) fn name_pages(document: &mut OpenApi) {
    let Some(components) = &mut document.components else {
        return;
    };
    let generic: Vec<String> = components.schemas.keys().cloned().collect();
    for name in generic {
        let Some(item) = name.strip_prefix("Page_") else {
            continue;
        };
        let Some(mut page) = components.schemas.remove(&name) else {
            continue;
        };
        if let RefOr::T(Schema::Object(page)) = &mut page
            && let Some(RefOr::T(Schema::Array(data))) = page.properties.get_mut("data")
        {
            data.items = Ref::from_schema_name(item).into();
        }
        components.schemas.insert(format!("{item}Page"), page);
    }
    let responses = document
        .paths
        .paths
        .values_mut()
        .flat_map(links::operations);
    for response in responses.flat_map(|operation| operation.responses.responses.values_mut()) {
        let RefOr::T(response) = response else {
            continue;
        };
        for content in response.content.values_mut() {
            if let RefOr::T(content) = content
                && let Some(RefOr::Ref(reference)) = &mut content.schema
                && let Some(name) = reference.ref_location.strip_prefix(HOME)
                && let Some(item) = name.strip_prefix("Page_")
            {
                *reference = Ref::from_schema_name(format!("{item}Page"));
            }
        }
    }
}

/// Removes the schemas and security schemes without references, until each remaining one has a reference.
pub(super) fn prune(document: &mut OpenApi) {
    loop {
        let text = serde_json::to_string(document).unwrap_or_default();
        let Some(components) = &mut document.components else {
            return;
        };
        let before = components.schemas.len();
        components
            .schemas
            .retain(|name, _| text.contains(&format!("\"{HOME}{name}\"")));
        components
            .security_schemes
            .retain(|name, _| text.contains(&format!("{{\"{name}\":[")));
        if components.schemas.len() == before {
            return;
        }
    }
}

/// Removes the responses without references.
pub(super) fn prune_responses(document: &mut OpenApi) {
    let text = serde_json::to_string(&document.paths).unwrap_or_default();
    if let Some(components) = &mut document.components {
        components
            .responses
            .retain(|name, _| text.contains(&format!("\"#/components/responses/{name}\"")));
    }
}

/// The schema as one object; `None` if a part of the schema is not an object.
fn object(all: &BTreeMap<String, RefOr<Schema>>, schema: &RefOr<Schema>) -> Option<Object> {
    match schema {
        RefOr::Ref(reference) => object(all, all.get(reference.ref_location.strip_prefix(HOME)?)?),
        RefOr::T(Schema::Object(object)) => Some(object.clone()),
        RefOr::T(Schema::AllOf(parts)) => {
            let mut whole = Object::new();
            for part in &parts.items {
                let part = object(all, part)?;
                whole.properties.extend(part.properties);
                whole.required.extend(part.required);
            }
            whole.description.clone_from(&parts.description);
            Some(whole)
        }
        RefOr::T(_) => None,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn pages_have_the_items_that_are_read_one_by_one() {
        let document = serde_json::to_value(crate::openapi()).unwrap();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        assert!(!schemas.keys().any(|name| name.starts_with("Page")));
        assert_eq!(
            schemas["MessagePage"]["properties"]["data"]["items"]["$ref"],
            "#/components/schemas/Message"
        );
    }

    #[test]
    fn a_message_is_one_object() {
        let document = serde_json::to_value(crate::openapi()).unwrap();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        for (name, schema) in schemas {
            assert!(schema["allOf"].is_null(), "{name} is in parts");
            assert_ne!(name, "Content", "a part of messages alone");
        }
        let message = &schemas["Message"];
        assert!(message["properties"]["channel"].is_object());
        assert!(message["properties"]["status"].is_object());
        let required = message["required"].as_array().unwrap();
        assert!(required.contains(&"data".into()) && required.contains(&"id".into()));
    }
}
