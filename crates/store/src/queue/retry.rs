//! Retry by hand: a tenant requests another send of an ended message.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use domain::{
    id::MessageId,
    lifecycle::{Event, ImpossibleEvent, Status},
    quota::PriorityShares,
};
use sea_orm::{
    ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QuerySelect, sea_query::Expr,
};

use super::{
    READY, WAITING,
    admission::{self, AppFacts, MessageProfile, app_of},
    allowance::Allowances,
    cancel::changed_at,
    idempotency_key::IdempotencyKey,
    keys::{self, Claim, RecordedAnswer},
    submission::Received,
};
use crate::{
    Message, StoreError, TenantStore,
    entity::message::{Column, Entity, Model},
    messages::facts,
    timestamp::{millis, time},
};

/// The result of a request to retry.
#[derive(Clone, Debug, PartialEq)]
pub enum Retried {
    /// The message is in the queue.
    Queued(Message),
    /// The key already stands for the same request: the message as it was queued at that time.
    Replayed(Message),
    /// The key stands for a different request.
    KeyReused,
    /// The message cannot be retried in its present state.
    Refused(ImpossibleEvent),
    /// The app cannot send the message, or not today.
    NotTaken(Received),
    /// The tenant has no such message.
    NoSuchMessage,
    /// The message's app was removed.
    NoSuchApp,
    /// The content of the message has been dropped.
    Emptied,
}

impl TenantStore {
    /// Puts an ended message into the queue again. The ttl counts from now, or from `send_at` if that time is still to
    /// come. The retry counts like a new message and may be refused like one.
    ///
    /// Locks in the same order as intake, and locks the message's row between the app and the key.
    pub async fn retry(
        &self,
        id: MessageId,
        key: Option<&IdempotencyKey>,
        shares: PriorityShares,
        now: DateTime<Utc>,
    ) -> Result<Retried, StoreError> {
        let own = Entity::find_by_id(id.uuid()).filter(Column::TenantId.eq(self.tenant.uuid()));
        let tx = self.begin(now).await?;
        let Some(found) = own.clone().one(&tx).await? else {
            return Ok(Retried::NoSuchMessage);
        };
        let apps = admission::apps(&tx, BTreeSet::from([found.appid.as_str()])).await?;
        let Some(row) = own.lock_exclusive().one(&tx).await? else {
            return Ok(Retried::NoSuchMessage);
        };
        if let Some(key) = key
            && let Some(answered) = self.recognise(&tx, key, &row, now).await?
        {
            return Ok(answered);
        }
        let due_at = due_at(&row, now);
        let transition = match facts(&row)?.apply(&Event::Retry { due_at }, now, 0.0) {
            Ok(transition) => transition,
            Err(refusal) => return Ok(Retried::Refused(refusal)),
        };
        let Some(app) = app_of(&apps, &row.appid, self.tenant) else {
            return Ok(Retried::NoSuchApp);
        };
        if row.payload_dropped_at.is_some() {
            return Ok(Retried::Emptied);
        }
        if let Some(refused) = self.admit(&tx, app, &row, shares, now).await? {
            return Ok(Retried::NotTaken(refused));
        }
        let row = Model {
            updated_at: changed_at(row.updated_at, now),
            ..queued(row, now)
        };
        Entity::update_many()
            .col_expr(Column::Status, Expr::value(transition.status.as_str()))
            .col_expr(Column::Phase, Expr::value(row.phase))
            .col_expr(Column::DueAt, Expr::value(row.due_at))
            .col_expr(Column::ExpiresAt, Expr::value(row.expires_at))
            .col_expr(Column::RetriedAt, Expr::value(row.retried_at))
            .col_expr(Column::Msgid, Expr::value(None::<String>))
            .col_expr(Column::FailureCode, Expr::value(None::<String>))
            .col_expr(Column::FailureDetail, Expr::value(None::<String>))
            .col_expr(Column::UpdatedAt, Expr::value(row.updated_at))
            .filter(Column::Id.eq(row.id))
            .exec(&tx)
            .await?;
        tx.commit().await?;
        Ok(Retried::Queued(row.try_into()?))
    }

    /// Claims the key. If the key is taken, returns the result that the key stands for.
    async fn recognise(
        &self,
        tx: &impl ConnectionTrait,
        key: &IdempotencyKey,
        row: &Model,
        now: DateTime<Utc>,
    ) -> Result<Option<Retried>, StoreError> {
        let attempts = Message::try_from(row.clone())?.attempts.len();
        let claim = Claim {
            tenant: self.tenant,
            key,
            answer: RecordedAnswer::Retry(attempts),
            at: now,
        };
        if !keys::claim(tx, vec![claim]).await?.is_empty() {
            return Ok(None);
        }
        let rows = keys::find(tx, vec![(self.tenant, key)]).await?;
        let answer = rows.first().map(|row| row.answer_to(key)).transpose()?;
        Ok(match answer.flatten() {
            Some((at, RecordedAnswer::Retry(attempts))) => {
                let mut message = Message::try_from(queued(row.clone(), at))?;
                message.attempts.truncate(attempts);
                Some(Retried::Replayed(message))
            }
            _ => Some(Retried::KeyReused),
        })
    }

    /// Counts the retry as a message of today. Returns the refusal, or `None` if the message may be sent.
    async fn admit(
        &self,
        tx: &impl ConnectionTrait,
        app: &AppFacts,
        row: &Model,
        shares: PriorityShares,
        now: DateTime<Utc>,
    ) -> Result<Option<Received>, StoreError> {
        let message = Message::try_from(row.clone())?;
        let due_at = due_at(row, now);
        let wish = MessageProfile {
            channel: message.content.channel(),
            priority: message.priority,
            due_at,
            expires_at: due_at + message.ttl,
        };
        let received = app.admit(&wish, shares, now);
        if received != Received::Stored {
            return Ok(Some(received));
        }
        let limit = app.messages_per_day;
        let limits: BTreeMap<_, _> = limit
            .map(|limit| (self.tenant.uuid(), limit))
            .into_iter()
            .collect();
        let mut allowances = Allowances::lock(tx, limits, now).await?;
        if let Err(spent) = allowances.charge(self.tenant, now) {
            return Ok(Some(Received::Spent(spent)));
        }
        allowances.write(tx).await?;
        Ok(None)
    }
}

/// The row after a retry at `at`.
fn queued(row: Model, at: DateTime<Utc>) -> Model {
    let due_at = due_at(&row, at);
    let (status, phase) = if due_at > at {
        (Status::Scheduled, WAITING)
    } else {
        (Status::Queued, READY)
    };
    Model {
        status: status.as_str().to_owned(),
        phase,
        due_at: millis(due_at),
        expires_at: millis(due_at + ttl(&row)),
        retried_at: Some(millis(at)),
        msgid: None,
        failure_code: None,
        failure_detail: None,
        updated_at: millis(at),
        ..row
    }
}

/// The time from which a retry at `at` may send the message.
fn due_at(row: &Model, at: DateTime<Utc>) -> DateTime<Utc> {
    row.send_at.map_or(at, |send_at| time(send_at).max(at))
}

fn ttl(row: &Model) -> chrono::Duration {
    chrono::Duration::seconds(row.ttl_seconds)
}
