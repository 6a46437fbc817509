//! Enumerations that may gain values. The document declares these enumerations as strings and lists the present values
//! in `x-extensible-enum`, so that a generated client accepts a value that was added later.

use std::borrow::Cow;

use domain::{scope::Scope, verdict::FailureCode, webhook::EventType};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ObjectBuilder, RefOr,
        extensions::Extensions,
        schema::{Schema, Type},
    },
};

use crate::problem::ProblemKind;

macro_rules! lists {
    ($($(#[doc = $doc:literal])* $list:ident = $name:literal, $schema:expr;)*) => {$(
        $(#[doc = $doc])*
        pub(crate) struct $list;

        impl PartialSchema for $list {
            fn schema() -> RefOr<Schema> {
                let about = [$($doc.trim()),*].join(" ");
                $schema(&about)
            }
        }

        impl ToSchema for $list {
            fn name() -> Cow<'static, str> {
                Cow::Borrowed($name)
            }
        }
    )*};
}

lists! {
    /// The kind of problem, for programs. Treat an unknown value by its HTTP status.
    ProblemCodes = "ProblemCode", |about| open(about, &problem_codes());
    /// The kind of failure, for programs. Treat an unknown value as `refused`.
    FailureCodes = "FailureCode", |about| open(about, &failure_codes());
    /// The kind of event. Ignore an unknown value.
    EventTypes = "EventType", |about| open(about, &EventType::ALL.map(EventType::as_str));
    /// What a key or token may do.
    Scopes = "Scope", scopes;
}

/// A string schema with the present values.
fn open(about: &str, known: &[&str]) -> RefOr<Schema> {
    let words = known.join("`, `");
    let about = format!("{about} Present values: `{words}`; later versions may add values.");
    let example = known.first().copied().unwrap_or_default();
    let extension = Extensions::builder().add("x-extensible-enum", known);
    ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some(about))
        .examples([example])
        .extensions(Some(extension.build()))
        .into()
}

/// Callers send scopes too, and the gateway refuses an unknown scope: this list is closed.
fn scopes(about: &str) -> RefOr<Schema> {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(Scope::ALL.iter().map(|scope| scope.as_str())))
        .description(Some(about))
        .into()
}

fn failure_codes() -> Vec<&'static str> {
    FailureCode::ALL.iter().map(|code| code.as_str()).collect()
}

/// Each code once.
fn problem_codes() -> Vec<&'static str> {
    let mut codes: Vec<&str> = Vec::new();
    for kind in ProblemKind::ALL {
        if !codes.contains(&kind.code()) {
            codes.push(kind.code());
        }
    }
    codes
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    fn schema(name: &str) -> Value {
        let document = serde_json::to_value(crate::openapi()).unwrap();
        document["components"]["schemas"][name].clone()
    }

    #[test]
    fn lists_that_grow_are_open_texts_with_the_words_of_today() {
        for (name, word) in [
            ("ProblemCode", "not_found"),
            ("FailureCode", "no_grant"),
            ("EventType", "message.sent"),
        ] {
            let list = schema(name);
            assert_eq!(list["type"], "string", "{name}");
            assert!(list["enum"].is_null(), "{name} is closed");
            let known = list["x-extensible-enum"].as_array().unwrap();
            assert!(known.contains(&word.into()), "{name}: {known:?}");
            assert!(list["description"].as_str().unwrap().contains(word));
        }
        for (owner, field, list) in [
            ("Problem", "code", "ProblemCode"),
            ("Failure", "code", "FailureCode"),
            ("WebhookDelivery", "type", "EventType"),
        ] {
            let reference = format!("#/components/schemas/{list}");
            let owner = schema(owner);
            assert_eq!(owner["properties"][field], json!({"$ref": reference}));
        }
    }

    #[test]
    fn scopes_have_one_name() {
        for owner in ["Key", "CreatedKey", "KeyRequest"] {
            let scopes = &schema(owner)["properties"]["scopes"];
            let reference = json!({"$ref": "#/components/schemas/Scope"});
            assert_eq!(scopes["items"], reference, "{owner}");
        }
    }

    /// Go's generators make a function `NewX` of a schema `X`: a schema named `NewX` collides with that function.
    #[test]
    fn no_schema_is_named_as_the_constructor_of_another() {
        let document = serde_json::to_value(crate::openapi()).unwrap();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let collides = |name: &&String| {
            let built = name.strip_prefix("New");
            built.is_some_and(|built| schemas.contains_key(built))
        };
        let found: Vec<&String> = schemas.keys().filter(collides).collect();
        assert!(found.is_empty(), "{found:?}");
    }
}
