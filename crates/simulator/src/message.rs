//! The bodies of the three send calls, parsed with as few copies as possible.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::refusal::Refusal;

/// A message in a sender's request. Unknown fields are ignored, as WeChat does.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(crate) struct SimulatedMessage<'a> {
    #[serde(borrow)]
    pub(crate) touser: Text<'a>,
    #[serde(borrow)]
    pub(crate) template_id: Text<'a>,
    #[serde(borrow)]
    pub(crate) page: Text<'a>,
    #[serde(borrow)]
    pub(crate) url: Text<'a>,
    #[serde(borrow)]
    pub(crate) form_id: Text<'a>,
    #[serde(borrow)]
    pub(crate) client_msg_id: Text<'a>,
    #[serde(borrow)]
    pub(crate) data: Data<'a>,
}

impl<'a> SimulatedMessage<'a> {
    /// Parses a body: 44002 for an empty body, 47001 for a body that is no JSON object.
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, Refusal> {
        if body.is_empty() {
            return Err(Refusal::known(44002));
        }
        serde_json::from_slice(body).map_err(|_| Refusal::known(47001))
    }

    /// The test's mark: `marker=…` in the query of the page (or url), or the value of the data key `key`.
    pub(crate) fn marker(&self, key: Option<&str>) -> Option<&str> {
        let page = if self.page.is_empty() {
            &self.url
        } else {
            &self.page
        };
        if let Some(marker) = page.split_once('?').and_then(|(_, query)| {
            query
                .split('&')
                .find_map(|pair| pair.strip_prefix("marker="))
        }) {
            return Some(marker);
        }
        let key = key?;
        match &self.data {
            Data::Keys(keys) => keys.iter().find_map(|(name, slot)| match slot {
                Slot::Value(value) if **name == *key => Some(&**value),
                _ => None,
            }),
            Data::Missing | Data::NotAnObject => None,
        }
    }
}

/// A string that may be missing, `null` or written as a number.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Text<'a>(pub(crate) Cow<'a, str>);

impl std::ops::Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = raw(deserializer)?;
        match json.as_bytes().first() {
            Some(b'"') => inside(json)
                .deserialize_str(TextVisitor)
                .map_err(D::Error::custom),
            Some(b'n') => Ok(Self::default()),
            Some(b'-' | b'0'..=b'9') => Ok(Self(Cow::Borrowed(json))),
            _ => Err(D::Error::custom("not a string")),
        }
    }
}

/// The JSON text of a value: the digits of a number stay as written.
fn raw<'de, D: Deserializer<'de>>(deserializer: D) -> Result<&'de str, D::Error> {
    <&RawValue>::deserialize(deserializer).map(RawValue::get)
}

/// A deserializer for the JSON text of a value that [`raw`] returned.
fn inside(json: &str) -> serde_json::Deserializer<serde_json::de::StrRead<'_>> {
    serde_json::Deserializer::from_str(json)
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a string")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
        Ok(Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
        Ok(Text(Cow::Owned(text.to_owned())))
    }
}

/// The `data` of a message.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum Data<'a> {
    #[default]
    Missing,
    /// Such as a JSON string that contains an object.
    NotAnObject,
    Keys(Vec<(Text<'a>, Slot<'a>)>),
}

/// The entry of one key.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Slot<'a> {
    /// `{"value":"…"}`
    Value(Cow<'a, str>),
    /// A bare string, or another value that is not an object with a `value`.
    Wrong,
}

impl<'de: 'a, 'a> Deserialize<'de> for Data<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = raw(deserializer)?;
        match json.as_bytes().first() {
            Some(b'{') => inside(json)
                .deserialize_map(DataVisitor)
                .map_err(D::Error::custom),
            Some(b'n') => Ok(Self::Missing),
            _ => Ok(Self::NotAnObject),
        }
    }
}

struct DataVisitor;

impl<'de> Visitor<'de> for DataVisitor {
    type Value = Data<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of template values")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Data<'de>, A::Error> {
        let mut keys = Vec::with_capacity(8);
        while let Some(entry) = map.next_entry()? {
            keys.push(entry);
        }
        Ok(Data::Keys(keys))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Slot<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = raw(deserializer)?;
        if json.starts_with('{') {
            inside(json)
                .deserialize_map(SlotVisitor)
                .map_err(D::Error::custom)
        } else {
            Ok(Self::Wrong)
        }
    }
}

struct SlotVisitor;

impl<'de> Visitor<'de> for SlotVisitor {
    type Value = Slot<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("{\"value\":\"…\"}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Slot<'de>, A::Error> {
        let mut slot = Slot::Wrong;
        while let Some(key) = map.next_key::<Text<'de>>()? {
            if &*key == "value" {
                slot = Slot::Value(map.next_value::<Text<'de>>()?.0);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_message_is_borrowed_from_its_body() {
        let body = r#"{"touser":"o","template_id":"t","page":"p?id=1&marker=m7","color":"x",
            "data":{"thing2":{"value":"保温杯","color":"red"}}}"#;
        let message = SimulatedMessage::parse(body.as_bytes()).unwrap();
        assert!(matches!(message.touser.0, Cow::Borrowed("o")));
        assert_eq!(message.marker(None), Some("m7"));
        let Data::Keys(keys) = &message.data else {
            panic!("{message:?}")
        };
        assert!(matches!(&keys[0].1, Slot::Value(Cow::Borrowed("保温杯"))));
    }

    #[test]
    fn a_marker_can_be_a_data_value() {
        let message =
            SimulatedMessage::parse(br#"{"page":"p","data":{"number1":{"value":12}}}"#).unwrap();
        assert_eq!(message.marker(Some("number1")), Some("12"));
        assert_eq!(message.marker(None), None);
    }

    #[test]
    fn a_number_keeps_its_digits() {
        for number in ["98765432109876543210", "1.00", "-0", "1E5", "656887888.00"] {
            let body = format!(r#"{{"data":{{"number1":{{"value":{number}}}}}}}"#);
            let message = SimulatedMessage::parse(body.as_bytes()).unwrap();
            assert_eq!(message.marker(Some("number1")), Some(number));
        }
    }

    #[test]
    fn wrong_shapes_are_told_apart() {
        let parse = |data: &str| {
            let body = format!("{{\"data\":{data}}}");
            match SimulatedMessage::parse(body.as_bytes()).unwrap().data {
                Data::Missing => "missing",
                Data::NotAnObject => "not an object",
                Data::Keys(keys) if keys.iter().any(|(_, slot)| *slot == Slot::Wrong) => {
                    "wrong slot"
                }
                Data::Keys(_) => "keys",
            }
        };
        assert_eq!(parse("null"), "missing");
        assert_eq!(parse(r#""{\"a\":1}""#), "not an object");
        assert_eq!(parse("5"), "not an object");
        assert_eq!(parse("[1.5]"), "not an object");
        assert_eq!(parse(r#"{"thing1":"bare"}"#), "wrong slot");
        assert_eq!(parse(r#"{"thing1":12.5}"#), "wrong slot");
        assert_eq!(parse(r#"{"thing1":{"value":""}}"#), "keys");
        assert_eq!(SimulatedMessage::parse(b"").unwrap_err().code, 44002);
        assert_eq!(SimulatedMessage::parse(b"{").unwrap_err().code, 47001);
    }
}
