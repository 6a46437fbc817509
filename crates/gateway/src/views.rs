//! What commands print as JSON: the same shapes as the REST API's, which keeps its own to itself.

use chrono::{DateTime, SecondsFormat, Utc};
use domain::{
    app::{AppKind, TokenMode},
    message::{Content, OnUncertain, Priority},
    scope::Scope,
    tenant::{TenantLimits, TenantStatus},
};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

/// A list with everything on one page.
#[derive(Debug, Serialize)]
pub(crate) struct List<T> {
    data: Vec<T>,
    next_cursor: Option<String>,
}

impl<T> List<T> {
    /// All of them.
    pub(crate) fn of<U>(items: Vec<U>) -> Self
    where
        T: From<U>,
    {
        Self {
            data: items.into_iter().map(T::from).collect(),
            next_cursor: None,
        }
    }
}

/// A time as every answer writes it: RFC 3339, UTC, milliseconds, `Z`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Time(pub(crate) DateTime<Utc>);

impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.to_rfc3339_opts(SecondsFormat::Millis, true))
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A tenant.
#[derive(Debug, Serialize)]
pub(crate) struct Tenant {
    id: String,
    name: String,
    status: TenantStatus,
    limits: TenantLimits,
    created_at: Time,
    updated_at: Time,
}

impl From<store::Tenant> for Tenant {
    fn from(tenant: store::Tenant) -> Self {
        Self {
            id: tenant.id.to_string(),
            name: tenant.name,
            status: tenant.status,
            limits: tenant.limits,
            created_at: Time(tenant.created_at),
            updated_at: Time(tenant.updated_at),
        }
    }
}

/// An API key.
#[derive(Debug, Serialize)]
pub(crate) struct Key {
    client_id: String,
    tenant_id: Option<String>,
    name: String,
    scopes: Vec<&'static str>,
    created_at: Time,
    expires_at: Option<Time>,
    last_used_at: Option<Time>,
    revoked_at: Option<Time>,
}

impl From<store::Key> for Key {
    fn from(key: store::Key) -> Self {
        Self {
            client_id: key.id.to_string(),
            tenant_id: key.tenant.map(|tenant| tenant.to_string()),
            name: key.name,
            scopes: key.scopes.iter().map(Scope::as_str).collect(),
            created_at: Time(key.created_at),
            expires_at: key.expires_at.map(Time),
            last_used_at: key.last_used_at.map(Time),
            revoked_at: key.revoked_at.map(Time),
        }
    }
}

/// A key just made, with its secret. Without `Debug`: it would print the secret.
#[derive(Serialize)]
pub(crate) struct CreatedKey {
    #[serde(flatten)]
    key: Key,
    client_secret: String,
}

impl From<tenancy::CreatedKey> for CreatedKey {
    fn from(created: tenancy::CreatedKey) -> Self {
        Self {
            key: created.key.into(),
            client_secret: created.secret.expose().to_owned(),
        }
    }
}

/// An app.
#[derive(Debug, Serialize)]
pub(crate) struct App {
    appid: String,
    tenant_id: String,
    name: String,
    kind: AppKind,
    token_mode: TokenMode,
    daily_quota: u64,
    has_callback: bool,
    verified_at: Option<Time>,
    pause: Option<Pause>,
    created_at: Time,
    updated_at: Time,
}

/// Why an app does not send for a while.
#[derive(Debug, Serialize)]
pub(crate) struct Pause {
    reason: String,
    detail: Option<String>,
    until: Time,
}

impl App {
    /// The app as it is at `now`: a pause that is over is not shown.
    pub(crate) fn at(now: DateTime<Utc>, app: store::App) -> Self {
        let pause = app.pause.filter(|pause| pause.until > now);
        Self {
            appid: app.appid.to_string(),
            tenant_id: app.tenant.to_string(),
            name: app.name,
            kind: app.kind,
            token_mode: app.token_mode,
            daily_quota: app.daily_quota,
            has_callback: app.has_callback,
            verified_at: app.verified_at.map(Time),
            pause: pause.map(|pause| Pause {
                reason: pause.reason,
                detail: pause.detail,
                until: Time(pause.until),
            }),
            created_at: Time(app.created_at),
            updated_at: Time(app.updated_at),
        }
    }
}

/// A message and what became of it.
#[derive(Debug, Serialize)]
pub(crate) struct Message {
    id: String,
    appid: String,
    status: &'static str,
    touser: String,
    template_id: String,
    #[serde(flatten)]
    content: Content,
    priority: Priority,
    send_at: Option<Time>,
    ttl: u64,
    reference: Option<String>,
    metadata: Option<Map<String, Value>>,
    on_uncertain: OnUncertain,
    dry_run: bool,
    created_at: Time,
    updated_at: Time,
    expires_at: Time,
    msgid: Option<String>,
    attempts: Vec<Attempt>,
    failure: Option<Failure>,
}

/// One try to send.
#[derive(Debug, Serialize)]
pub(crate) struct Attempt {
    number: u32,
    started_at: Time,
    duration_ms: u64,
    outcome: &'static str,
    errcode: Option<i64>,
    errmsg: Option<String>,
    rid: Option<String>,
}

/// Why a message did not arrive.
#[derive(Debug, Serialize)]
pub(crate) struct Failure {
    code: &'static str,
    detail: String,
}

impl From<store::Message> for Message {
    fn from(message: store::Message) -> Self {
        let attempt = |attempt: domain::verdict::Attempt| Attempt {
            number: attempt.number,
            started_at: Time(attempt.started_at),
            duration_ms: attempt.duration_ms,
            outcome: attempt.outcome.as_str(),
            errcode: attempt.errcode,
            errmsg: attempt.errmsg,
            rid: attempt.rid,
        };
        Self {
            id: message.id.to_string(),
            appid: message.appid.to_string(),
            status: message.status.as_str(),
            touser: message.touser,
            template_id: message.template_id,
            content: message.content,
            priority: message.priority,
            send_at: message.send_at.map(Time),
            ttl: message.ttl.as_secs(),
            reference: message.reference,
            metadata: message.metadata,
            on_uncertain: message.on_uncertain,
            dry_run: false,
            created_at: Time(message.created_at),
            updated_at: Time(message.updated_at),
            expires_at: Time(message.expires_at),
            msgid: message.msgid,
            attempts: message.attempts.into_iter().map(attempt).collect(),
            failure: message.failure.map(|failure| Failure {
                code: failure.code.as_str(),
                detail: failure.detail,
            }),
        }
    }
}
