//! Descriptions of response headers.

use utoipa::openapi::{
    Header, RefOr,
    schema::{ObjectBuilder, Type},
};

/// `X-Request-Id`, which every answer has.
pub(super) fn request_id() -> RefOr<Header> {
    header(
        "The id of the request: the caller's own id if that id has 1 to 128 characters of `A-Z a-z 0-9 . _ -`, \
        otherwise a new id.",
    )
}

/// The headers of answers under a rate limit.
pub(super) fn rate_limit() -> [(String, RefOr<Header>); 2] {
    [
        (
            "RateLimit-Policy".into(),
            header("The tenant's limit: `\"default\";q=100;w=1` is 100 requests in 1 second."),
        ),
        (
            "RateLimit".into(),
            header(
                "The rest of the tenant's limit: `\"default\";r=99;t=1` is 99 requests left, and the full limit again \
                in 1 second.",
            ),
        ),
    ]
}

/// A header with a text.
pub(super) fn header(description: &str) -> RefOr<Header> {
    let mut header = Header::new(ObjectBuilder::new().schema_type(Type::String));
    header.description = Some(description.to_owned());
    header.into()
}
