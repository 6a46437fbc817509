//! Messages as they are read: one, or a page of an app's.

use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::{
    app::AppId,
    grant::GrantPolicy,
    id::{self, MessageId, TenantId},
    lifecycle::{Facts, Status},
    message::{Content, OnUncertain, Priority},
    verdict::{Attempt, FailureCode},
};
use sea_orm::{
    ColumnTrait, Condition, EntityTrait, QueryFilter, QueryOrder, QuerySelect, Select,
    sea_query::Expr,
};
use serde_json::{Map, Value};

use crate::{
    Listing, Page, PlatformStore, StoreError, TenantStore,
    entity::message::{Column, Entity, Model},
    error::unknown,
    queue::flight::is_unanswered,
    queue::grants::asked_policy,
    time,
};

/// The statuses that most messages of a history, or all that are new, have. A list of another status goes by an index that leaves
/// these out: the index costs a message nothing that is accepted, sent and delivered.
const COMMON: [Status; 4] = [
    Status::Queued,
    Status::Sending,
    Status::Sent,
    Status::Delivered,
];

/// A message with all that became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Its id.
    pub id: MessageId,
    /// Whose it is.
    pub tenant: TenantId,
    /// The app that sends it.
    pub appid: AppId,
    /// Where it is in its life.
    pub status: Status,
    /// Who goes first.
    pub priority: Priority,
    /// The receiver's openid.
    pub touser: String,
    /// The template's id.
    pub template_id: String,
    /// What is sent.
    pub content: Content,
    /// Whatever the tenant wants back with it.
    pub metadata: Option<Map<String, Value>>,
    /// The tenant's own id for it.
    pub reference: Option<String>,
    /// What to do when the outcome of a send is unknown.
    pub on_uncertain: OnUncertain,
    /// What the ledger of grants decides about it, where it asked for that itself.
    pub grant_policy: Option<GrantPolicy>,
    /// When its tenant wants it sent; none: at once.
    pub send_at: Option<DateTime<Utc>>,
    /// How long it is worth sending.
    pub ttl: Duration,
    /// From when it may be sent, or sent again.
    pub due_at: DateTime<Utc>,
    /// Until when it may be sent.
    pub expires_at: DateTime<Utc>,
    /// Every try so far, in order.
    pub attempts: Vec<Attempt>,
    /// WeChat's id for it.
    pub msgid: Option<String>,
    /// Why it did not arrive.
    pub failure: Option<Failure>,
    /// When its values and metadata were dropped, so that nobody keeps what was in it; none: it is whole.
    pub payload_dropped_at: Option<DateTime<Utc>>,
    /// When it was accepted.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

/// Why a message did not arrive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The kind of failure.
    pub code: FailureCode,
    /// What happened and what to do.
    pub detail: String,
}

/// Which messages of an app to list. What is absent does not filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "each field filters by the field of `Message` with its name"
)]
pub struct MessageFilter {
    pub status: Option<Status>,
    pub touser: Option<String>,
    pub template_id: Option<String>,
    pub reference: Option<String>,
    pub created_after: Option<DateTime<Utc>>,
    pub created_before: Option<DateTime<Utc>>,
}

impl TenantStore {
    /// The tenant's message with this id.
    pub async fn message(&self, id: MessageId) -> Result<Option<Message>, StoreError> {
        let found = Entity::find_by_id(id.uuid())
            .filter(Column::TenantId.eq(self.tenant.uuid()))
            .one(&self.store.read)
            .await?;
        found.map(Message::try_from).transpose()
    }

    /// An app's messages, newest first.
    pub async fn messages(
        &self,
        appid: &AppId,
        filter: &MessageFilter,
        page: &Page,
    ) -> Result<Listing<Message>, StoreError> {
        let query = self.listed(appid, filter, page);
        let rows = query.all(&self.store.read).await?;
        let listing = Listing::of(rows, page, |row: &Model| row.id);
        listing.try_map(Message::try_from)
    }

    /// What a page of an app's messages is read with.
    pub(crate) fn listed(
        &self,
        appid: &AppId,
        filter: &MessageFilter,
        page: &Page,
    ) -> Select<Entity> {
        let mut query = Entity::find()
            .filter(Column::TenantId.eq(self.tenant.uuid()))
            .filter(Column::Appid.eq(appid.as_str()));
        if let Some(status) = filter.status {
            query = query.filter(Column::Status.eq(status.as_str()));
            if !COMMON.contains(&status) {
                query = query.filter(is_rare());
            }
        }
        for (column, value) in [
            (Column::Touser, &filter.touser),
            (Column::TemplateId, &filter.template_id),
            (Column::Reference, &filter.reference),
        ] {
            if let Some(value) = value {
                query = query.filter(column.eq(value.as_str()));
            }
        }
        // Ids sort by their time, so a time filter is a range of the index that the page walks anyway.
        if let Some(after) = filter.created_after {
            query = query.filter(Column::Id.gt(id::lower_bound(after)));
        }
        if let Some(before) = filter.created_before {
            query = query.filter(Column::Id.lt(id::lower_bound(before)));
        }
        if let Some(after) = page.after {
            query = query.filter(Column::Id.lt(after));
        }
        query.order_by_desc(Column::Id).limit(page.limit + 1)
    }
}

