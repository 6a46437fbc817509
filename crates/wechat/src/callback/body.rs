//! Bodies of callbacks: JSON or XML, parsed into one type.

use serde_json::Value;

use super::{CallbackCheckError, xml};
use crate::mend;

/// A node of a body. Numbers and literals of JSON become texts, because XML has only texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    /// A value.
    Text(String),
    /// A JSON array.
    List(Vec<Node>),
    /// A JSON object, or an element with child elements. In XML a name may occur several times.
    Fields(Vec<(String, Node)>),
}

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

    /// The fields with this name.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Self> {
        let fields = match self {
            Self::Fields(fields) => fields.as_slice(),
            Self::Text(_) | Self::List(_) => &[],
        };
        fields
            .iter()
            .filter(move |(given, _)| given == name)
            .map(|(_, node)| node)
    }

    /// The text of the first field with this name.
    pub(super) fn text<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        match self.all(name).next()? {
            Self::Text(text) => Some(text),
            Self::List(_) | Self::Fields(_) => None,
        }
    }

    /// The items of a list, or the node itself: WeChat writes a list of one item as the item.
    pub(super) fn items(&self) -> &[Self] {
        match self {
            Self::List(items) => items,
            one => std::slice::from_ref(one),
        }
    }
}
