//! Idempotency records: one row for each key, claimed in the transaction of the request, with the answer to repeat.
//!
//! The claim of a key commits with the change that the request makes, or not at all. A twin that arrives during the
//! first request waits for that commit and gets the answer of every later repeat. Of twins in one transaction, the
//! later ones go into the next transaction.
//!
//! The fingerprint proves that a repeat has the same bytes, so the row stores only what these bytes do not contain: the
//! ids, the time, and the refusals of a batch (`RecordedAnswer`, as JSON). A refused single message leaves the key free. A
//! batch never does, because a batch is always answered. The row also holds the end of the key: a claim takes an
//! expired row over, so that no request waits for the janitor.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use domain::id::TenantId;
use sea_orm::{ConnectionTrait, FromQueryResult};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    grants::Collected,
    idempotency_key::IdempotencyKey,
    sql::Sql,
    submission::{
        BatchEntry, FirstAnswer, FirstEntry, Received, Submission, SubmissionBody, Taken,
    },
};
use crate::{
    StoreError, TenantStore,
    messages::{json, to_json},
    timestamp::{millis, time},
};

/// The content of an idempotency record: the facts from which the same answer is made again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RecordedAnswer {
    /// A message was accepted.
    Message(Uuid),
    /// A batch was answered, entry by entry.
    Batch(Vec<EntryAnswer>),
    /// A message with this number of attempts was retried.
    Retry(usize),
    /// Another request: the sealed answer is in a column of the same row ([`crate::StoredAnswer`]).
    Sealed,
    /// Grants were collected, item by item.
    Grants(Vec<Collected>),
}

/// [`RecordedAnswer::Sealed`] as the row stores this value.
pub(crate) const SEALED_ANSWER: &str = "\"sealed\"";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum EntryAnswer {
    Stored(Uuid),
    Refused(Uuid, Received),
    Unfit(String),
}

/// The row of an idempotency key.
#[derive(FromQueryResult)]
pub(super) struct KeyRow {
    tenant_id: Uuid,
    key: String,
    fingerprint: Vec<u8>,
    answer: String,
    created_at: i64,
    expires_at: i64,
}

impl KeyRow {
    /// The time of the first request, and the answer. `None` if the first request was a different one.
    pub(super) fn answer_to(
        &self,
        key: &IdempotencyKey,
    ) -> Result<Option<(DateTime<Utc>, RecordedAnswer)>, StoreError> {
        if self.fingerprint != key.fingerprint {
            return Ok(None);
        }
        let answer = json(&self.answer, "idempotency.answer")?;
        Ok(Some((time(self.created_at), answer)))
    }

    /// Whether the row is that of this key, and has not expired at `now`.
    fn holds(&self, tenant: TenantId, key: &IdempotencyKey, now: DateTime<Utc>) -> bool {
        let is_it = self.tenant_id == tenant.uuid() && self.key == key.key;
        is_it && self.expires_at >= millis(now)
    }
}

/// A key to claim.
pub(super) struct Claim<'a> {
    pub(super) tenant: TenantId,
    pub(super) key: &'a IdempotencyKey,
    pub(super) answer: RecordedAnswer,
    pub(super) at: DateTime<Utc>,
}

/// The clause for a key that is already in the table: the claim takes an expired row over. The janitor deletes expired
/// keys in rounds, and a request must not wait for the next round.
pub(crate) const UNLESS_KEPT: &str = " ON CONFLICT (tenant_id, key) DO UPDATE SET fingerprint = excluded.fingerprint, \
     answer = excluded.answer, answer_sealed = excluded.answer_sealed, created_at = excluded.created_at, \
     expires_at = excluded.expires_at WHERE idempotency.expires_at < excluded.created_at";

/// Claims the free keys and returns the claimed ones. Waits for another transaction that is claiming one of the keys.
pub(super) async fn claim(
    tx: &impl ConnectionTrait,
    mut claims: Vec<Claim<'_>>,
) -> Result<HashSet<(Uuid, String)>, StoreError> {
    if claims.is_empty() {
        return Ok(HashSet::new());
    }
    // In a fixed order: two replicas with the same keys must not deadlock.
    claims.sort_by(|a, b| (a.tenant.uuid(), &a.key.key).cmp(&(b.tenant.uuid(), &b.key.key)));
    let rows = claims.iter().map(|claim| {
        Ok([
            claim.tenant.uuid().into(),
            claim.key.key.as_str().into(),
            claim.key.fingerprint.to_vec().into(),
            to_json(&claim.answer, "idempotency.answer")?.into(),
            millis(claim.at).into(),
            millis(claim.at + claim.key.kept_for).into(),
        ])
    });
    let rows = rows.collect::<Result<Vec<_>, StoreError>>()?;
    let mut sql = Sql::new(
        "INSERT INTO idempotency (tenant_id, key, fingerprint, answer, created_at, expires_at) ",
    );
    sql.rows(rows.into_iter())
        .push(UNLESS_KEPT)
        .push(" RETURNING tenant_id, key");
    let taken = tx.query_all_raw(sql.on(tx)).await?;
    taken
        .iter()
        .map(|row| Ok((row.try_get("", "tenant_id")?, row.try_get("", "key")?)))
        .collect()
}

/// The rows of these keys, expired rows included.
pub(super) async fn find(
    tx: &impl ConnectionTrait,
    keys: Vec<(TenantId, &IdempotencyKey)>,
) -> Result<Vec<KeyRow>, StoreError> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let mut sql = Sql::new(
        "SELECT tenant_id, key, fingerprint, answer, created_at, expires_at FROM idempotency WHERE (tenant_id, key) IN (",
    );
    sql.rows(
        keys.into_iter()
            .map(|(tenant, key)| [tenant.uuid().into(), key.key.as_str().into()]),
    )
    .push(")");
    Ok(KeyRow::find_by_statement(sql.on(tx)).all(tx).await?)
}

