//! Message templates: what WeChat lists about a template, and what a message needs to match a template.
//!
//! The content of a template contains the keys, `订单编号:{{character_string1.DATA}}`. The type of a key is part of its
//! name; [`crate::template_value`] has the rules of the types. All templates of an app together are the app's
//! [`Catalog`].

use std::{borrow::Cow, collections::BTreeMap};

use serde_json::{Map, Value};

use crate::{
    app::ValueRules,
    message::Channel,
    template_value,
    violation::{Violation, pointer_token},
};

/// How messages of a template are sent, and what permits the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TemplateKind {
    /// A subscribe message: each acceptance permits one message.
    OneTime,
    /// A subscribe message: one acceptance permits any number of messages.
    LongTerm,
    /// A mini-program template message of the older interface: a form id permits one message.
    FormId,
    /// A template message of an official account: following the account permits messages.
    Official,
}

impl TemplateKind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::OneTime, Self::LongTerm, Self::FormId, Self::Official];

    /// The name in the API and the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OneTime => "one_time",
            Self::LongTerm => "long_term",
            Self::FormId => "form_id",
            Self::Official => "official",
        }
    }

    /// The kind with the name `text`.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// The channel of messages with a template of this kind.
    pub fn channel(self) -> Channel {
        match self {
            Self::OneTime | Self::LongTerm => Channel::Subscribe,
            Self::FormId => Channel::Template,
            Self::Official => Channel::Official,
        }
    }
}

/// A template as WeChat lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// The template's id in the account.
    pub id: String,
    /// The kind of the template.
    pub kind: TemplateKind,
    /// The title.
    pub title: String,
    /// The lines of the template, such as `订单编号:{{character_string1.DATA}}`.
    pub content: String,
    /// The content with example values.
    pub example: String,
    /// The allowed values of a key, where WeChat lists the values: for `enum_string` keys.
    pub values: BTreeMap<String, Vec<String>>,
}

impl Template {
    /// The keys of the content, in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        // Some pages write `{ {key.DATA} }`, and blanks inside the braces are harmless.
        let after_brace = self.content.split('{').skip(1);
        after_brace.filter_map(|rest| {
            let (key, _) = rest.split_once(".DATA")?;
            let key = key.trim();
            let is_key = !key.is_empty()
                && key
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
            is_key.then_some(key)
        })
    }

    /// The keys whose type has no rule here: values under these keys are not checked.
    pub fn unknown_keys(&self) -> impl Iterator<Item = &str> {
        let untyped = self.kind == TemplateKind::FormId;
        self.keys()
            .filter(move |key| !untyped && !template_value::is_known(key))
    }

    /// Adds the violations of `data` to `found`.
    fn judge(&self, data: &Map<String, Value>, found: &mut Vec<Violation>) {
        let wanted: Vec<&str> = self.keys().collect();
        if wanted.is_empty() {
            return;
        }
        // On the other two channels WeChat accepts a message without some of the values.
        if self.kind.channel() == Channel::Subscribe {
            for key in wanted.iter().filter(|key| !data.contains_key(**key)) {
                let rule = template_value::rule(key).unwrap_or("a value that WeChat accepts");
                found.push(Violation::new(
                    format!("/data/{}", pointer_token(key)),
                    format!("required: the template needs a value here, {rule}"),
                ));
            }
        }
        let mut told = false;
        for (key, item) in data {
            let pointer = format!("/data/{}", pointer_token(key));
            if !wanted.contains(&key.as_str()) {
                // WeChat withdrew these two keys in 2023 and ignores both; many callers still send these keys.
                if self.kind == TemplateKind::Official && matches!(key.as_str(), "first" | "remark")
                {
                    continue;
                }
                let mut rule = "the template has no such key".to_owned();
                if !told {
                    rule = format!("{rule}: its keys are {}", wanted.join(", "));
                    told = true;
                }
                found.push(Violation::new(pointer, rule));
            } else if let (Some(listed), Some(value)) =
                (self.values.get(key), item.get("value").and_then(text_of))
                && !listed.iter().any(|one| *one == *value)
            {
                found.push(Violation::new(
                    format!("{pointer}/value"),
                    format!("must be one of {}", listed.join(", ")),
                ));
            }
        }
    }
}

/// The text under which a value is sent: of a number the original digits.
pub(crate) fn text_of(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Number(number) => Some(Cow::Owned(number.to_string())),
        _ => None,
    }
}

