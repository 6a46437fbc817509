//! Takes the grants for the messages of a claim, and ends messages for which there is no grant.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, Utc};
use domain::{grant::IdKind, id::MessageId, message::Content};
use sea_orm::{ConnectionTrait, FromQueryResult};
use uuid::Uuid;

use super::{Permit, PoolId, ledger, pool};
use crate::{
    StoreError,
    error::unknown,
    queue::{
        ENDED,
        claimed::ClaimedMessage,
        events::{Settled, end_with_events},
        record::release_behind,
        sql::{Sql, SqlValue},
        unsent::MAYBE_SENT,
    },
    timestamp::{millis, time},
};

#[derive(FromQueryResult)]
struct IdRow {
    message: Uuid,
    appid: String,
    value: String,
    kind: String,
    expires_at: i64,
    held_by: Option<Uuid>,
}

impl IdRow {
    fn id(self, maybe_used: bool) -> Result<PoolId, StoreError> {
        Ok(PoolId {
            kind: IdKind::parse(&self.kind).ok_or_else(|| unknown("form_id.kind", &self.kind))?,
            value: self.value,
            usable_until: time(self.expires_at),
            maybe_used,
        })
    }
}

/// Takes ids and grants for the messages in `claimed` that need one. Messages without an available grant end here as
/// `failed`, or `uncertain` after an attempt without an answer. Removes these messages from `claimed` and returns the
/// messages together with the new statuses.
pub(in crate::queue) async fn take(
    tx: &impl ConnectionTrait,
    claimed: &mut Vec<ClaimedMessage>,
    now: DateTime<Utc>,
) -> Result<(Vec<ClaimedMessage>, Vec<Settled>), StoreError> {
    if claimed
        .iter()
        .all(|flight| matches!(flight.permit, Permit::Free | Permit::Counted))
    {
        return Ok((Vec::new(), Vec::new()));
    }
    let mut ids = take_ids(tx, claimed, now).await?;
    let granted = reserve(tx, claimed).await?;
    let (mut permitted, mut refused) = (Vec::with_capacity(claimed.len()), Vec::new());
    for mut flight in claimed.drain(..) {
        let may_fly = match &mut flight.permit {
            Permit::Free | Permit::Counted => true,
            Permit::Reserved => granted.contains(&flight.id),
            Permit::Pool(taken) => {
                *taken = ids.remove(&flight.id.uuid());
                taken.is_some()
            }
        };
        if may_fly {
            put_in(&mut flight);
            permitted.push(flight);
        } else {
            refused.push(flight);
        }
    }
    *claimed = permitted;
    let ended = end(tx, &refused, now).await?;
    Ok((refused, ended))
}

/// Puts the id that a message holds into the content to send.
fn put_in(flight: &mut ClaimedMessage) {
    if let (Permit::Pool(Some(id)), Content::Template { form_id, .. }) =
        (&flight.permit, &mut flight.content)
    {
        *form_id = Some(id.value.clone());
    }
}

/// The ids for messages with a pool permit: the id that the message holds already, or the recipient's id that expires
/// first.
async fn take_ids(
    tx: &impl ConnectionTrait,
    claimed: &[ClaimedMessage],
    now: DateTime<Utc>,
) -> Result<HashMap<Uuid, PoolId>, StoreError> {
    let wanting: Vec<&ClaimedMessage> = claimed
        .iter()
        .filter(|flight| matches!(flight.permit, Permit::Pool(_)))
        .collect();
    if wanting.is_empty() {
        return Ok(HashMap::new());
    }
    let mut sql = Sql::new("WITH w(m, a, t, o) AS (");
    sql.rows(wanting.iter().map(|flight| {
        [
            flight.id.uuid().into(),
            flight.appid.as_str().into(),
            flight.touser.as_str().into(),
            flight.tenant.uuid().into(),
        ]
    }));
    // The recipient's ids come in the order of the index, so that the first one suffices, however many there are. The
    // condition on the expiry of a held id is written so that only the index on `held_by` can serve the query.
    sql.push(
        "), v(m, a, id) AS (SELECT w.m, w.a, COALESCE((SELECT h.value FROM form_id h WHERE h.held_by = w.m AND h.expires_at + 0 > ",
    )
    .bind(millis(now))
    .push(
        " LIMIT 1), (SELECT n.value FROM form_id n WHERE n.appid = w.a AND n.openid = w.t AND n.uses_left > 0 \
         AND n.held_by IS NULL AND n.tenant_id = w.o AND n.expires_at > ",
    )
    .bind(millis(now))
    .push(
        " ORDER BY n.appid, n.openid, n.expires_at, n.value LIMIT 1)) FROM w) \
         SELECT v.m AS message, s.appid, s.value, s.kind, s.expires_at, s.held_by FROM ",
    )
    .found_and_locked("form_id", pool::KEY);
    let rows = IdRow::find_by_statement(sql.on(tx)).all(tx).await?;
    let mut new: Vec<[SqlValue; 3]> = Vec::new();
    let mut taken = HashMap::new();
    for row in rows {
        let maybe_used = row.held_by.is_some();
        if !maybe_used {
            let (appid, value) = (row.appid.as_str().into(), row.value.as_str().into());
            new.push([appid, value, row.message.into()]);
        }
        taken.insert(row.message, row.id(maybe_used)?);
    }
    if !new.is_empty() {
        let mut sql = Sql::new("WITH v(a, id, m) AS (");
        sql.rows(new.into_iter())
            .push(&format!(") {} s.uses_left, v.m FROM ", pool::CHANGE))
            .found("form_id", pool::KEY)
            .push(" WHERE TRUE")
            .push(pool::CHANGED);
        tx.execute_raw(sql.on(tx)).await?;
    }
    Ok(taken)
}

