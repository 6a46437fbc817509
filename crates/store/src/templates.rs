//! Templates: the templates that WeChat lists for each app, and when the gateway asked WeChat.
//!
//! WeChat's list is authoritative, and this table is a copy. A template that WeChat does not list any more stays in the
//! table as gone, so that a request with that template gets an error that explains the refusal.

use std::{fmt, str::FromStr};

use chrono::{DateTime, Utc};
use domain::{
    app::AppId,
    id::TenantId,
    template::{Catalog, Template, TemplateKind},
};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
};

mod drift;
mod sync;

pub use drift::{Drift, TemplateChange};
pub use sync::{DueSync, Synced, TemplateList};
pub(crate) use sync::{begin, bump_revision, forget, make_due};

use crate::{
    Listing, Page, PlatformStore, StoreError, TenantStore,
    apps::value_rules,
    entity::{
        app,
        template::{Column, Entity, Model},
        template_sync,
    },
    error::unknown,
    messages::{json, to_json},
    timestamp::{millis, time},
};

/// A template of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownTemplate {
    /// The template as WeChat lists or last listed the template.
    pub template: Template,
    /// When a sync first found the template.
    pub created_at: DateTime<Utc>,
    /// When a sync last found the template changed, gone or restored.
    pub changed_at: DateTime<Utc>,
    /// Since when WeChat does not list the template.
    pub gone_at: Option<DateTime<Utc>>,
}

/// The state of the copy of an app's templates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateSync {
    /// When WeChat last answered with the templates, or `None` for never.
    pub synced_at: Option<DateTime<Utc>>,
    /// When the gateway last asked WeChat.
    pub tried_at: Option<DateTime<Utc>>,
    /// Why the last sync failed, or `None` where the last sync succeeded.
    pub failure: Option<String>,
    /// When the gateway asks WeChat next.
    pub due_at: DateTime<Utc>,
}

/// The templates of an app at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppCatalog {
    /// The tenant that owns the app.
    pub tenant: TenantId,
    /// The revision of the catalogue: a different number means a different catalogue.
    pub revision: i64,
    /// When the gateway last asked WeChat for the templates.
    pub tried_at: Option<DateTime<Utc>>,
    /// The templates, with the app's value rules.
    pub catalog: Catalog,
}

/// A position in a list of templates. The text form is `MILLIS.ID`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateCursor {
    created_at: i64,
    id: String,
}

/// The error for a text that is no position in a list of templates.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a cursor is `next_cursor` of the page before, unchanged")]
pub struct TemplateCursorFormat;

impl fmt::Display for TemplateCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.created_at, self.id)
    }
}

impl FromStr for TemplateCursor {
    type Err = TemplateCursorFormat;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (created_at, id) = text.split_once('.').ok_or(TemplateCursorFormat)?;
        Ok(Self {
            created_at: created_at.parse().map_err(|_| TemplateCursorFormat)?,
            id: id.to_owned(),
        })
    }
}

impl TenantStore {
    /// The templates of the tenant's app, newest first, with the templates that are gone.
    pub async fn templates(
        &self,
        appid: &AppId,
        page: &Page<TemplateCursor>,
    ) -> Result<Listing<KnownTemplate, TemplateCursor>, StoreError> {
        let mut wanted = Condition::all().add(Column::Appid.eq(appid.as_str()));
        if let Some(after) = &page.after {
            let twin = Condition::all()
                .add(Column::CreatedAt.eq(after.created_at))
                .add(Column::Id.gt(&after.id));
            wanted = wanted.add(
                Condition::any()
                    .add(Column::CreatedAt.lt(after.created_at))
                    .add(twin),
            );
        }
        self.template_sync(appid).await?;
        let rows = Entity::find()
            .filter(wanted)
            .order_by_desc(Column::CreatedAt)
            .order_by_asc(Column::Id)
            .limit(page.limit + 1)
            .all(self.store.read())
            .await?;
        let place = |row: &Model| TemplateCursor {
            created_at: row.created_at,
            id: row.id.clone(),
        };
        Listing::of(rows, page, place).try_map(KnownTemplate::try_from)
    }