/// What the gateway knows about the template that a message names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knowledge<'a> {
    /// WeChat has not listed the app's templates to the gateway yet. Any data may be right.
    Nothing,
    /// WeChat's last list of the app's templates contained no template of this channel. Any data may be right.
    NoneListed,
    /// The template.
    Template(&'a Template),
    /// WeChat listed the template before and no longer lists the template.
    Gone,
    /// WeChat lists templates of the app, and this template is not in the list.
    Unlisted,
}

impl Knowledge<'_> {
    /// Whether the gateway should ask WeChat again before the gateway refuses a message because of this knowledge.
    pub fn maybe_used(self) -> bool {
        matches!(self, Self::Gone | Self::Unlisted)
    }

    /// Whether the gateway should ask WeChat again before an unchecked send, unless the gateway asked recently.
    pub fn may_be_outdated(self) -> bool {
        matches!(self, Self::NoneListed)
    }

    /// Adds the violations of a message with `data` to `found`.
    pub(crate) fn judge(self, data: Option<&Map<String, Value>>, found: &mut Vec<Violation>) {
        match self {
            Self::Nothing | Self::NoneListed => {}
            Self::Template(template) => {
                if let Some(data) = data {
                    template.judge(data, found);
                }
            }
            Self::Gone => found.push(Violation::new(
                "/template_id",
                "WeChat no longer lists this template: choose another template, or add the template again in WeChat's \
                 console and sync the app's templates",
            )),
            Self::Unlisted => found.push(Violation::new(
                "/template_id",
                "the app has no such template on this channel: check the app's templates, and sync the templates if \
                 this one was added within the last minute",
            )),
        }
    }

    /// What could not be checked, in sentences.
    pub fn warnings(self) -> Vec<String> {
        match self {
            Self::Nothing | Self::NoneListed => vec![
                "the app's templates are not known: whether the template exists and has these keys was not checked"
                    .to_owned(),
            ],
            Self::Template(template) => template
                .unknown_keys()
                .map(|key| {
                    format!("the type of key `{key}` is not known: its value was not checked")
                })
                .collect(),
            Self::Gone | Self::Unlisted => Vec::new(),
        }
    }
}

/// All known templates of an app.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    entries: BTreeMap<String, Entry>,
    complete: bool,
    value_rules: ValueRules,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    template: Template,
    gone: bool,
}

impl Catalog {
    /// Makes a catalogue of `templates`, each with a flag that the template is gone. `complete`: WeChat's latest list
    /// contains no other templates.
    pub fn new(templates: impl IntoIterator<Item = (Template, bool)>, complete: bool) -> Self {
        let entries = templates
            .into_iter()
            .map(|(template, gone)| (template.id.clone(), Entry { template, gone }));
        Self {
            entries: entries.collect(),
            complete,
            value_rules: ValueRules::default(),
        }
    }

    /// The same catalogue with the value rules of the app.
    #[must_use]
    pub fn with_rules(self, value_rules: ValueRules) -> Self {
        Self {
            value_rules,
            ..self
        }
    }

    /// What happens to messages of the app with values that break the rules of their types.
    pub fn value_rules(&self) -> ValueRules {
        self.value_rules
    }