impl TenantStore {
    /// Whether the key already stands for a request of this tenant.
    pub async fn knows_key(
        &self,
        key: &IdempotencyKey,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let found = find(self.store.read(), vec![(self.tenant, key)]).await?;
        Ok(found.iter().any(|row| row.holds(self.tenant, key, now)))
    }
}

/// Claims the keys of the submissions that will be answered. Recognises repeated requests, even if a new request of
/// this kind would be refused now.
pub(super) async fn recognise(
    tx: &impl ConnectionTrait,
    batch: &[Submission],
    taken: &mut [Taken],
) -> Result<(), StoreError> {
    let mut seen = HashSet::new();
    let (mut keyed, mut twins) = (Vec::new(), Vec::new());
    for (index, submission) in batch.iter().enumerate() {
        let Some(key) = &submission.key else { continue };
        if seen.insert((submission.tenant, key.key.as_str())) {
            keyed.push((index, submission, key));
        } else {
            twins.push((index, submission, key));
            taken[index] = Taken::Twin;
        }
    }
    let claims = keyed.iter().filter_map(|(index, submission, key)| {
        Some(Claim {
            tenant: submission.tenant,
            key,
            answer: answer(submission, &taken[*index])?,
            at: submission.received_at,
        })
    });
    let fresh = claim(tx, claims.collect()).await?;
    keyed.retain(|(_, submission, key)| {
        !fresh.contains(&(submission.tenant.uuid(), key.key.clone()))
    });
    let asked = keyed
        .iter()
        .map(|(_, submission, key)| (submission.tenant, *key));
    let rows = find(tx, asked.collect()).await?;
    // A row from before this call also answers twins.
    for (index, submission, key) in keyed.into_iter().chain(twins) {
        let holds = |row: &&KeyRow| row.holds(submission.tenant, key, submission.received_at);
        match rows.iter().find(holds) {
            Some(row) => taken[index] = replay(row, key)?,
            // The key was neither claimed nor found: the janitor has deleted the row in between.
            None if answer(submission, &taken[index]).is_some() => taken[index] = Taken::Twin,
            None => {}
        }
    }
    Ok(())
}

/// Updates the idempotency record of a submission that changed after the claim of the key. Releases the key of a
/// message that was refused.
pub(super) async fn amend(
    tx: &impl ConnectionTrait,
    submission: &Submission,
    taken: &Taken,
) -> Result<(), StoreError> {
    let Some(key) = &submission.key else {
        return Ok(());
    };
    let mut sql = match answer(submission, taken) {
        Some(answer) => {
            let mut sql = Sql::new("UPDATE idempotency SET answer = ");
            sql.bind(to_json(&answer, "idempotency.answer")?);
            sql
        }
        None => Sql::new("DELETE FROM idempotency"),
    };
    sql.push(" WHERE tenant_id = ")
        .bind(submission.tenant.uuid())
        .push(" AND key = ")
        .bind(key.key.as_str());
    tx.execute_raw(sql.on(tx)).await?;
    Ok(())
}

/// The answer that the key of a submission will stand for. `None` if the submission leaves the key free.
fn answer(submission: &Submission, taken: &Taken) -> Option<RecordedAnswer> {
    let Taken::Fresh(received) = taken else {
        return None;
    };
    match &submission.load {
        SubmissionBody::One(new) => {
            let stored = received[..] == [Received::Stored] && !new.draft.dry_run;
            stored.then(|| RecordedAnswer::Message(new.id.uuid()))
        }
        SubmissionBody::Batch(entries) => {
            let mut received = received.iter();
            let entries = entries.iter().map(|entry| match entry {
                BatchEntry::Unfit(words) => EntryAnswer::Unfit(words.clone()),
                BatchEntry::Message(new) => match received.next() {
                    Some(Received::Stored) | None => EntryAnswer::Stored(new.id.uuid()),
                    Some(refused) => EntryAnswer::Refused(new.id.uuid(), *refused),
                },
            });
            Some(RecordedAnswer::Batch(entries.collect()))
        }
    }
}

fn replay(row: &KeyRow, key: &IdempotencyKey) -> Result<Taken, StoreError> {
    let first = match row.answer_to(key)? {
        Some((received_at, RecordedAnswer::Message(id))) => FirstAnswer::One {
            id: id.into(),
            received_at,
        },
        Some((received_at, RecordedAnswer::Batch(entries))) => {
            let entries = entries.into_iter().map(|entry| match entry {
                EntryAnswer::Stored(id) => FirstEntry::Message(id.into(), Received::Stored),
                EntryAnswer::Refused(id, why) => FirstEntry::Message(id.into(), why),
                EntryAnswer::Unfit(words) => FirstEntry::Unfit(words),
            });
            FirstAnswer::Batch {
                entries: entries.collect(),
                received_at,
            }
        }
        // A fingerprint covers the path: an answer of another kind belongs to another request.
        None
        | Some((
            _,
            RecordedAnswer::Retry(_) | RecordedAnswer::Grants(_) | RecordedAnswer::Sealed,
        )) => {
            return Ok(Taken::KeyReused);
        }
    };
    Ok(Taken::Replayed(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_for_a_sealed_answer_is_its_json() {
        assert_eq!(
            serde_json::to_string(&RecordedAnswer::Sealed).unwrap(),
            SEALED_ANSWER
        );
    }
}