/// The messages under the strict policy that got a grant.
async fn reserve(
    tx: &impl ConnectionTrait,
    claimed: &[ClaimedMessage],
) -> Result<HashSet<MessageId>, StoreError> {
    let wanting: Vec<&ClaimedMessage> = claimed
        .iter()
        .filter(|flight| flight.permit == Permit::Reserved)
        .collect();
    if wanting.is_empty() {
        return Ok(HashSet::new());
    }
    let key = |flight: &ClaimedMessage| -> ledger::LedgerKey {
        (
            flight.appid.as_str().to_owned(),
            flight.touser.clone(),
            flight.template_id.clone(),
        )
    };
    let accounts: BTreeMap<ledger::LedgerKey, Uuid> = wanting
        .iter()
        .map(|flight| (key(flight), flight.tenant.uuid()))
        .collect();
    let mut sql = Sql::new("WITH v(a, t, p, o) AS (");
    sql.rows(
        accounts
            .into_iter()
            .map(|((appid, openid, template_id), tenant)| {
                [
                    appid.into(),
                    openid.into(),
                    template_id.into(),
                    tenant.into(),
                ]
            }),
    );
    sql.push(&format!(
        ") {} CASE WHEN {} THEN s.remaining ELSE s.remaining - 1 END FROM ",
        ledger::CHANGE,
        ledger::IS_LONG_TERM
    ))
    .found_and_locked("subscription", ledger::KEY)
    // Written so that the partial index of rows with `remaining > 0` cannot serve the query: that index has no openid.
    .push(" WHERE s.tenant_id = v.o AND s.remaining + 0 > 0")
    .push(ledger::CHANGED)
    .push(" RETURNING appid, openid, template_id");
    let mut granted: HashSet<ledger::LedgerKey> = HashSet::new();
    for row in tx.query_all_raw(sql.on(tx)).await? {
        granted.insert((
            row.try_get("", "appid")?,
            row.try_get("", "openid")?,
            row.try_get("", "template_id")?,
        ));
    }
    let permitted = wanting
        .into_iter()
        .filter(|flight| granted.contains(&key(flight)));
    Ok(permitted.map(|flight| flight.id).collect())
}

/// Ends messages that no grant permits. A message with an unanswered attempt may have been sent and becomes
/// `uncertain`.
async fn end(
    tx: &impl ConnectionTrait,
    refused: &[ClaimedMessage],
    now: DateTime<Utc>,
) -> Result<Vec<Settled>, StoreError> {
    if refused.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<Uuid> = refused.iter().map(|flight| flight.id.uuid()).collect();
    let mut sql = Sql::new(&format!(
        "UPDATE message SET status = CASE WHEN {MAYBE_SENT} THEN 'uncertain' ELSE 'failed' END, \
         failure_code = CASE WHEN {MAYBE_SENT} THEN 'unanswered' ELSE 'no_grant' END, \
         failure_detail = CASE WHEN (permit & {}) = {} AND NOT {MAYBE_SENT} THEN ",
        super::PERMIT,
        super::POOL
    ));
    sql.bind(EMPTY_POOL)
        .push(&format!(
            " END, phase = {ENDED}, attempt_count = attempt_count - 1, lease = NULL, lease_until = NULL, "
        ))
        .touch(now)
        .push(" WHERE id")
        .one_of(&ids);
    let ended = end_with_events(tx, sql, now).await?;
    let people: Vec<_> = refused
        .iter()
        .map(|flight| (flight.appid.as_str().to_owned(), flight.touser.clone()))
        .collect();
    release_behind(tx, &people, now).await?;
    Ok(ended)
}

/// The failure detail of a template message for which the pool has no id.
const EMPTY_POOL: &str = "the form-id pool has no usable form id or prepay id of this recipient: collect more with POST \
                          /v1/apps/{appid}/grants, or send the message with its own `form_id`";

/// Fills in the ids that messages in flight hold.
pub(in crate::queue) async fn load_held(
    connection: &impl ConnectionTrait,
    flights: &mut [ClaimedMessage],
) -> Result<(), StoreError> {
    let wanting: Vec<Uuid> = flights
        .iter()
        .filter(|flight| matches!(flight.permit, Permit::Pool(_)))
        .map(|flight| flight.id.uuid())
        .collect();
    if wanting.is_empty() {
        return Ok(());
    }
    let mut sql = Sql::new(
        "SELECT held_by AS message, appid, value, kind, expires_at, held_by FROM form_id WHERE held_by",
    );
    sql.one_of(&wanting);
    let rows = IdRow::find_by_statement(sql.on(connection))
        .all(connection)
        .await?;
    for row in rows {
        let holder = flights
            .iter_mut()
            .find(|flight| flight.id.uuid() == row.message);
        if let Some(flight) = holder {
            let maybe_used = flight.maybe_sent_at().is_some();
            flight.permit = Permit::Pool(Some(row.id(maybe_used)?));
        }
    }
    Ok(())
}
