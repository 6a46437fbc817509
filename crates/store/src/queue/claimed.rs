//! Messages in flight: claimed by a worker and not recorded yet.
//!
//! The history of a message is in the message's row: the claim returns the attempts so far, and the recorder writes
//! them back with one more. Attempts are read with their message and never alone, so a table of attempts would cost an
//! insert and an index entry for each send and save nothing.

use chrono::{DateTime, Utc};
use domain::{
    app::AppId,
    id::{MessageId, TenantId},
    lifecycle::{MessageState, Status},
    message::{Content, OnUncertain},
    verdict::{Attempt, Outcome},
};
use sea_orm::FromQueryResult;
use uuid::Uuid;

use super::grants::Permit;
use crate::{
    StoreError,
    error::unknown,
    messages::{json, on_uncertain},
    timestamp::time,
};

/// A message in flight.
#[derive(Clone, Debug, PartialEq)]
pub struct ClaimedMessage {
    /// The message's id.
    pub id: MessageId,
    /// The tenant.
    pub tenant: TenantId,
    /// The app that sends the message.
    pub appid: AppId,
    /// The recipient's openid.
    pub touser: String,
    /// The template's id.
    pub template_id: String,
    /// The content to send.
    pub content: Content,
    /// The number of claims of the message, this one included.
    pub claims: u32,
    /// The attempts before this claim.
    pub attempts: Vec<Attempt>,
    /// The end of the message's ttl.
    pub expires_at: DateTime<Utc>,
    /// What to do if the outcome of the send is unknown.
    pub on_uncertain: OnUncertain,
    /// The lease of the claim. The record of this send must name this lease.
    pub lease: i64,
    /// The end of the lease.
    pub lease_until: DateTime<Utc>,
    /// The time of the claim: the quota of this day was charged.
    pub claimed_at: DateTime<Utc>,
    /// The time of the tenant's last retry by hand. `None` without such a retry.
    pub retried_at: Option<DateTime<Utc>>,
    /// The permit of the send.
    pub permit: Permit,
    /// Whether the message is the probe of a paused app: the outcome decides whether the app's other messages follow.
    pub is_probe: bool,
}

impl ClaimedMessage {
    /// The start of the first attempt that may have reached WeChat, among the attempts since the last retry by hand.
    /// `None` if there is no such attempt.
    pub fn maybe_sent_at(&self) -> Option<DateTime<Utc>> {
        let since = self.retried_at.unwrap_or(DateTime::<Utc>::MIN_UTC);
        let unanswered = self
            .attempts
            .iter()
            .filter(|attempt| is_unanswered(attempt));
        unanswered
            .map(|attempt| attempt.started_at)
            .find(|started_at| *started_at >= since)
    }

    /// The facts that the state machine needs.
    pub fn facts(&self) -> MessageState {
        let maybe_sent_at = self.maybe_sent_at().unwrap_or(self.claimed_at);
        MessageState {
            status: Status::Sending,
            attempts: self.claims,
            expires_at: self.expires_at,
            on_uncertain: self.on_uncertain,
            repeatable_until: self
                .content
                .dedup_window()
                .map(|window| maybe_sent_at + window)
                .or_else(|| self.pool_window()),
            maybe_sent: self.attempts.iter().any(is_unanswered),
        }
    }
}

#[derive(FromQueryResult)]
pub(super) struct ClaimedRow {
    id: Uuid,
    tenant_id: Uuid,
    pub(super) appid: String,
    touser: String,
    template_id: String,
    content: String,
    attempt_count: i64,
    attempts: String,
    expires_at: i64,
    on_uncertain: String,
    lease: i64,
    lease_until: i64,
    updated_at: i64,
    retried_at: Option<i64>,
    permit: i64,
}

/// The columns of [`ClaimedRow`].
pub(super) const CLAIMED_COLUMNS: &str = "id, tenant_id, appid, touser, template_id, content, attempt_count, attempts, \
                                         expires_at, on_uncertain, lease, lease_until, updated_at, retried_at, permit";

pub(crate) fn is_unanswered(attempt: &Attempt) -> bool {
    attempt.outcome == Outcome::Unknown
}

/// The rows that this version of the program understands. A row that cannot be read, perhaps from a newer replica, must
/// not hold up the other rows.
pub(super) fn readable(rows: Vec<ClaimedRow>) -> Vec<ClaimedMessage> {
    let read = rows.into_iter().filter_map(|row| {
        let id = MessageId::from(row.id);
        ClaimedMessage::try_from(row)
            .inspect_err(
                |error| tracing::error!(message_id = %id, %error, "a message cannot be read"),
            )
            .ok()
    });
    read.collect()
}

impl TryFrom<ClaimedRow> for ClaimedMessage {
    type Error = StoreError;

    fn try_from(row: ClaimedRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id.into(),
            tenant: row.tenant_id.into(),
            appid: AppId::parse(&row.appid).map_err(|_| unknown("message.appid", &row.appid))?,
            touser: row.touser,
            template_id: row.template_id,
            content: json(&row.content, "message.content")?,
            claims: u32::try_from(row.attempt_count).unwrap_or(u32::MAX),
            attempts: json(&row.attempts, "message.attempts")?,
            expires_at: time(row.expires_at),
            on_uncertain: on_uncertain(&row.on_uncertain),
            lease: row.lease,
            lease_until: time(row.lease_until),
            claimed_at: time(row.updated_at),
            retried_at: row.retried_at.map(time),
            permit: Permit::read(row.permit),
            is_probe: false,
        })
    }
}
