//! Chooses the apps that are due for a template sync, and records the results.
//!
//! A replica reserves due apps by moving `template_sync.due_at` (`FOR UPDATE SKIP LOCKED`), so one replica asks WeChat
//! about an app. When the lease of a dead replica ends, the app is due again for any replica. The comparison with the
//! stored templates, the webhook events and the audit lines of the drift commit in one transaction.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use domain::{
    app::{AppId, AppKind},
    id::TenantId,
    message::Channel,
    template::Template,
};
use sea_orm::{
    ActiveModelTrait,
    ActiveValue::Set,
    ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, QueryFilter, QueryOrder,
    QuerySelect,
    sea_query::{Expr, ExprTrait, LockBehavior, LockType, OnConflict},
};

use super::{Drift, all, drift::Difference};
use crate::{
    NewApp, NewAuditLine, PlatformStore, StoreError,
    apps::{kind_text, parse_kind},
    entity::{
        template,
        template_sync::{ActiveModel, Column, Entity, Model},
    },
    error::unknown,
    queue,
    timestamp::millis,
};

/// The delay of an app's first sync while the AppSecret is not verified: the AppSecret may still be wrong.
const UNPROVEN: chrono::TimeDelta = chrono::TimeDelta::hours(1);

/// An app that is due for a template sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueSync {
    /// The tenant that owns the app.
    pub tenant: TenantId,
    /// The app.
    pub appid: AppId,
    /// The kind of the app: mini-programs and official accounts have different lists.
    pub kind: AppKind,
}

/// One of WeChat's lists, complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateList {
    /// The channel of the templates in the list.
    pub channel: Channel,
    /// The templates in the list.
    pub templates: Vec<Template>,
}

/// The result of a sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synced {
    /// The number of new templates.
    pub added: usize,
    /// The templates that have changed.
    pub drifts: Vec<Drift>,
    /// The number of known templates of lists that WeChat now returns empty. Such a list is accepted only in a sync by
    /// hand.
    pub doubted: usize,
    /// The number of endpoints that get an event.
    pub told: usize,
}

