//! The rows of the schema, as SeaORM entities. The entities are private to this crate; its public functions use the
//! types of `domain`.

pub(crate) mod api_key;
pub(crate) mod app;
pub(crate) mod audit;
pub(crate) mod lane;
pub(crate) mod message;
pub(crate) mod sealed_key;
pub(crate) mod signing_key;
pub(crate) mod template;
pub(crate) mod template_sync;
pub(crate) mod tenant;
pub(crate) mod webhook;
pub(crate) mod webhook_delivery;
