//! Templates on the wire.

use delivery::{Change, KnownTemplate, Listing, TemplateCursor, TemplateSync, TemplatesSynced};
use domain::template_value;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    page::Listed,
    time::Timestamp,
    words::{Channel, TemplateKind},
};
use crate::cursor;

/// A template of an app, as WeChat lists it or last listed it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Template {
    /// Its id in the account.
    #[serde(rename = "template_id")]
    #[schema(example = "8-VxnRzHxkMVwBSkPGXFUNkRDfMlAqV0P1nVTW4Zx9k")]
    id: String,
    kind: TemplateKind,
    /// The channel that its messages take.
    channel: Channel,
    /// `gone`: WeChat lists it no more, and messages that name it are refused.
    state: TemplateState,
    #[schema(example = "订单发货通知")]
    title: String,
    /// Its lines.
    #[schema(example = "商品名称:{{thing2.DATA}}\n")]
    content: String,
    /// The same with example values.
    #[schema(example = "商品名称:保温杯\n")]
    example: String,
    /// What its messages say in `data`.
    keys: Vec<TemplateKey>,
    /// When it was first seen.
    created_at: Timestamp,
    /// When it was last seen to be another: changed, gone, or back.
    changed_at: Timestamp,
    /// Since when it is gone.
    #[schema(required = true)]
    gone_at: Option<Timestamp>,
}

/// Whether a template can be sent.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TemplateState {
    /// WeChat lists it.
    Active,
    /// WeChat lists it no more.
    Gone,
}

/// A key of a template.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TemplateKey {
    #[schema(example = "thing2")]
    name: String,
    /// The type that limits its value; null: values of this template have no types.
    #[schema(required = true, example = "thing")]
    r#type: Option<String>,
    /// What a value must be; null: the gateway knows no rule, and checks nothing.
    #[schema(required = true, example = "at most 20 characters")]
    rule: Option<&'static str>,
    /// The values that it may take, where WeChat lists them.
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

/// One page of an app's templates, newest first, and how old this copy of WeChat's list is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TemplatesPage {
    /// The templates, those that are gone among them.
    data: Vec<Template>,
    /// Send it as `cursor` for the next page; null: this was the last one.
    #[schema(required = true)]
    next_cursor: Option<String>,
    /// When WeChat last told them; null: never, so messages are not checked against them.
    #[schema(required = true)]
    synced_at: Option<Timestamp>,
    /// Why WeChat did not tell them when it was last asked; null: it did, or was not asked yet.
    #[schema(required = true)]
    sync_failure: Option<String>,
    /// When it is asked again.
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

/// What a sync found.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SyncResult {
    synced_at: Timestamp,
    /// Templates that were not known.
    added: usize,
    /// Templates with other words, keys or lists of values.
    changed: usize,
    /// Templates that WeChat lists no more.
    gone: usize,
    /// Templates that WeChat lists again.
    restored: usize,
}

impl From<TemplatesSynced> for SyncResult {
    fn from(synced: TemplatesSynced) -> Self {
        let count = |change: Change| {
            let drifts = synced.news.drifts.iter();
            drifts.filter(|drift| drift.change == change).count()
        };
        Self {
            synced_at: synced.synced_at.into(),
            added: synced.news.added,
            changed: count(Change::Changed),
            gone: count(Change::Gone),
            restored: count(Change::Restored),
        }
    }
}
