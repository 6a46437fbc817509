//! Templates: known here as WeChat lists them, so that a message that cannot be sent is refused before it costs a grant
//! or quota.
//!
//! The *syncer* asks WeChat for the templates of every app, after the registration and every six hours. One replica at
//! a time does this for an app. The *shelf* is the template catalogue: the database's knowledge, cached in memory.
//! Messages are checked against the catalogue before intake: `domain::message::Request::check_against`.

use std::{collections::HashMap, sync::Arc, time::Duration};

use broker::BrokerError;
use chrono::{DateTime, Utc};
use coord::RateLimit;
use dashmap::DashMap;
use domain::{
    app::{AppId, AppKind},
    id::TenantId,
    message::{Channel, Draft, Unfit},
    template::{Catalog, Knowledge, Template},
};
use store::{
    DueSync, IdempotencyKey, KnownTemplate, Listing, NewAuditLine, Origin, Page, Synced,
    TemplateCursor, TemplateList, TemplateSync,
};
use tokio::sync::Mutex;
use wechat::CallError;

mod catalog_cache;
mod syncer;

pub(crate) use syncer::Syncer;

use self::catalog_cache::{CachedCatalog, CatalogCache};
use crate::{
    apps::{AppError, quota_refusal, refusal},
    parts::Parts,
    submit::SubmitError,
    topic,
};

/// The interval at which WeChat is asked for the templates of an app.
const EVERY: Duration = Duration::from_hours(6);
/// The wait after WeChat gave no answer.
const AFTER_FAILURE: Duration = Duration::from_mins(30);
/// How often at most WeChat is asked because a message names a template that WeChat does not list.
const LOOK_AGAIN: Duration = Duration::from_mins(1);
/// How often a minute an app's templates may be synced by hand. WeChat allows few of these calls a day.
const BY_HAND: u32 = 6;
/// The `retry_after` where WeChat did not answer.
const AFTER_SILENCE: Duration = Duration::from_secs(10);

/// The failure text where WeChat refuses a template that WeChat lists.
pub(crate) const LISTED_AND_REFUSED: &str = "WeChat lists this template but refuses to send with this template: check \
    in WeChat's console whether the template is blocked, sync the app's templates, and retry the message";

/// The result of a sync by hand.
#[derive(Clone, Debug)]
pub struct TemplatesSynced {
    /// When WeChat listed the templates.
    pub synced_at: DateTime<Utc>,
    /// The changes since the last sync.
    pub news: Synced,
}

/// The templates of apps. Cheap to clone.
#[derive(Clone)]
pub struct Templates(Arc<Inner>);

struct Inner {
    parts: Parts,
    catalog_cache: CatalogCache,
    /// One lock for each app that is being synced because of a message: all other messages wait for that sync.
    looking: DashMap<AppId, Arc<Mutex<()>>>,
}

impl Templates {
    pub(crate) fn new(parts: &Parts) -> Self {
        Self(Arc::new(Inner {
            parts: parts.clone(),
            catalog_cache: CatalogCache::new(parts.store.clone(), parts.coord.clock().clone()),
            looking: DashMap::new(),
        }))
    }

    /// The templates of the tenant's app, as far as known: from memory, at most seconds old. WeChat is asked again if a
    /// message names a template that WeChat does not list, or if WeChat listed none, once a minute at most.
    pub async fn catalog<'a>(
        &self,
        tenant: TenantId,
        appid: &AppId,
        wanted: impl IntoIterator<Item = (Channel, &'a str)>,
    ) -> Arc<Catalog> {
        let CachedCatalog { catalog, tried_at } = self.0.catalog_cache.catalog(tenant, appid).await;
        let is_time = may_look_again(tried_at, self.0.parts.coord.clock().now());
        let doubtful = wanted.into_iter().any(|(channel, id)| {
            let knowledge = catalog.look_up(channel, id);
            knowledge.maybe_used() || (is_time && knowledge.may_be_outdated())
        });
        if !doubtful {
            return catalog;
        }
        self.look_again(tenant, appid).await;
        self.0.catalog_cache.catalog(tenant, appid).await.catalog
    }

    /// Drops the cached templates of the app, because the app's settings have changed.
    pub async fn forget(&self, appid: &AppId) {
        self.0.catalog_cache.forget(appid).await;
    }

    /// Whether WeChat lists the template among those of the app, as far as known.
    pub(crate) async fn lists(&self, appid: &AppId, channel: Channel, id: &str) -> bool {
        let known = self.0.catalog_cache.of_any(appid).await;
        matches!(known.catalog.look_up(channel, id), Knowledge::Template(_))
    }

