//! The templates of an account.

use serde::{Deserialize, Serialize};

/// One template in WeChat's form (`GET /wxaapi/newtmpl/gettemplate`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListedTemplate {
    /// The template id, which sends name.
    pub pri_tmpl_id: String,
    /// The template's title.
    #[serde(default)]
    pub title: String,
    /// Lines of `label:{{key.DATA}}`. A subscribe message must contain all keys found here.
    #[serde(default)]
    pub content: String,
    /// The same lines with example values.
    #[serde(default)]
    pub example: String,
    /// 2 one-time, 3 long-term: a long-term grant is not used up.
    #[serde(rename = "type", default = "one_time")]
    pub kind: u8,
    /// The allowed values of each `enum_string` key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keyword_enum_value_list: Vec<KeywordEnum>,
}

/// The allowed values of one `enum_string` key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeywordEnum {
    /// The key, such as `enum_string2.DATA`.
    pub keyword_code: String,
    /// The allowed values.
    pub enum_value_list: Vec<String>,
}

fn one_time() -> u8 {
    2
}

impl ListedTemplate {
    /// A one-time template with these keys, such as `thing2`.
    pub fn one_time(id: impl Into<String>, keys: &[&str]) -> Self {
        let content = keys.iter().fold(String::new(), |content, key| {
            content + key + ":{{" + key + ".DATA}}\n"
        });
        Self {
            pri_tmpl_id: id.into(),
            title: "template".into(),
            content,
            kind: 2,
            ..Self::default()
        }
    }

    /// Whether one grant permits any number of sends.
    pub(crate) fn is_long_term(&self) -> bool {
        self.kind == 3
    }

    /// The keys in the template's content.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.content
            .split("{{")
            .skip(1)
            .filter_map(|rest| rest.split_once(".DATA}}").map(|(key, _)| key))
    }

    /// The allowed values of a key, if the template restricts them.
    pub(crate) fn values_of(&self, key: &str) -> Option<&[String]> {
        self.keyword_enum_value_list
            .iter()
            .find(|list| {
                list.keyword_code
                    .strip_suffix(".DATA")
                    .unwrap_or(&list.keyword_code)
                    == key
            })
            .map(|list| list.enum_value_list.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_are_read_from_the_content() {
        let template: ListedTemplate = serde_json::from_str(
            r#"{"priTmplId":"t","content":"订单编号:{{character_string1.DATA}}\n商品:{{thing2.DATA}}\n"}"#,
        )
        .unwrap();
        assert_eq!(
            template.keys().collect::<Vec<_>>(),
            ["character_string1", "thing2"]
        );
        assert_eq!(template.kind, 2);
        let built = ListedTemplate::one_time("t", &["thing1", "time2"]);
        assert_eq!(built.keys().collect::<Vec<_>>(), ["thing1", "time2"]);
    }

    #[test]
    fn enum_values_are_found_by_their_key() {
        let template: ListedTemplate = serde_json::from_str(
            r#"{"priTmplId":"t","type":3,"keywordEnumValueList":[{"keywordCode":"enum_string2.DATA","enumValueList":["排队中"]}]}"#,
        )
        .unwrap();
        assert_eq!(
            template.values_of("enum_string2"),
            Some(&["排队中".to_owned()][..])
        );
        assert_eq!(template.values_of("enum_string3"), None);
        assert!(template.is_long_term());
    }
}
