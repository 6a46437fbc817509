//! Intake: one transaction for all messages that wait for acceptance at this moment.
//!
//! A single message without an idempotency key and without a daily limit is one INSERT, which is a transaction by
//! itself. If the app is removed at that moment, then the next claim cancels the message, like all unsent messages of
//! the app: see [`claim`](crate::PlatformStore::claim).
//!
//! All other batches lock, in the same order as every other transaction: apps (shared), idempotency keys, allowances.
//! The rows of the messages are new, so no transaction waits for these rows.

use chrono::{DateTime, Utc};
use domain::quota::PriorityShares;
use sea_orm::{ActiveValue::Set, EntityTrait};

use super::{
    admission, allowance, keys,
    sql::pieces,
    submission::{NewMessage, Submission, SubmissionBody, Taken},
};
use crate::{
    PlatformStore, StoreError,
    entity::message::{ActiveModel, Entity},
    messages::{on_uncertain_word, rank, to_json},
    timestamp::millis,
};

/// The most messages of one INSERT: 28 columns stay under SQLite's 32,766 bound values.
const INSERT_ROWS: usize = 512;

impl PlatformStore {
    /// Accepts a batch in one transaction: all of the batch or, on an error, nothing. Returns the results in the
    /// batch's order.
    pub async fn intake(
        &self,
        batch: &[Submission],
        shares: PriorityShares,
        now: DateTime<Utc>,
    ) -> Result<Vec<Taken>, StoreError> {
        if let Some(taken) = self.intake_alone(batch, shares, now).await? {
            return Ok(vec![taken]);
        }
        let tx = self.store.begin_batch().await?;
        let appids = batch.iter().map(|submission| submission.appid.as_str());
        let apps = admission::apps(&tx, appids.collect()).await?;
        let mut taken: Vec<Taken> = batch
            .iter()
            .map(|submission| admission::admit_all(submission, &apps, shares, now))
            .collect();
        keys::recognise(&tx, batch, &mut taken).await?;
        for changed in allowance::charge_all(&tx, batch, &apps, &mut taken, now).await? {
            keys::amend(&tx, &batch[changed], &taken[changed]).await?;
        }
        let rows = batch
            .iter()
            .zip(&taken)
            .flat_map(|(submission, taken)| {
                let app = admission::app_of(&apps, submission.appid.as_str(), submission.tenant);
                let stored = submission.stored(taken);
                stored.map(move |new| row(new, app.map_or(0, |app| app.permit(&new.draft))))
            })
            .collect::<Result<Vec<_>, _>>()?;
        for piece in pieces(rows, INSERT_ROWS) {
            Entity::insert_many(piece)
                .exec_without_returning(&tx)
                .await?;
        }
        tx.commit().await?;
        Ok(taken)
    }

    /// Accepts a single message without a transaction. Returns `None`, with nothing done, if the message needs a
    /// transaction.
    async fn intake_alone(
        &self,
        batch: &[Submission],
        shares: PriorityShares,
        now: DateTime<Utc>,
    ) -> Result<Option<Taken>, StoreError> {
        let [submission] = batch else {
            return Ok(None);
        };
        let (SubmissionBody::One(new), None) = (&submission.load, &submission.key) else {
            return Ok(None);
        };
        let appid = submission.appid.as_str();
        let apps = admission::read_apps(self.store.read(), &[appid], "").await?;
        let app = admission::app_of(&apps, appid, submission.tenant);
        if app.is_some_and(|app| app.messages_per_day.is_some()) {
            return Ok(None);
        }
        let taken = admission::admit_all(submission, &apps, shares, now);
        if let Some(app) = app
            && submission.stored(&taken).next().is_some()
        {
            let row = row(new, app.permit(&new.draft))?;
            Entity::insert(row)
                .exec_without_returning(self.store.write())
                .await?;
        }
        Ok(Some(taken))
    }
}

fn row(new: &NewMessage, permit: i64) -> Result<ActiveModel, StoreError> {
    let (status, phase) = new.starts_in();
    let draft = &new.draft;
    let at = millis(new.received_at);
    Ok(ActiveModel {
        id: Set(new.id.uuid()),
        tenant_id: Set(new.tenant.uuid()),
        appid: Set(new.appid.as_str().to_owned()),
        touser: Set(draft.touser.clone()),
        template_id: Set(draft.template_id.clone()),
        priority: Set(rank(draft.priority)),
        status: Set(status.as_str().to_owned()),
        phase: Set(phase),
        content: Set(to_json(&draft.content, "message.content")?),
        metadata: Set(draft
            .metadata
            .as_ref()
            .map(|metadata| to_json(metadata, "message.metadata"))
            .transpose()?),
        reference: Set(draft.reference.clone()),
        on_uncertain: Set(on_uncertain_word(draft.on_uncertain).to_owned()),
        permit: Set(permit),
        send_at: Set(draft.send_at.map(millis)),
        ttl_seconds: Set(draft.ttl.as_secs().cast_signed()),
        due_at: Set(millis(draft.due_at(new.received_at))),
        expires_at: Set(millis(draft.expires_at(new.received_at))),
        attempt_count: Set(0),
        attempts: Set("[]".to_owned()),
        lease: Set(None),
        lease_until: Set(None),
        followed: Set(0),
        retried_at: Set(None),
        msgid: Set(None),
        failure_code: Set(None),
        failure_detail: Set(None),
        payload_dropped_at: Set(None),
        created_at: Set(at),
        updated_at: Set(at),
    })
}
