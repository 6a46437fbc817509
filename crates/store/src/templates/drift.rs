//! Template drift: compares the templates that WeChat lists for an app with the stored copy.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use domain::{app::AppId, template::Template, webhook::EventType};
use serde_json::json;

use super::{KnownTemplate, TemplateList};
use crate::{AppEvent, NewAuditLine, Origin};

/// The kind of change of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TemplateChange {
    /// The title, the content or the lists of values have changed.
    Changed,
    /// WeChat does not list the template any more.
    Gone,
    /// WeChat lists the template again.
    Restored,
}

impl TemplateChange {
    /// The word in events and in the audit log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Gone => "gone",
            Self::Restored => "restored",
        }
    }
}

/// A template that has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift {
    /// The kind of change.
    pub change: TemplateChange,
    /// The template before the change.
    pub before: Template,
    /// The template after the change; the same as `before` where the template is gone.
    pub after: Template,
}

impl Drift {
    /// The webhook event for the tenant.
    pub(super) fn event(&self, appid: &AppId, now: DateTime<Utc>) -> AppEvent {
        let Self {
            change,
            before,
            after,
        } = self;
        let keys = |template: &Template| template.keys().map(str::to_owned).collect::<Vec<_>>();
        let data = json!({
            "appid": appid.as_str(),
            "template_id": after.id,
            "kind": after.kind.as_str(),
            "change": change.as_str(),
            "title": after.title,
            "previous_title": before.title,
            "keys": keys(after),
            "previous_keys": keys(before),
            "detail": self.detail(),
        });
        let what = format!("{appid} {}", after.id);
        AppEvent::about(EventType::TemplateChanged, &what, data, now)
    }

    /// The line for the tenant's audit log.
    pub(super) fn line(&self, appid: &AppId) -> NewAuditLine {
        let line = Origin::GATEWAY
            .did("template.changed", &self.after.id)
            .saying(format!("{appid}: {}", self.detail()));
        NewAuditLine {
            outcome: self.change.as_str().to_owned(),
            ..line
        }
    }

    fn detail(&self) -> String {
        let Self { before, after, .. } = self;
        match self.change {
            TemplateChange::Gone => "WeChat no longer lists the template: the gateway refuses messages with this template",
            TemplateChange::Restored => "WeChat lists the template again",
            TemplateChange::Changed if !before.keys().eq(after.keys()) => {
                "the keys of the template have changed: send messages with the new keys"
            }
            TemplateChange::Changed if before.values != after.values => {
                "the lists of allowed values of the template have changed: send only values of the new lists"
            }
            TemplateChange::Changed => "the text of the template has changed, the keys have not",
        }
        .to_owned()
    }
}

/// The differences between WeChat's lists and the known templates.
#[derive(Debug, Default)]
pub(super) struct Difference {
    /// The number of new templates.
    pub(super) added: usize,
    /// The changes of known templates.
    pub(super) drifts: Vec<Drift>,
    /// All rows to write.
    pub(super) write: Vec<KnownTemplate>,
    /// The number of known templates of lists that WeChat now returns empty. Such a list is not accepted.
    pub(super) doubted: usize,
}

impl Difference {
    /// Compares `list` with the app's `known` templates. An empty list counts only for a sync by hand.
    pub(super) fn add(
        &mut self,
        list: TemplateList,
        known: &HashMap<String, KnownTemplate>,
        by_hand: bool,
        now: DateTime<Utc>,
    ) {
        let of_list = || {
            known.values().filter(|known| {
                known.template.kind.channel() == list.channel && known.gone_at.is_none()
            })
        };
        if list.templates.is_empty() && !by_hand {
            self.doubted += of_list().count();
            return;
        }
        for gone in of_list().filter(|known| {
            list.templates
                .iter()
                .all(|template| template.id != known.template.id)
        }) {
            self.drift(TemplateChange::Gone, gone, gone.template.clone(), now);
        }
        for template in list.templates {
            match known.get(&template.id) {
                None => {
                    self.added += 1;
                    self.write.push(KnownTemplate {
                        template,
                        created_at: now,
                        changed_at: now,
                        gone_at: None,
                    });
                }
                Some(before) if before.gone_at.is_some() => {
                    self.drift(TemplateChange::Restored, before, template, now);
                }
                Some(before) if differs_for_senders(&before.template, &template) => {
                    self.drift(TemplateChange::Changed, before, template, now);
                }
                Some(before) if before.template != template => self.write.push(KnownTemplate {
                    template,
                    ..before.clone()
                }),
                Some(_) => {}
            }
        }
    }

    fn drift(
        &mut self,
        change: TemplateChange,
        before: &KnownTemplate,
        after: Template,
        now: DateTime<Utc>,
    ) {
        self.drifts.push(Drift {
            change,
            before: before.template.clone(),
            after: after.clone(),
        });
        self.write.push(KnownTemplate {
            template: after,
            created_at: before.created_at,
            changed_at: now,
            gone_at: (change == TemplateChange::Gone).then_some(now),
        });
    }
}

/// Whether a sender must know of the difference. A changed example does not count.
fn differs_for_senders(before: &Template, after: &Template) -> bool {
    let told = |template: &Template| {
        let Template {
            kind,
            title,
            content,
            values,
            ..
        } = template.clone();
        (kind.as_str(), title, content, values)
    };
    told(before) != told(after)
}
