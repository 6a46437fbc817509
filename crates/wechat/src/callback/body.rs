//! Parses the bodies of callbacks, JSON or XML, into one type.

use serde_json::Value;

use super::{CallbackCheckError, node::Node, xml};
use crate::mend;

impl Node {
    /// Parses a JSON or XML body that obeys the rules of its format. A body without a verified signature must obey the
    /// rules.
    pub(super) fn read(body: &[u8]) -> Result<Self, CallbackCheckError> {
        let text = std::str::from_utf8(body)
            .map_err(|_| CallbackCheckError::Unreadable("the body is not UTF-8"))?;
        Self::parse(text, str::to_owned, str::to_owned)
    }

    /// Parses a body with a verified signature, also a body that breaks the rules of its format where the meaning stays
    /// clear.
    pub(super) fn read_authentic(body: &[u8]) -> Result<Self, CallbackCheckError> {
        let text = String::from_utf8_lossy(body);
        Self::parse(&text, mend::json, mend::xml)
    }

    /// Parses `text`. If that fails, parses the text that the repair function of the format returns.
    fn parse(
        text: &str,
        mend_json: fn(&str) -> String,
        mend_xml: fn(&str) -> String,
    ) -> Result<Self, CallbackCheckError> {
        let text = text
            .trim_start_matches('\u{feff}')
            .trim_matches(|c: char| c.is_whitespace() || c == '\0');
        match text.bytes().next() {
            Some(b'{') => serde_json::from_str(text)
                .or_else(|_| serde_json::from_str(&mend_json(text)))
                .map(Self::of_json)
                .map_err(|_| CallbackCheckError::Unreadable("the body is not valid JSON")),
            Some(b'<') => xml::read(text)
                .or_else(|fault| xml::read(&mend_xml(text)).map_err(|_| fault))
                .map_err(CallbackCheckError::Unreadable),
            _ => Err(CallbackCheckError::Unreadable(
                "the body is neither JSON nor XML",
            )),
        }
    }

    fn of_json(value: Value) -> Self {
        match value {
            Value::Null => Self::Text(String::new()),
            Value::Bool(truth) => Self::Text(truth.to_string()),
            Value::Number(number) => Self::Text(number.to_string()),
            Value::String(text) => Self::Text(text),
            Value::Array(items) => Self::List(items.into_iter().map(Self::of_json).collect()),
            Value::Object(fields) => Self::Fields(
                fields
                    .into_iter()
                    .map(|(name, value)| (name, Self::of_json(value)))
                    .collect(),
            ),
        }
    }
}
