//! What holds for parameters wherever they are.

use utoipa::openapi::{
    RefOr,
    path::Operation,
    schema::{ObjectBuilder, Schema, SchemaType, Type},
};

/// Says what an idempotency key may look like, wherever one is taken; and that a parameter is sent or left out, never
/// null: a URL and a header have no word for that.
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
