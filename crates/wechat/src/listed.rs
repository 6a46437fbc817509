//! Parses WeChat's lists of an account's templates.
//!
//! There are three lists with different field names for the same values, and some of these calls write numbers as
//! texts.

use std::collections::BTreeMap;

use domain::template::{Template, TemplateKind};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::decode::Scalar;

/// The most templates that are read: an account may have 50 templates.
const MAX_TEMPLATES: usize = 500;
/// The longest text of a template that is kept, in bytes.
const MAX_TEXT: usize = 8192;
/// The longest id that can be sent.
const MAX_ID: usize = 128;

/// A template as WeChat lists it.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct WireTemplate {
    #[serde(alias = "priTmplId")]
    template_id: Scalar,
    title: Scalar,
    content: Scalar,
    example: Scalar,
    #[serde(rename = "type")]
    kind: Scalar,
    #[serde(rename = "keywordEnumValueList")]
    values: Option<Vec<WireValues>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WireValues {
    keyword_code: String,
    enum_value_list: Vec<Scalar>,
}

/// Parses a list; `None`: the value is no list of templates. Other calls use the same field name for other values.
pub(crate) fn lenient<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<WireTemplate>>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).ok())
}

/// The templates in a list that have a valid id. `kind` applies where the list names no kind.
pub(crate) fn templates(
    list: Vec<WireTemplate>,
    kind: TemplateKind,
) -> impl Iterator<Item = Template> {
    list.into_iter()
        .take(MAX_TEMPLATES)
        .filter_map(move |wire| wire.read(kind))
}

impl WireTemplate {
    fn read(self, kind: TemplateKind) -> Option<Template> {
        let id = self
            .template_id
            .text()
            .filter(|id| !id.is_empty() && id.len() <= MAX_ID)
            .filter(|id| !id.chars().any(|c| c.is_whitespace() || c.is_control()))?;
        let kind = match (kind, self.kind.unsigned()) {
            (TemplateKind::OneTime, Some(3)) => TemplateKind::LongTerm,
            (kind, _) => kind,
        };
        let text = |scalar: Scalar| clean(&scalar.text().unwrap_or_default());
        let values = self.values.into_iter().flatten().map(|list| {
            let key = list.keyword_code.trim();
            let key = key.strip_suffix(".DATA").unwrap_or(key);
            let values = list.enum_value_list.into_iter().filter_map(Scalar::word);
            (key.to_owned(), values.collect())
        });
        Some(Template {
            id,
            kind,
            title: text(self.title),
            content: text(self.content),
            example: text(self.example),
            values: values.collect::<BTreeMap<_, _>>(),
        })
    }
}

/// The text without control characters except line breaks, cut to [`MAX_TEXT`].
fn clean(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_TEXT)].replace(|c: char| c.is_control() && c != '\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::decode;

    fn read(body: &str, kind: TemplateKind) -> Option<Vec<Template>> {
        let list = decode(body.as_bytes()).unwrap().templates?;
        Some(templates(list, kind).collect())
    }

    #[test]
    fn subscribe_templates_are_read() {
        let body = r#"{"errcode":0,"errmsg":"ok","data":[
            {"priTmplId":"a","title":"订单","content":"编号:{{character_string1.DATA}}\n状态:{{enum_string2.DATA}}\n",
             "example":"编号:1\n","type":"3","keywordEnumValueList":[{"keywordCode":"enum_string2.DATA","enumValueList":["排队中",7]}]},
            {"priTmplId":"b","title":"t","content":"{{thing1.DATA}}","example":"","type":2},
            {"title":"without an id"}]}"#;
        let read = read(body, TemplateKind::OneTime).unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!(read[0].kind, TemplateKind::LongTerm);
        assert_eq!(
            read[0].keys().collect::<Vec<_>>(),
            ["character_string1", "enum_string2"]
        );
        assert_eq!(read[0].values["enum_string2"], ["排队中", "7"]);
        assert_eq!(read[1].kind, TemplateKind::OneTime);
    }

    #[test]
    fn the_other_two_lists_are_read() {
        let old = r#"{"errcode":0,"list":[{"template_id":"a","title":"t","content":"{{keyword1.DATA}}","example":"e"}]}"#;
        assert_eq!(read(old, TemplateKind::FormId).unwrap()[0].id, "a");
        let official = r#"{"template_list":[{"template_id":"b","title":"t","primary_industry":"IT","content":"{ {first.DATA} }"}]}"#;
        let official = read(official, TemplateKind::Official).unwrap();
        assert_eq!(official[0].keys().collect::<Vec<_>>(), ["first"]);
    }

    #[test]
    fn what_is_no_list_is_none_and_an_empty_one_is_one() {
        for body in [
            r#"{"errcode":0}"#,
            r#"{"errcode":0,"data":"text"}"#,
            r#"{"errcode":0,"data":{"a":1}}"#,
            r#"{"errcode":0,"data":null}"#,
        ] {
            assert!(read(body, TemplateKind::OneTime).is_none(), "{body}");
        }
        let empty = read(r#"{"errcode":0,"data":[]}"#, TemplateKind::OneTime);
        assert_eq!(empty, Some(Vec::new()));
    }

    #[test]
    fn texts_can_be_kept() {
        let long = "字".repeat(5000);
        let body = serde_json::json!({"errcode": 0, "data": [{"priTmplId": "a", "title": "a\u{0}b", "content": long}]});
        let read = read(&body.to_string(), TemplateKind::OneTime).unwrap();
        assert_eq!(read[0].title, "a b");
        assert!(read[0].content.len() <= MAX_TEXT);
    }
}