    /// The draft of a checked message. A message that does not fit its template any more is still admitted if its
    /// idempotency key was used before: the message was accepted then, and gets the same answer again.
    pub async fn admit(
        &self,
        tenant: TenantId,
        checked: Result<Draft, Unfit>,
        key: Option<&IdempotencyKey>,
    ) -> Result<Draft, SubmitError> {
        let unfit = match checked {
            Ok(draft) => return Ok(draft),
            Err(unfit) => unfit,
        };
        match (unfit.otherwise, key) {
            (Some(draft), Some(key)) if self.knows_key(tenant, key).await? => Ok(*draft),
            _ => Err(SubmitError::Violations(unfit.violations)),
        }
    }

    async fn knows_key(&self, tenant: TenantId, key: &IdempotencyKey) -> Result<bool, SubmitError> {
        let (store, now) = (&self.0.parts.store, self.0.parts.coord.clock().now());
        Ok(store.tenant(tenant).knows_key(key, now).await?)
    }

    /// The templates of the tenant's app, newest first, and the state of their sync.
    pub async fn list(
        &self,
        tenant: TenantId,
        appid: &AppId,
        page: &Page<TemplateCursor>,
    ) -> Result<(Listing<KnownTemplate, TemplateCursor>, TemplateSync), AppError> {
        let door = self.0.parts.store.tenant(tenant);
        let listing = door.templates(appid, page).await?;
        Ok((listing, door.template_sync(appid).await?))
    }

    /// Asks WeChat for the templates of the tenant's app now, at the request of `origin`.
    pub async fn sync(
        &self,
        tenant: TenantId,
        appid: &AppId,
        origin: &Origin,
    ) -> Result<TemplatesSynced, AppError> {
        let parts = &self.0.parts;
        parts.store.tenant(tenant).template_sync(appid).await?;
        let key = format!("templates sync {appid}");
        let asked = parts
            .coord
            .limits()
            .check(&key, RateLimit::per_minute(BY_HAND), 1)
            .await;
        if let Ok(decision) = asked
            && !decision.allowed
        {
            return Err(AppError::TooOften {
                retry_after: decision.retry_after,
                detail: "the app's templates were synced several times within the last minute"
                    .to_owned(),
            });
        }
        let due = parts.store.platform().template_sync_of(appid).await?;
        let line = origin.did("templates.sync", appid);
        self.0.ask(&due, Some(line)).await
    }

    /// Syncs the templates of an app that is due for a sync.
    async fn sync_due(&self, due: &DueSync) {
        match self.0.ask(due, None).await {
            Ok(_) => {}
            Err(AppError::NotFound) => {
                tracing::debug!(appid = %due.appid, "an app was removed before its templates were known");
            }
            Err(error) => {
                tracing::info!(appid = %due.appid, %error, "cannot get an app's templates from WeChat; trying again later");
            }
        }
    }

    /// Asks WeChat, unless another replica or message has done so within the minute.
    async fn look_again(&self, tenant: TenantId, appid: &AppId) {
        let turn = self.0.looking.entry(appid.clone()).or_default().clone();
        let held = turn.lock().await;
        let (store, now) = (&self.0.parts.store, self.0.parts.coord.clock().now());
        let state = match store.tenant(tenant).template_sync(appid).await {
            Ok(state) => state,
            Err(error) => {
                tracing::debug!(%appid, %error, "cannot read when templates were synced");
                return;
            }
        };
        if may_look_again(state.tried_at, now) {
            match store.platform().template_sync_of(appid).await {
                Ok(due) => self.sync_due(&due).await,
                Err(error) => tracing::debug!(%appid, %error, "cannot sync templates"),
            }
        }
        self.0.catalog_cache.forget(appid).await;
        drop(held);
        self.0
            .looking
            .remove_if(appid, |_, turn| Arc::strong_count(turn) <= 2);
    }
}

impl Inner {
    /// Asks WeChat and stores the answer, or the reason why there is none.
    async fn ask(
        &self,
        due: &DueSync,
        record: Option<NewAuditLine>,
    ) -> Result<TemplatesSynced, AppError> {
        let platform = self.parts.store.platform();
        let asked = self.fetch(due).await;
        let now = self.parts.coord.clock().now();
        let lists = match asked {
            Ok(lists) => lists,
            Err(error) => {
                let next = now + spread(AFTER_FAILURE);
                let words = in_words(&error);
                platform
                    .record_template_failure(&due.appid, &words, next, now)
                    .await?;
                self.catalog_cache.forget(&due.appid).await;
                self.parts.metrics.synced("failed");
                return Err(error);
            }
        };
        for template in lists.iter().flat_map(|list| &list.templates) {
            for key in template.unknown_keys() {
                tracing::warn!(appid = %due.appid, template = template.id, key, "the type of a template's key is not known: its values are not checked");
            }
        }
        let next = now + spread(EVERY);
        let news = platform
            .record_templates(&due.appid, lists, record, next, now)
            .await?;
        self.catalog_cache.forget(&due.appid).await;
        let outcome = if news.doubted > 0 {
            "doubted"
        } else {
            "synced"
        };
        self.parts.metrics.synced(outcome);
        for drift in &news.drifts {
            let (template, change) = (&drift.after.id, drift.change.as_str());
            tracing::info!(appid = %due.appid, template, change, "WeChat lists a template differently than before");
            self.parts.metrics.drifted(change);
        }
        if news.told > 0 {
            self.parts.coord.wakeups().wake(topic::WEBHOOKS, "");
        }
        Ok(TemplatesSynced {
            synced_at: now,
            news,
        })
    }