    /// What is known about a template for messages of `channel`.
    pub fn look_up(&self, channel: Channel, template_id: &str) -> Knowledge<'_> {
        let of_channel = |entry: &&Entry| entry.template.kind.channel() == channel;
        let lists_any = || {
            let mut entries = self.entries.values();
            entries.any(|entry| of_channel(&entry) && !entry.gone)
        };
        match self.entries.get(template_id).filter(of_channel) {
            Some(entry) if entry.gone => Knowledge::Gone,
            Some(entry) => Knowledge::Template(&entry.template),
            None if !self.complete => Knowledge::Nothing,
            None if lists_any() => Knowledge::Unlisted,
            // WeChat withdrew the list of this channel, so a missing template means nothing.
            None if channel == Channel::Template => Knowledge::Nothing,
            None => Knowledge::NoneListed,
        }
    }

    /// The approximate size in bytes.
    pub fn weight(&self) -> usize {
        let of = |Entry { template, .. }: &Entry| {
            let values: usize = template.values.values().flatten().map(String::len).sum();
            256 + template.content.len() + template.example.len() + template.title.len() + values
        };
        64 + self.entries.values().map(of).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn template(kind: TemplateKind, content: &str) -> Template {
        Template {
            id: "tpl".into(),
            kind,
            title: "订单".into(),
            content: content.into(),
            example: String::new(),
            values: BTreeMap::new(),
        }
    }

    fn judged(knowledge: Knowledge<'_>, data: &Value) -> Vec<String> {
        let mut found = Vec::new();
        knowledge.judge(data.as_object(), &mut found);
        found
            .into_iter()
            .map(|violation| violation.pointer)
            .collect()
    }

    #[test]
    fn keys_are_read_from_the_content() {
        let of = |content: &str| {
            let template = template(TemplateKind::OneTime, content);
            template.keys().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(
            of("订单编号:{{character_string1.DATA}}\n商品:{{thing2.DATA}}\n"),
            ["character_string1", "thing2"]
        );
        assert_eq!(
            of("{ {result.DATA} }\n金额:{{ money.DATA }}"),
            ["result", "money"]
        );
        assert!(of("no keys {{here}} {{.DATA}} {{a b.DATA}}").is_empty());
    }

    #[test]
    fn a_subscribe_message_has_the_templates_keys_and_no_others() {
        let template = template(TemplateKind::OneTime, "{{thing1.DATA}}{{number2.DATA}}");
        let known = Knowledge::Template(&template);
        let fine = json!({"thing1": {"value": "x"}, "number2": {"value": 2}});
        assert!(judged(known, &fine).is_empty());
        let wrong = json!({"thing1": {"value": "x"}, "time/3": {"value": "08:00"}});
        assert_eq!(judged(known, &wrong), ["/data/number2", "/data/time~13"]);
    }

    #[test]
    fn the_other_channels_may_leave_keys_out() {
        for kind in [TemplateKind::FormId, TemplateKind::Official] {
            let template = template(kind, "{{keyword1.DATA}}{{keyword2.DATA}}");
            let known = Knowledge::Template(&template);
            assert!(judged(known, &json!({"keyword1": {"value": "x"}})).is_empty());
            assert!(judged(known, &json!({})).is_empty());
            assert_eq!(
                judged(known, &json!({"other": {"value": "x"}})),
                ["/data/other"]
            );
        }
        let official = template(TemplateKind::Official, "{{thing1.DATA}}");
        let old = json!({"first": {"value": "x"}, "remark": {"value": "y"}});
        assert!(judged(Knowledge::Template(&official), &old).is_empty());
    }

    #[test]
    fn a_listed_value_is_one_of_the_list() {
        let mut template = template(TemplateKind::OneTime, "{{enum_string1.DATA}}");
        template
            .values
            .insert("enum_string1".into(), vec!["排队中".into(), "7".into()]);
        let known = Knowledge::Template(&template);
        for fine in [json!("排队中"), json!(7)] {
            assert!(judged(known, &json!({"enum_string1": {"value": fine}})).is_empty());
        }
        let wrong = json!({"enum_string1": {"value": "到号"}});
        assert_eq!(judged(known, &wrong), ["/data/enum_string1/value"]);
    }

    #[test]
    fn a_catalog_knows_what_it_does_not_have() {
        let entry = |id: &str, kind| Template {
            id: id.into(),
            ..template(kind, "{{thing1.DATA}}")
        };
        let of = |complete| {
            let entries = [
                (entry("a", TemplateKind::OneTime), false),
                (entry("b", TemplateKind::LongTerm), true),
            ];
            Catalog::new(entries, complete)
        };
        let catalog = of(true);
        let look = |catalog: &Catalog, channel, id| match catalog.look_up(channel, id) {
            Knowledge::Nothing => "nothing",
            Knowledge::NoneListed => "none listed",
            Knowledge::Template(_) => "template",
            Knowledge::Gone => "gone",
            Knowledge::Unlisted => "unlisted",
        };
        assert_eq!(look(&catalog, Channel::Subscribe, "a"), "template");
        assert_eq!(look(&catalog, Channel::Subscribe, "b"), "gone");
        assert_eq!(look(&catalog, Channel::Subscribe, "c"), "unlisted");
        assert_eq!(look(&catalog, Channel::Template, "a"), "nothing");
        assert_eq!(look(&catalog, Channel::Official, "a"), "none listed");
        assert_eq!(look(&of(false), Channel::Subscribe, "c"), "nothing");
        let empty = Catalog::new([], true);
        assert_eq!(look(&empty, Channel::Subscribe, "a"), "none listed");
        assert!(empty.look_up(Channel::Subscribe, "a").may_be_outdated());
        assert_eq!(
            look(&Catalog::default(), Channel::Subscribe, "a"),
            "nothing"
        );
    }

    #[test]
    fn what_was_not_checked_is_told() {
        let template = template(TemplateKind::OneTime, "{{thing1.DATA}}{{mystery2.DATA}}");
        let warnings = Knowledge::Template(&template).warnings();
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].contains("mystery2"), "{warnings:?}");
        assert_eq!(Knowledge::Nothing.warnings().len(), 1);
        assert!(Knowledge::Gone.warnings().is_empty());
    }
}