/// The condition of the index `message_rare`, word by word: planned for every status, a query has to say it for the index to
/// be of use.
fn is_rare() -> Condition {
    COMMON.iter().fold(Condition::all(), |rare, status| {
        rare.add(Expr::cust(format!("status <> '{}'", status.as_str())))
    })
}

impl PlatformStore {
    /// The message with this id, whosever it is.
    pub async fn message(&self, id: MessageId) -> Result<Option<Message>, StoreError> {
        let found = Entity::find_by_id(id.uuid()).one(&self.store.read).await?;
        found.map(Message::try_from).transpose()
    }
}

impl TryFrom<Model> for Message {
    type Error = StoreError;

    fn try_from(row: Model) -> Result<Self, StoreError> {
        let failure = match row.failure_code {
            Some(code) => {
                let code = FailureCode::parse(&code)
                    .ok_or_else(|| unknown("message.failure_code", &code))?;
                Some(Failure {
                    code,
                    detail: row
                        .failure_detail
                        .unwrap_or_else(|| code.advice().to_owned()),
                })
            }
            None => None,
        };
        Ok(Self {
            id: row.id.into(),
            tenant: row.tenant_id.into(),
            appid: AppId::parse(&row.appid).map_err(|_| unknown("message.appid", &row.appid))?,
            status: Status::parse(&row.status)
                .ok_or_else(|| unknown("message.status", &row.status))?,
            priority: priority(row.priority),
            touser: row.touser,
            template_id: row.template_id,
            content: json(&row.content, "message.content")?,
            metadata: row
                .metadata
                .map(|metadata| json(&metadata, "message.metadata"))
                .transpose()?,
            reference: row.reference,
            on_uncertain: on_uncertain(&row.on_uncertain),
            grant_policy: asked_policy(row.permit),
            send_at: row.send_at.map(time),
            ttl: Duration::from_secs(row.ttl_seconds.unsigned_abs()),
            due_at: time(row.due_at),
            expires_at: time(row.expires_at),
            attempts: json(&row.attempts, "message.attempts")?,
            msgid: row.msgid,
            failure,
            payload_dropped_at: row.payload_dropped_at.map(time),
            created_at: time(row.created_at),
            updated_at: time(row.updated_at),
        })
    }
}

/// What the state machine needs to know of a row that does not fly.
pub(crate) fn facts(row: &Model) -> Result<Facts, StoreError> {
    let attempts: Vec<Attempt> = json(&row.attempts, "message.attempts")?;
    Ok(Facts {
        status: Status::parse(&row.status).ok_or_else(|| unknown("message.status", &row.status))?,
        attempts: u32::try_from(row.attempt_count).unwrap_or(u32::MAX),
        expires_at: time(row.expires_at),
        on_uncertain: on_uncertain(&row.on_uncertain),
        repeatable_until: None,
        maybe_sent: attempts.iter().any(is_unanswered),
    })
}

/// Reads a structured column.
pub(crate) fn json<T: serde::de::DeserializeOwned>(
    text: &str,
    column: &str,
) -> Result<T, StoreError> {
    serde_json::from_str(text)
        .map_err(|error| StoreError::Broken(format!("{column} is no valid JSON: {error}")))
}

/// Writes a structured column.
pub(crate) fn to_json<T: serde::Serialize>(value: &T, column: &str) -> Result<String, StoreError> {
    serde_json::to_string(value)
        .map_err(|error| StoreError::Broken(format!("{column} cannot be written as JSON: {error}")))
}

/// The rank that the ready index sorts by.
pub(crate) fn rank(priority: Priority) -> i64 {
    match priority {
        Priority::High => 0,
        Priority::Normal => 1,
        Priority::Low => 2,
    }
}

pub(crate) fn priority(rank: i64) -> Priority {
    match rank {
        0 => Priority::High,
        1 => Priority::Normal,
        _ => Priority::Low,
    }
}

pub(crate) fn on_uncertain_word(choice: OnUncertain) -> &'static str {
    match choice {
        OnUncertain::Hold => "hold",
        OnUncertain::Retry => "retry",
    }
}

pub(crate) fn on_uncertain(word: &str) -> OnUncertain {
    if word == "retry" {
        OnUncertain::Retry
    } else {
        OnUncertain::Hold
    }
}