    /// The state of the copy of the tenant's app's templates.
    pub async fn template_sync(&self, appid: &AppId) -> Result<TemplateSync, StoreError> {
        let row = template_sync::Entity::find_by_id(appid.as_str())
            .filter(template_sync::Column::TenantId.eq(self.tenant.uuid()))
            .one(self.store.read())
            .await?;
        Ok(row.ok_or(StoreError::NotFound("app"))?.into())
    }
}

impl PlatformStore {
    /// The revision of an app's catalogue, by one lookup by key; `None` where the app does not exist.
    pub async fn catalog_revision(&self, appid: &AppId) -> Result<Option<i64>, StoreError> {
        let revision = template_sync::Entity::find_by_id(appid.as_str())
            .select_only()
            .column(template_sync::Column::Revision)
            .into_tuple()
            .one(self.store.read())
            .await?;
        Ok(revision)
    }

    /// An app's catalogue; `None` where the app does not exist.
    pub async fn catalog(&self, appid: &AppId) -> Result<Option<AppCatalog>, StoreError> {
        // Read the revision first: rows newer than the revision are read again, rows older than the revision would stay
        // cached.
        let sync = template_sync::Entity::find_by_id(appid.as_str())
            .one(self.store.read())
            .await?;
        let Some(sync) = sync else {
            return Ok(None);
        };
        let rules: Option<String> = app::Entity::find_by_id(appid.as_str())
            .select_only()
            .column(app::Column::ValueRules)
            .into_tuple()
            .one(self.store.read())
            .await?;
        let rules = rules.map(|word| value_rules(&word)).transpose()?;
        let known = all(self.store.read(), appid.as_str()).await?;
        let entries = known
            .into_iter()
            .map(|known| (known.template, known.gone_at.is_some()));
        Ok(Some(AppCatalog {
            tenant: sync.tenant_id.into(),
            revision: sync.revision,
            tried_at: sync.tried_at.map(time),
            catalog: Catalog::new(entries, sync.synced_at.is_some() && sync.failure.is_none())
                .with_rules(rules.unwrap_or_default()),
        }))
    }
}

/// All templates of an app.
async fn all(place: &impl ConnectionTrait, appid: &str) -> Result<Vec<KnownTemplate>, StoreError> {
    let rows = Entity::find()
        .filter(Column::Appid.eq(appid))
        .all(place)
        .await?;
    rows.into_iter().map(KnownTemplate::try_from).collect()
}

impl TryFrom<Model> for KnownTemplate {
    type Error = StoreError;

    fn try_from(row: Model) -> Result<Self, StoreError> {
        let kind =
            TemplateKind::parse(&row.kind).ok_or_else(|| unknown("template.kind", &row.kind))?;
        Ok(Self {
            template: Template {
                id: row.id,
                kind,
                title: row.title,
                content: row.content,
                example: row.example,
                values: json(&row.key_values, "template.key_values")?,
            },
            created_at: time(row.created_at),
            changed_at: time(row.changed_at),
            gone_at: row.gone_at.map(time),
        })
    }
}

impl KnownTemplate {
    fn row(self, appid: &str) -> Result<Model, StoreError> {
        let Template {
            id,
            kind,
            title,
            content,
            example,
            values,
        } = self.template;
        Ok(Model {
            appid: appid.to_owned(),
            id,
            kind: kind.as_str().to_owned(),
            title,
            content,
            example,
            key_values: to_json(&values, "template.key_values")?,
            created_at: millis(self.created_at),
            changed_at: millis(self.changed_at),
            gone_at: self.gone_at.map(millis),
        })
    }
}

impl From<template_sync::Model> for TemplateSync {
    fn from(row: template_sync::Model) -> Self {
        Self {
            synced_at: row.synced_at.map(time),
            tried_at: row.tried_at.map(time),
            failure: row.failure,
            due_at: time(row.due_at),
        }
    }
}
