//! The template catalogue: the templates of apps in memory, for intake.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use coord::Clock;
use domain::{app::AppId, id::TenantId, template::Catalog};
use moka::future::Cache;
use store::{AppCatalog, Store, StoreError};

/// How long a look at the database is used: a change by one replica reaches all others within this time. A look reads
/// one row by its key, whatever the size of the app.
const FRESH: Duration = Duration::from_secs(3);
/// How long a message waits for the database before the result of the last look is used.
const PATIENCE: Duration = Duration::from_secs(1);
/// The capacity of the cache in bytes. An app has some 20 KiB at most.
const ROOM: u64 = 64 << 20;

pub(super) struct CatalogCache {
    store: Store,
    clock: Clock,
    kept: Cache<AppId, CatalogRead>,
}

/// The result of one look at the database.
#[derive(Clone)]
struct CatalogRead {
    /// `None`: there is no such app, or the database has not answered yet.
    found: Option<CatalogLookup>,
    /// When the database was last asked, with or without an answer.
    asked_at: DateTime<Utc>,
}

#[derive(Clone)]
struct CatalogLookup {
    tenant: TenantId,
    revision: i64,
    known: CachedCatalog,
}

/// The templates of an app, as this replica knows them.
#[derive(Clone, Default)]
pub(super) struct CachedCatalog {
    pub(super) catalog: Arc<Catalog>,
    /// When WeChat was last asked for the templates. WeChat may have been asked again since.
    pub(super) tried_at: Option<DateTime<Utc>>,
}

impl CatalogCache {
    pub(super) fn new(store: Store, clock: Clock) -> Self {
        let weigh = |_: &AppId, kept: &CatalogRead| {
            let weight = kept
                .found
                .as_ref()
                .map_or(64, |found| found.known.catalog.weight());
            u32::try_from(weight).unwrap_or(u32::MAX)
        };
        Self {
            store,
            clock,
            kept: Cache::builder().max_capacity(ROOM).weigher(weigh).build(),
        }
    }

    /// The templates of the tenant's app. Empty if the tenant has no such app.
    pub(super) async fn catalog(&self, tenant: TenantId, appid: &AppId) -> CachedCatalog {
        match self.found(appid).await {
            Some(found) if found.tenant == tenant => found.known,
            _ => CachedCatalog::default(),
        }
    }

    /// The templates of the app, whichever tenant has the app.
    pub(super) async fn of_any(&self, appid: &AppId) -> CachedCatalog {
        let found = self.found(appid).await;
        found.map(|found| found.known).unwrap_or_default()
    }

    async fn found(&self, appid: &AppId) -> Option<CatalogLookup> {
        let now = self.clock.now();
        let last = self.kept.get(appid).await;
        let kept = match last {
            Some(last) if within(last.asked_at, now) => last,
            last => {
                let stale = |kept: &CatalogRead| !within(kept.asked_at, now);
                // All messages that find the entry outdated wait for one look.
                self.kept
                    .entry(appid.clone())
                    .or_insert_with_if(self.look(appid, last, now), stale)
                    .await
                    .into_value()
            }
        };
        kept.found
    }

    /// Drops the cached entry, so that the next answer comes from the database.
    pub(super) async fn forget(&self, appid: &AppId) {
        self.kept.invalidate(appid).await;
    }

    async fn look(
        &self,
        appid: &AppId,
        last: Option<CatalogRead>,
        now: DateTime<Utc>,
    ) -> CatalogRead {
        let last = last.and_then(|last| last.found);
        let looked = tokio::time::timeout(PATIENCE, self.read(appid, last.as_ref())).await;
        let found = match looked {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                tracing::warn!(%appid, %error, "cannot look up an app's templates: using the last known templates");
                last
            }
            Err(_) => {
                tracing::warn!(%appid, "cannot look up an app's templates, the database is slow: using the last known templates");
                last
            }
        };
        CatalogRead {
            found,
            asked_at: now,
        }
    }

    async fn read(
        &self,
        appid: &AppId,
        last: Option<&CatalogLookup>,
    ) -> Result<Option<CatalogLookup>, StoreError> {
        let platform = self.store.platform();
        if let Some(last) = last {
            let revision = platform.catalog_revision(appid).await?;
            if revision == Some(last.revision) {
                return Ok(Some(last.clone()));
            }
        }
        let read = platform.catalog(appid).await?;
        Ok(read.map(|read| {
            let AppCatalog {
                tenant,
                revision,
                tried_at,
                catalog,
            } = read;
            CatalogLookup {
                tenant,
                revision,
                known: CachedCatalog {
                    catalog: Arc::new(catalog),
                    tried_at,
                },
            }
        }))
    }
}

/// Whether `then` is at most [`FRESH`] ago. False for a future time: the clock was set back.
fn within(then: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    (now - then).to_std().is_ok_and(|age| age < FRESH)
}
