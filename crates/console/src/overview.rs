//! The handlers of the pages, which read through the same entry points as the API.

use axum::{
    extract::{Path, Query, State},
    response::Response,
};
use chrono::{DateTime, Utc};
use domain::{app::AppId, id::TenantId, scope::Scope, tenant::TenantStatus};
use serde::Deserialize;
use store::{App, AppCursor, Message, MessageFilter, Page, Tenant};
use uuid::Uuid;

use crate::{
    ConsoleState, pages,
    refusal::{PageRefusal, page},
    session::SignedInVisitor,
};

/// The number of items on one page.
const SHOWN: u64 = 50;

/// The cursors of the next pages of lists.
#[derive(Deserialize)]
pub(crate) struct After {
    tenants: Option<Uuid>,
    apps: Option<String>,
}

impl After {
    fn apps(&self) -> Result<Page<AppCursor>, PageRefusal> {
        let after = self
            .apps
            .as_deref()
            .map(str::parse)
            .transpose()
            .map_err(|_| PageRefusal::NotFound)?;
        Ok(Page {
            limit: SHOWN,
            after,
        })
    }
}

/// All tenants and apps, or the apps of the visitor's tenant.
pub(crate) async fn front(
    State(state): State<ConsoleState>,
    visitor: SignedInVisitor,
    Query(after): Query<After>,
) -> Result<Response, PageRefusal> {
    let (mut tenants, mut more_tenants) = (None, None);
    if visitor.tenant().is_none() && visitor.require(Scope::Operator).is_ok() {
        let listing = state
            .tenancy
            .tenants(&Page {
                limit: SHOWN,
                after: after.tenants,
            })
            .await?;
        more_tenants = listing.next.map(|next| format!("/console?tenants={next}"));
        tenants = Some(listing.items.into_iter().map(tenant_row).collect());
    }
    // A key without the scope for apps may still show tenants. A key that shows neither gets the refusal.
    let lists_apps = visitor.require(Scope::AppsRead);
    let (apps, more_apps) = match lists_apps {
        Ok(()) => apps(&state, visitor.tenant(), &after.apps()?, "/console").await?,
        Err(_) if tenants.is_some() => (Vec::new(), None),
        Err(refusal) => return Err(refusal),
    };
    Ok(page(&pages::Overview {
        title: "Overview".to_owned(),
        tenants,
        more_tenants,
        apps,
        more_apps,
    }))
}

/// The apps of one tenant.
pub(crate) async fn tenant(
    State(state): State<ConsoleState>,
    visitor: SignedInVisitor,
    Path(id): Path<String>,
    Query(after): Query<After>,
) -> Result<Response, PageRefusal> {
    visitor.require(Scope::AppsRead)?;
    let id: TenantId = id.parse().map_err(|_| PageRefusal::NotFound)?;
    if visitor.tenant().is_some_and(|own| own != id) {
        return Err(PageRefusal::NotFound);
    }
    let tenant = state.tenancy.tenant(id).await?;
    let (apps, more_apps) = apps(
        &state,
        Some(id),
        &after.apps()?,
        &format!("/console/tenants/{id}"),
    )
    .await?;
    Ok(page(&pages::Overview {
        title: tenant.name,
        tenants: None,
        more_tenants: None,
        apps,
        more_apps,
    }))
}

/// One app and its latest messages.
pub(crate) async fn app(
    State(state): State<ConsoleState>,
    visitor: SignedInVisitor,
    Path(appid): Path<String>,
) -> Result<Response, PageRefusal> {
    visitor.require(Scope::AppsRead)?;
    let appid = AppId::parse(appid).map_err(|_| PageRefusal::NotFound)?;
    let app = state.delivery.apps().get(visitor.tenant(), &appid).await?;
    let messages = if visitor.require(Scope::MessagesRead).is_ok() {
        let latest = Page {
            limit: SHOWN,
            after: None,
        };
        let listing = state
            .delivery
            .messages(app.tenant, &appid, &MessageFilter::default(), &latest)
            .await?;
        Some(listing.items.into_iter().map(message_row).collect())
    } else {
        None
    };
    let verified = app.verified_at.map_or("never".to_owned(), time);
    let now = (state.now)();
    let app = app_row(&state, now, app).await?;
    Ok(page(&pages::AppPage {
        app,
        verified,
        messages,
    }))
}

async fn apps(
    state: &ConsoleState,
    tenant: Option<TenantId>,
    wanted: &Page<AppCursor>,
    path: &str,
) -> Result<(Vec<pages::AppRow>, Option<String>), PageRefusal> {
    let listing = state.delivery.apps().list(tenant, wanted).await?;
    let now = (state.now)();
    let mut rows = Vec::with_capacity(listing.items.len());
    for app in listing.items {
        rows.push(app_row(state, now, app).await?);
    }
    Ok((rows, listing.next.map(|next| format!("{path}?apps={next}"))))
}

/// Shows the gateway's own count of the day, because asking WeChat for every app of a list would spend the quota of the
/// apps.
async fn app_row(
    state: &ConsoleState,
    now: DateTime<Utc>,
    app: App,
) -> Result<pages::AppRow, PageRefusal> {
    let counted = state
        .store
        .tenant(app.tenant)
        .quota_use(&app.appid, now)
        .await?;
    let pause = app.pause.filter(|pause| pause.until > now);
    Ok(pages::AppRow {
        appid: app.appid.to_string(),
        name: app.name,
        tenant: app.tenant.to_string(),
        pause: pause.map(|pause| pages::PausePart {
            reason: pause.reason,
            detail: pause.detail.unwrap_or_default(),
            until: time(pause.until),
        }),
        pace: app.pace,
        used: counted.used,
        limit: counted.limit,
    })
}

fn tenant_row(tenant: Tenant) -> pages::TenantRow {
    pages::TenantRow {
        id: tenant.id.to_string(),
        name: tenant.name,
        active: tenant.status == TenantStatus::Active,
        created: time(tenant.created_at),
    }
}

fn message_row(message: Message) -> pages::MessageRow {
    let answered =
        message.attempts.last().map(
            |attempt| match (attempt.errcode, attempt.errmsg.as_deref()) {
                (Some(errcode), errmsg) => format!("{errcode} {}", errmsg.unwrap_or_default()),
                (None, errmsg) => errmsg.unwrap_or_default().to_owned(),
            },
        );
    pages::MessageRow {
        id: message.id.to_string(),
        created: time(message.created_at),
        status: message.status.as_str(),
        touser: message.touser,
        template: message.template_id,
        attempts: message.attempts.len(),
        said: message
            .failure
            .map(|failure| failure.detail)
            .or(answered)
            .unwrap_or_default(),
    }
}

fn time(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}