impl PlatformStore {
    /// Claims at most `limit` apps that are due for a template sync. No other replica claims these apps before `until`.
    pub async fn claim_template_syncs(
        &self,
        limit: u64,
        now: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Result<Vec<DueSync>, StoreError> {
        let due = || {
            Entity::find()
                .filter(Column::DueAt.lte(millis(now)))
                .order_by_asc(Column::DueAt)
        };
        // Most calls find nothing, and then take no lock.
        if due().limit(1).one(self.store.read()).await?.is_none() {
            return Ok(Vec::new());
        }
        let tx = self.store.begin_batch().await?;
        let rows = due()
            .limit(limit)
            .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
            .all(&tx)
            .await?;
        Entity::update_many()
            .col_expr(Column::DueAt, Expr::value(millis(until)))
            .filter(Column::Appid.is_in(rows.iter().map(|row| row.appid.as_str())))
            .exec(&tx)
            .await?;
        tx.commit().await?;
        rows.into_iter().map(DueSync::try_from).collect()
    }

    /// The sync of one app, due or not.
    pub async fn template_sync_of(&self, appid: &AppId) -> Result<DueSync, StoreError> {
        let row = Entity::find_by_id(appid.as_str())
            .one(self.store.read())
            .await?;
        row.ok_or(StoreError::NotFound("app"))?.try_into()
    }

    /// Stores WeChat's lists, and sends the tenant an event for each changed template. `record` is set for a sync by
    /// hand.
    pub async fn record_templates(
        &self,
        appid: &AppId,
        lists: Vec<TemplateList>,
        record: Option<NewAuditLine>,
        due_at: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<Synced, StoreError> {
        let mut tx = self.store.begin_batch().await?;
        let row = locked(&tx, appid).await?;
        let tenant: TenantId = row.tenant_id.into();
        let known: HashMap<_, _> = all(&tx, appid.as_str())
            .await?
            .into_iter()
            .map(|known| (known.template.id.clone(), known))
            .collect();
        let mut difference = Difference::default();
        for list in lists {
            difference.add(list, &known, record.is_some(), now);
        }
        let Difference {
            added,
            drifts,
            write,
            doubted,
        } = difference;
        let failure = (doubted > 0).then(|| {
            format!(
                "WeChat lists none of the {doubted} templates of the last list: start a sync by hand if they are deleted"
            )
        });
        let is_news = !write.is_empty() || failure != row.failure || row.synced_at.is_none();
        for known in write {
            keep(&tx, known.row(appid.as_str())?).await?;
        }
        if let Some(line) = record {
            tx.add_line(Some(tenant), line, now);
        }
        let mut told = 0;
        for drift in &drifts {
            tx.add_line(Some(tenant), drift.line(appid), now);
            let event = drift.event(appid, now);
            told += queue::events::tell_event(&tx, tenant, &event, now).await?;
        }
        let change = ActiveModel {
            revision: Set(row.revision + i64::from(is_news)),
            synced_at: Set(Some(millis(now))),
            tried_at: Set(Some(millis(now))),
            failure: Set(failure),
            due_at: Set(millis(due_at)),
            ..row.into_active_model()
        };
        change.update(&tx).await?;
        tx.commit().await?;
        Ok(Synced {
            added,
            drifts,
            doubted,
            told,
        })
    }

    /// Records that WeChat did not return an app's templates, and why.
    pub async fn record_template_failure(
        &self,
        appid: &AppId,
        failure: &str,
        due_at: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let tx = self.store.begin_batch().await?;
        let row = locked(&tx, appid).await?;
        let change = ActiveModel {
            revision: Set(row.revision + i64::from(row.failure.is_none())),
            tried_at: Set(Some(millis(now))),
            failure: Set(Some(failure.to_owned())),
            due_at: Set(millis(due_at)),
            ..row.into_active_model()
        };
        change.update(&tx).await?;
        tx.commit().await
    }
}

/// Schedules the first sync of a new app: at once where WeChat has accepted the AppSecret.
pub(crate) async fn begin(
    tx: &impl ConnectionTrait,
    tenant: TenantId,
    new: &NewApp,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let first = if new.verified_at.is_some() {
        now
    } else {
        now + UNPROVEN
    };
    let row = Model {
        appid: new.appid.as_str().to_owned(),
        tenant_id: tenant.uuid(),
        kind: kind_text(new.kind).to_owned(),
        // The time, so that the revision differs from the revision of an earlier app with this appid.
        revision: millis(now),
        synced_at: None,
        tried_at: None,
        failure: None,
        due_at: millis(first),
    };
    Entity::insert(ActiveModel::from(row))
        .exec_without_returning(tx)
        .await?;
    Ok(())
}

/// Makes an app's sync due at once, after WeChat has accepted the AppSecret again.
pub(crate) async fn make_due(
    place: &impl ConnectionTrait,
    appid: &AppId,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    Entity::update_many()
        .col_expr(Column::DueAt, Expr::value(millis(now)))
        .filter(Column::Appid.eq(appid.as_str()))
        .filter(Column::DueAt.gt(millis(now)))
        .exec(place)
        .await?;
    Ok(())
}

/// Makes every replica read the app's catalogue again after a change of the app's settings.
pub(crate) async fn bump_revision(
    tx: &impl ConnectionTrait,
    appid: &AppId,
) -> Result<(), StoreError> {
    Entity::update_many()
        .col_expr(Column::Revision, Expr::col(Column::Revision).add(1))
        .filter(Column::Appid.eq(appid.as_str()))
        .exec(tx)
        .await?;
    Ok(())
}

/// Deletes the templates of an app that is removed.
pub(crate) async fn forget(tx: &impl ConnectionTrait, appid: &str) -> Result<(), StoreError> {
    template::Entity::delete_many()
        .filter(template::Column::Appid.eq(appid))
        .exec(tx)
        .await?;
    Entity::delete_by_id(appid).exec(tx).await?;
    Ok(())
}

/// The app's row, locked until the end of the transaction.
async fn locked(tx: &impl ConnectionTrait, appid: &AppId) -> Result<Model, StoreError> {
    let row = Entity::find_by_id(appid.as_str())
        .lock_exclusive()
        .one(tx)
        .await?;
    row.ok_or(StoreError::NotFound("app"))
}

async fn keep(tx: &impl ConnectionTrait, row: template::Model) -> Result<(), StoreError> {
    use template::Column as C;
    let mut replace = OnConflict::columns([C::Appid, C::Id]);
    replace.update_columns([
        C::Kind,
        C::Title,
        C::Content,
        C::Example,
        C::KeyValues,
        C::ChangedAt,
        C::GoneAt,
    ]);
    template::Entity::insert(template::ActiveModel::from(row))
        .on_conflict(replace)
        .exec_without_returning(tx)
        .await?;
    Ok(())
}

impl TryFrom<Model> for DueSync {
    type Error = StoreError;

    fn try_from(row: Model) -> Result<Self, StoreError> {
        Ok(Self {
            tenant: row.tenant_id.into(),
            appid: AppId::parse(row.appid.as_str())
                .map_err(|_| unknown("template_sync.appid", &row.appid))?,
            kind: parse_kind(&row.kind)?,
        })
    }
}
