//! The shapes of the API, one module for each noun. The API converts these shapes from and to the types of the crates
//! below; no other part of the gateway sees the shapes.

pub(crate) mod apps;
pub(crate) mod audit;
pub(crate) mod batch;
pub(crate) mod grants;
mod items;
pub(crate) mod keys;
mod lists;
pub(crate) mod message_request;
pub(crate) mod message_schema;
pub(crate) mod messages;
pub(crate) mod open_lists;
pub(crate) mod page;
pub(crate) mod reach;
pub(crate) mod templates;
pub(crate) mod tenants;
pub(crate) mod time;
pub(crate) mod tokens;
pub(crate) mod webhooks;
pub(crate) mod words;

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, de::IntoDeserializer};

/// Distinguishes a field that is `null` (`Some(None)`: remove the value) from an absent field (`None`: keep the value).
#[expect(
    clippy::option_option,
    reason = "absent, null and a value are three things in a PATCH"
)]
pub(crate) fn nullable<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// A field that is one of a few words and may be absent. serde's derived code reports a value of another type than
/// string as broken JSON.
pub(crate) fn word<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let text = Cow::<str>::deserialize(deserializer)?;
    T::deserialize(text.into_deserializer()).map(Some)
}

/// A field that may be absent, but not `null`.
pub(crate) fn not_null<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}
