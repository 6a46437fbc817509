//! Reads messages: one message, or a page of an app's messages.

use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::{
    app::AppId,
    grant::GrantPolicy,
    id::{self, MessageId, TenantId},
    lifecycle::{MessageState, Status},
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
    queue::claimed::is_unanswered,
    queue::grants::asked_policy,
    timestamp::time,
};

/// The statuses of most old messages and of all new messages. A list of any other status uses an index that leaves these
/// statuses out, so a message that is accepted, sent and delivered causes no write to that index.
const COMMON: [Status; 4] = [
    Status::Queued,
    Status::Sending,
    Status::Sent,
    Status::Delivered,
];

/// A message with its status, attempts and outcome.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// The id of the message.
    pub id: MessageId,
    /// The tenant that owns the message.
    pub tenant: TenantId,
    /// The app that sends the message.
    pub appid: AppId,
    /// The state in the life of the message.
    pub status: Status,
    /// The priority: ready messages of an app are sent in this order.
    pub priority: Priority,
    /// The recipient's openid.
    pub touser: String,
    /// The template's id.
    pub template_id: String,
    /// The content to send.
    pub content: Content,
    /// Data that the tenant gets back with the message.
    pub metadata: Option<Map<String, Value>>,
    /// The tenant's own id for the message.
    pub reference: Option<String>,
    /// What to do when the outcome of a send is unknown.
    pub on_uncertain: OnUncertain,
    /// The grant policy of this message, where the tenant has set one on the message itself.
    pub grant_policy: Option<GrantPolicy>,
    /// When the tenant wants the message sent, or `None` for at once.
    pub send_at: Option<DateTime<Utc>>,
    /// For how long the message is worth sending.
    pub ttl: Duration,
    /// The earliest time of the first attempt or of the next one.
    pub due_at: DateTime<Utc>,
    /// The latest time at which the message may be sent.
    pub expires_at: DateTime<Utc>,
    /// All attempts so far, in order.
    pub attempts: Vec<Attempt>,
    /// WeChat's id for the message.
    pub msgid: Option<String>,
    /// Why the message did not arrive.
    pub failure: Option<Failure>,
    /// When values and metadata were dropped, so that the content is not kept any longer; `None` while both are still
    /// there.
    pub payload_dropped_at: Option<DateTime<Utc>>,
    /// When the message was accepted.
    pub created_at: DateTime<Utc>,
    /// When the message last changed.
    pub updated_at: DateTime<Utc>,
}

/// Why a message did not arrive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The kind of failure.
    pub code: FailureCode,
    /// What happened, and what to do.
    pub detail: String,
}

/// Which messages of an app to list. An absent field does not filter.
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
            .one(self.store.read())
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
        let rows = query.all(self.store.read()).await?;
        let listing = Listing::of(rows, page, |row: &Model| row.id);
        listing.try_map(Message::try_from)
    }

    /// The query for a page of an app's messages.
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
        // Ids sort by creation time, so a time filter is a range of the index that the page uses anyway.
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

/// The condition of the index `message_rare`, in the same words. The statement is planned for every status, so
/// PostgreSQL uses the index only where the query states the condition literally.
fn is_rare() -> Condition {
    COMMON.iter().fold(Condition::all(), |rare, status| {
        rare.add(Expr::cust(format!("status <> '{}'", status.as_str())))
    })
}

impl PlatformStore {
    /// The message with this id, of any tenant.
    pub async fn message(&self, id: MessageId) -> Result<Option<Message>, StoreError> {
        let found = Entity::find_by_id(id.uuid()).one(self.store.read()).await?;
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

/// The facts that the state machine needs of a row that is not in flight.
pub(crate) fn facts(row: &Model) -> Result<MessageState, StoreError> {
    let attempts: Vec<Attempt> = json(&row.attempts, "message.attempts")?;
    Ok(MessageState {
        status: Status::parse(&row.status).ok_or_else(|| unknown("message.status", &row.status))?,
        attempts: u32::try_from(row.attempt_count).unwrap_or(u32::MAX),
        expires_at: time(row.expires_at),
        on_uncertain: on_uncertain(&row.on_uncertain),
        repeatable_until: None,
        maybe_sent: attempts.iter().any(is_unanswered),
    })
}

/// Parses a JSON column.
pub(crate) fn json<T: serde::de::DeserializeOwned>(
    text: &str,
    column: &str,
) -> Result<T, StoreError> {
    serde_json::from_str(text)
        .map_err(|error| StoreError::Broken(format!("{column} is no valid JSON: {error}")))
}

/// Writes the JSON of a column.
pub(crate) fn to_json<T: serde::Serialize>(value: &T, column: &str) -> Result<String, StoreError> {
    serde_json::to_string(value)
        .map_err(|error| StoreError::Broken(format!("{column} cannot be written as JSON: {error}")))
}

/// The rank by which the index of ready messages sorts.
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
