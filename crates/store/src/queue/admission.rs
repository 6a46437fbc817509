//! Admission: whether an app can send a message, and can do so in time.

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use domain::{
    app::AppKind,
    grant::GrantPolicy,
    id::TenantId,
    message::{Channel, Draft, Priority},
    quota::{self, PriorityShares},
};
use sea_orm::{ConnectionTrait, DbBackend, FromQueryResult};
use uuid::Uuid;

use super::{
    grants,
    meter::day_number,
    sql::Sql,
    submission::{Received, Spent, Submission, Taken},
};
use crate::{StoreError, apps::parse_kind};

/// The facts that decide about the messages of an app.
#[derive(FromQueryResult)]
pub(super) struct AppFacts {
    appid: String,
    tenant_id: Uuid,
    kind: String,
    daily_quota: i64,
    quota_day: i64,
    quota_used: i64,
    grant_policy: String,
    counts_grants: i64,
    /// The most messages that the app's tenant may submit in one day.
    pub(super) messages_per_day: Option<i64>,
}

/// The apps of a batch, by appid.
pub(super) type AdmittedApps = HashMap<String, AppFacts>;

/// The properties of a message that admission needs.
pub(super) struct MessageProfile {
    pub(super) channel: Channel,
    pub(super) priority: Priority,
    pub(super) due_at: DateTime<Utc>,
    pub(super) expires_at: DateTime<Utc>,
}

/// Reads these apps. On PostgreSQL a shared lock prevents the removal of the apps until the end of the transaction.
pub(super) async fn apps(
    tx: &impl ConnectionTrait,
    appids: BTreeSet<&str>,
) -> Result<AdmittedApps, StoreError> {
    if appids.is_empty() {
        return Ok(AdmittedApps::new());
    }
    let appids: Vec<&str> = appids.into_iter().collect();
    let kept = match tx.get_database_backend() {
        DbBackend::Postgres => " FOR KEY SHARE OF app",
        _ => "",
    };
    read_apps(tx, &appids, kept).await
}

/// Reads these apps, with the lock clause `locks`.
pub(super) async fn read_apps(
    connection: &impl ConnectionTrait,
    appids: &[&str],
    locks: &str,
) -> Result<AdmittedApps, StoreError> {
    let mut sql = Sql::new(
        "SELECT app.appid, app.tenant_id, app.kind, app.daily_quota, app.grant_policy, app.counts_grants, lane.quota_day, lane.quota_used, tenant.messages_per_day \
         FROM app JOIN lane ON lane.appid = app.appid JOIN tenant ON tenant.id = app.tenant_id WHERE app.appid",
    );
    sql.one_of(appids).push(locks);
    let rows = AppFacts::find_by_statement(sql.on(connection))
        .all(connection)
        .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.appid.clone(), row))
        .collect())
}

/// The app, if this tenant owns the app.
pub(super) fn app_of<'a>(
    apps: &'a AdmittedApps,
    appid: &str,
    tenant: TenantId,
) -> Option<&'a AppFacts> {
    apps.get(appid).filter(|app| app.tenant_id == tenant.uuid())
}

/// The result of a submission by the rules of the app and of each message alone.
pub(super) fn admit_all(
    submission: &Submission,
    apps: &AdmittedApps,
    shares: PriorityShares,
    now: DateTime<Utc>,
) -> Taken {
    let Some(app) = app_of(apps, submission.appid.as_str(), submission.tenant) else {
        return Taken::NoSuchApp;
    };
    let received = submission.messages().map(|new| {
        let wish = MessageProfile {
            channel: new.draft.content.channel(),
            priority: new.draft.priority,
            due_at: new.draft.due_at(now),
            expires_at: new.draft.expires_at(now),
        };
        app.admit(&wish, shares, now)
    });
    Taken::Fresh(received.collect())
}

impl AppFacts {
    /// The permit of a message of this app, as the message's row stores the permit.
    pub(super) fn permit(&self, draft: &Draft) -> i64 {
        let policy = GrantPolicy::parse(&self.grant_policy).unwrap_or_default();
        grants::permit_code(draft, policy, self.counts_grants != 0)
    }

    /// Whether the app can send the message before the message expires.
    pub(super) fn admit(
        &self,
        wish: &MessageProfile,
        shares: PriorityShares,
        now: DateTime<Utc>,
    ) -> Received {
        let official = wish.channel == Channel::Official;
        match parse_kind(&self.kind) {
            Ok(kind) if official != (kind == AppKind::OfficialAccount) => {
                return Received::WrongKind(kind);
            }
            _ => {}
        }
        let limit = self.daily_quota.unsigned_abs();
        let used = if self.quota_day == day_number(now) {
            self.quota_used.unsigned_abs()
        } else {
            0
        };
        let reset_at = quota::reset_at(now);
        let spent = shares.remaining(limit, used, wish.priority) == 0;
        if spent && wish.due_at < reset_at && wish.expires_at <= reset_at {
            return Received::Spent(Spent::App { reset_at });
        }
        Received::Stored
    }
}
