//! Templates in answers.

use delivery::TemplatesSynced;
use domain::template_value;
use serde::Serialize;
use store::{KnownTemplate, Listing, TemplateChange, TemplateCursor, TemplateSync};
use utoipa::ToSchema;

use super::{
    page::Listed,
    time::Timestamp,
    words::{Channel, TemplateKind},
};
use crate::cursor;

/// A template of an app, as WeChat lists or last listed the template.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Template {
    /// The template's id in the account.
    #[serde(rename = "template_id")]
    #[schema(example = "8-VxnRzHxkMVwBSkPGXFUNkRDfMlAqV0P1nVTW4Zx9k")]
    id: String,
    kind: TemplateKind,
    /// The channel of the template's messages.
    channel: Channel,
    /// `gone`: WeChat no longer lists the template, and the gateway refuses messages of this template.
    state: TemplateState,
    #[schema(example = "订单发货通知")]
    title: String,
    /// The lines of the template.
    #[schema(example = "商品名称:{{thing2.DATA}}\n")]
    content: String,
    /// The lines with example values.
    #[schema(example = "商品名称:保温杯\n")]
    example: String,
    /// The keys that a message fills in `data`.
    keys: Vec<TemplateKey>,
    /// When the gateway first found the template.
    created_at: Timestamp,
    /// When the gateway last found a difference: changed, gone, or back.
    changed_at: Timestamp,
    /// When the gateway found the template gone; null: WeChat lists the template.
    #[schema(required = true)]
    gone_at: Option<Timestamp>,
}

/// Whether messages of a template can be sent.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TemplateState {
    /// WeChat lists the template.
    Active,
    /// WeChat no longer lists the template.
    Gone,
}

/// A key of a template.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TemplateKey {
    #[schema(example = "thing2")]
    name: String,
    /// The type that limits the key's value; null: values of this template have no types.
    #[schema(required = true, example = "thing")]
    r#type: Option<String>,
    /// The rule for the value; null: the gateway knows no rule, and checks nothing.
    #[schema(required = true, example = "at most 20 characters")]
    rule: Option<&'static str>,
    /// The permitted values, if WeChat lists values for this key.
    #[schema(required = true)]
    values: Option<Vec<String>>,
}

impl From<KnownTemplate> for Template {
    fn from(known: KnownTemplate) -> Self {
        let template = known.template;
        let is_typed = template.kind != domain::template::TemplateKind::FormId;
        let keys = template.keys().map(|key| TemplateKey {
            name: key.to_owned(),
            r#type: is_typed.then(|| {
                key.trim_end_matches(|c: char| c.is_ascii_digit())
                    .to_owned()
            }),
            rule: template_value::rule(key).filter(|_| is_typed),
            values: template.values.get(key).cloned(),
        });
        Self {
            keys: keys.collect(),
            id: template.id,
            kind: template.kind.into(),
            channel: template.kind.channel().into(),
            state: if known.gone_at.is_some() {
                TemplateState::Gone
            } else {
                TemplateState::Active
            },
            title: template.title,
            content: template.content,
            example: template.example,
            created_at: known.created_at.into(),
            changed_at: known.changed_at.into(),
            gone_at: known.gone_at.map(Into::into),
        }
    }
}

/// One page of an app's templates, newest first, with the age of this copy of WeChat's list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TemplatesPage {
    /// The templates, gone templates included.
    data: Vec<Template>,
    /// Send this text as `cursor` for the next page; null: this is the last page.
    #[schema(required = true)]
    next_cursor: Option<String>,
    /// When the gateway last got the list from WeChat; null: never, so messages are not checked against templates.
    #[schema(required = true)]
    synced_at: Option<Timestamp>,
    /// Why the last sync failed; null: the last sync succeeded, or none was made yet.
    #[schema(required = true)]
    sync_failure: Option<String>,
    /// When the next sync is due.
    next_sync_at: Timestamp,
}

impl TemplatesPage {
    pub(crate) fn of(listing: Listing<KnownTemplate, TemplateCursor>, sync: TemplateSync) -> Self {
        Self {
            data: listing.items.into_iter().map(Into::into).collect(),
            next_cursor: listing.next.map(|key| cursor::encode(Template::LIST, &key)),
            synced_at: sync.synced_at.map(Into::into),
            sync_failure: sync.failure,
            next_sync_at: sync.due_at.into(),
        }
    }
}

/// The differences that a sync found.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SyncResult {
    synced_at: Timestamp,
    /// Templates that are new.
    added: usize,
    /// Templates with other words, keys or lists of values.
    changed: usize,
    /// Templates that WeChat no longer lists.
    gone: usize,
    /// Templates that WeChat lists again.
    restored: usize,
}

impl From<TemplatesSynced> for SyncResult {
    fn from(synced: TemplatesSynced) -> Self {
        let count = |change: TemplateChange| {
            let drifts = synced.news.drifts.iter();
            drifts.filter(|drift| drift.change == change).count()
        };
        Self {
            synced_at: synced.synced_at.into(),
            added: synced.news.added,
            changed: count(TemplateChange::Changed),
            gone: count(TemplateChange::Gone),
            restored: count(TemplateChange::Restored),
        }
    }
}
