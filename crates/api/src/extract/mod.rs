//! Extractors: they carry the parsing, so that a handler is a sentence.

mod idempotency;
mod json;
mod path;
mod prefer;
mod query;

pub(crate) use idempotency::{BareKey, Keyed};
pub(crate) use json::{ApiJson, object, optional_object, parse_part};
pub(crate) use path::{
    AppIdPath, KeyIdPath, MessageIdPath, TenantIdPath, TenantKeyPath, WebhookEventPath,
    WebhookIdPath,
};
pub(crate) use prefer::Wait;
pub(crate) use query::ApiQuery;
