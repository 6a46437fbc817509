//! What holds for the parameters of all operations.

use utoipa::openapi::{
    RefOr,
    path::Operation,
    schema::{ObjectBuilder, Schema, SchemaType, Type},
};

/// Adds the form of an idempotency key to each operation that takes one. Removes null from the types of parameters: a
/// parameter is sent or absent, because a URL and a header cannot express null.
pub(super) fn describe(operation: &mut Operation) {
    for parameter in operation.parameters.iter_mut().flatten() {
        let RefOr::T(parameter) = parameter else {
            continue;
        };
        if parameter.name == "Idempotency-Key" {
            let key = ObjectBuilder::new()
                .schema_type(Type::String)
                .min_length(Some(1))
                .max_length(Some(255))
                .pattern(Some("^[!-~]+$"));
            parameter.schema = Some(key.into());
        }
        if let Some(RefOr::T(Schema::Object(schema))) = &mut parameter.schema
            && let SchemaType::Array(types) = &schema.schema_type
            && let [one, Type::Null] | [Type::Null, one] = types.as_slice()
        {
            schema.schema_type = SchemaType::Type(one.clone());
        }
    }
}
