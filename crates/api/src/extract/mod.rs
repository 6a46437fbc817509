//! Extractors: these types do the parsing, so that handlers stay short.

mod body;
mod idempotency;
mod json;
mod path;
mod prefer;
mod query;
mod twice;
mod words;

pub use body::SlowBody;
pub(crate) use body::{Unread, announced, announces_too_much, read_whole};
pub(crate) use idempotency::{BareKey, IDEMPOTENCY_KEY, Keyed, Repeat, key_text};
pub(crate) use json::{ApiJson, object, optional_object, parse, parse_part};
pub(crate) use path::{
    AppIdPath, KeyIdPath, MessageIdPath, TenantIdPath, TenantKeyPath, WebhookEventPath,
    WebhookIdPath,
};
pub(crate) use prefer::Wait;
pub(crate) use query::{ApiQuery, read as read_query};
pub(crate) use twice::repeated_fields;
pub(crate) use words::explain_syntax;
