//! Messages in WeChat's JSON format.

use std::io;

use domain::message::Content;
use serde::{
    Serialize, Serializer,
    ser::{SerializeMap, SerializeStruct},
};
use serde_json::{
    Map, Value,
    ser::{CharEscape, Formatter},
};

/// A message to send, borrowed from the caller. Serialises to the body of the channel's call.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// The recipient's openid.
    pub touser: &'a str,
    /// The template's id in the account.
    pub template_id: &'a str,
    /// The content; its channel selects the call.
    pub content: &'a Content,
}

impl Outgoing<'_> {
    /// The body: raw UTF-8 without `\u` escapes, which WeChat refuses (40033). Control characters, which JSON can only
    /// write as `\u` escapes, become blanks.
    pub(crate) fn to_bytes(self) -> Result<Vec<u8>, serde_json::Error> {
        let mut body = Vec::with_capacity(512);
        self.serialize(&mut serde_json::Serializer::with_formatter(
            &mut body, RawUtf8,
        ))?;
        Ok(body)
    }
}

impl Serialize for Outgoing<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut body = serializer.serialize_struct("Outgoing", 7)?;
        body.serialize_field("touser", self.touser)?;
        body.serialize_field("template_id", self.template_id)?;
        match self.content {
            Content::Subscribe {
                data,
                page,
                miniprogram_state,
                lang,
            } => {
                optional(&mut body, "page", page.as_ref())?;
                // Optional in WeChat's older documentation and required in the newer one: always sent.
                body.serialize_field("miniprogram_state", miniprogram_state)?;
                body.serialize_field("lang", lang)?;
                body.serialize_field("data", &TemplateData(data))?;
            }
            Content::Template {
                data,
                page,
                form_id,
                emphasis_keyword,
            } => {
                optional(&mut body, "page", page.as_ref())?;
                body.serialize_field("form_id", form_id.as_deref().unwrap_or_default())?;
                body.serialize_field("data", &TemplateData(data))?;
                optional(&mut body, "emphasis_keyword", emphasis_keyword.as_ref())?;
            }
            Content::Official {
                data,
                url,
                miniprogram,
                client_msg_id,
            } => {
                optional(&mut body, "url", url.as_ref())?;
                optional(&mut body, "miniprogram", miniprogram.as_ref())?;
                optional(&mut body, "client_msg_id", client_msg_id.as_ref())?;
                body.serialize_field("data", &TemplateData(data))?;
            }
        }
        body.end()
    }
}

fn optional<S: SerializeStruct>(
    body: &mut S,
    key: &'static str,
    value: Option<&impl Serialize>,
) -> Result<(), S::Error> {
    value.map_or(Ok(()), |value| body.serialize_field(key, value))
}

/// The map of the template's keys.
struct TemplateData<'a>(&'a Map<String, Value>);

impl Serialize for TemplateData<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, item)| (key, Item(item))))
    }
}

/// The `{"value": …}` of one key.
struct Item<'a>(&'a Value);

impl Serialize for Item<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Value::Object(fields) = self.0 else {
            return self.0.serialize(serializer);
        };
        let mut item = serializer.serialize_map(Some(fields.len()))?;
        for (name, field) in fields {
            match field {
                // Tenants may send numbers; WeChat requires strings.
                Value::Number(number) if name == "value" => {
                    item.serialize_entry(name, &Quoted(number))?;
                }
                _ => item.serialize_entry(name, field)?,
            }
        }
        item.end()
    }
}

struct Quoted<'a>(&'a serde_json::Number);

impl Serialize for Quoted<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self.0)
    }
}

/// Compact JSON without `\u` escapes.
struct RawUtf8;

impl Formatter for RawUtf8 {
    fn write_char_escape<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        let escaped: &[u8] = match escape {
            CharEscape::Quote => b"\\\"",
            CharEscape::ReverseSolidus => b"\\\\",
            CharEscape::Solidus => b"/",
            CharEscape::LineFeed => b"\\n",
            CharEscape::CarriageReturn => b"\\r",
            CharEscape::Tab => b"\\t",
            CharEscape::Backspace | CharEscape::FormFeed | CharEscape::AsciiControl(_) => b" ",
        };
        writer.write_all(escaped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::message::{Lang, MiniprogramState};
    use serde_json::json;

    fn body(data: &Value) -> String {
        let content = Content::Subscribe {
            data: data.as_object().unwrap().clone(),
            page: None,
            miniprogram_state: MiniprogramState::Trial,
            lang: Lang::ZhHk,
        };
        let message = Outgoing {
            touser: "oABC",
            template_id: "tpl",
            content: &content,
        };
        String::from_utf8(message.to_bytes().unwrap()).unwrap()
    }

    #[test]
    fn numbers_go_out_as_strings_and_other_fields_as_they_are() {
        let body = body(
            &json!({"number1": {"value": 12.5, "color": "#173177"}, "thing2": {"value": "x"}}),
        );
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            body["data"]["number1"],
            json!({"value": "12.5", "color": "#173177"})
        );
        assert_eq!(body["data"]["thing2"], json!({"value": "x"}));
    }

    #[test]
    fn state_and_language_are_always_there() {
        let body = body(&json!({}));
        assert_eq!(
            body,
            r#"{"touser":"oABC","template_id":"tpl","miniprogram_state":"trial","lang":"zh_HK","data":{}}"#
        );
    }

    #[test]
    fn no_escape_that_wechat_refuses() {
        let body = body(&json!({"thing1": {"value": "保温杯 😀 \u{1}\u{8}\"\\ \n/"}}));
        assert!(body.contains(r#""保温杯 😀   \"\\ \n/""#), "{body}");
        assert!(!body.contains("\\u"));
    }
}