    /// All lists of the app.
    async fn fetch(&self, due: &DueSync) -> Result<Vec<TemplateList>, AppError> {
        let channels: &[Channel] = match due.kind {
            AppKind::MiniProgram => &[Channel::Subscribe, Channel::Template],
            AppKind::OfficialAccount => &[Channel::Official],
        };
        let mut lists = Vec::with_capacity(channels.len());
        for &channel in channels {
            match self.fetch_list(&due.appid, channel).await {
                Ok(templates) => lists.push(TemplateList {
                    channel,
                    templates: distinct(templates),
                }),
                // WeChat withdrew this list in 2020, and says so in several ways.
                Err(error) if channel == Channel::Template => {
                    tracing::debug!(appid = %due.appid, %error, "no list of form-id templates");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(lists)
    }

    /// One list. If WeChat refuses the token, the call is repeated: with a fresh token, or with the same one if it is
    /// alive.
    async fn fetch_list(&self, appid: &AppId, channel: Channel) -> Result<Vec<Template>, AppError> {
        let (broker, client) = (&self.parts.broker, &self.parts.wechat);
        let token = broker.token(appid).await;
        let token = token.map_err(|error| self.no_token(&error))?;
        match client.templates(&token.value, channel).await {
            Err(CallError::StaleToken(_)) => {}
            answered => return answered.map_err(|error| self.unlisted(&error)),
        }
        let fresh = broker.stale(appid, token.generation).await;
        let fresh = fresh.map_err(|error| self.no_token(&error))?;
        let answered = client.templates(&fresh.value, channel).await;
        answered.map_err(|error| self.unlisted(&error))
    }

    fn unlisted(&self, error: &CallError) -> AppError {
        call_refusal(error, self.parts.coord.clock().now())
    }

    fn no_token(&self, error: &BrokerError) -> AppError {
        refusal(error, self.parts.coord.clock().now())
    }
}

/// Whether WeChat may be asked because of a message.
fn may_look_again(tried_at: Option<DateTime<Utc>>, now: DateTime<Utc>) -> bool {
    tried_at.is_none_or(|at| now >= at + LOOK_AGAIN)
}

/// Why WeChat listed no templates, for the owner of the app.
fn in_words(error: &AppError) -> String {
    match error {
        AppError::Wechat {
            errcode, errmsg, ..
        } => format!("{error} (errcode {errcode}: {errmsg})"),
        _ => error.to_string(),
    }
}

/// Adds up to a twelfth, so that apps registered together are not synced together for ever.
fn spread(pause: Duration) -> Duration {
    pause + (pause / 12).mul_f64(rand::random())
}

/// Keeps the last template of each id.
fn distinct(templates: Vec<Template>) -> Vec<Template> {
    let by_id: HashMap<String, Template> = templates
        .into_iter()
        .map(|template| (template.id.clone(), template))
        .collect();
    by_id.into_values().collect()
}

fn call_refusal(error: &CallError, now: DateTime<Utc>) -> AppError {
    let cause = error.cause();
    if let Some(spent) = quota_refusal(cause, "calls for its templates", now, None) {
        return spent;
    }
    match cause.errcode {
        Some(errcode) => AppError::Wechat {
            errcode,
            errmsg: cause.errmsg.clone(),
            rid: cause.rid.clone(),
            by_its_owner: matches!(error, CallError::Blocked { .. }),
            advice: match error {
                CallError::Blocked { reason, .. } => reason.advice().to_owned(),
                CallError::StaleToken(_) => {
                    "WeChat refuses the app's access token twice: sync again later".to_owned()
                }
                CallError::Later { .. } | CallError::Refused(_) => {
                    "WeChat does not list the app's templates now: sync again later".to_owned()
                }
            },
        },
        None => AppError::WechatUnavailable {
            retry_after: AFTER_SILENCE,
            detail: cause.to_string(),
        },
    }
}
