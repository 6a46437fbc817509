//! Settles ids and grants, in the transaction that records the outcomes of the messages.

use std::collections::BTreeMap;

use sea_orm::ConnectionTrait;
use uuid::Uuid;

use super::{GrantChange, IdFate, LedgerStep, PERMIT, POOL, RESERVED, ledger, pool};
use crate::{
    StoreError,
    queue::{IN_FLIGHT, record::Settlement, sql::Sql, unsent::MAYBE_SENT},
};

/// Writes what these settlements, each with the message's tenant, mean for ids and grants. Executes no statement if
/// nothing changes.
pub(in crate::queue) async fn settle<'a>(
    tx: &impl ConnectionTrait,
    settlements: impl Iterator<Item = (Uuid, &'a Settlement)>,
) -> Result<(), StoreError> {
    // One statement must not change a row twice.
    let (mut ids, mut steps) = (BTreeMap::new(), BTreeMap::new());
    for (tenant, settlement) in settlements {
        match &settlement.grant {
            None => {}
            Some(GrantChange::Pool { value, fate }) => {
                let key = (settlement.appid.as_str().to_owned(), value.clone());
                ids.entry(key).or_insert((settlement.id.uuid(), *fate));
            }
            Some(GrantChange::Ledger(step)) => {
                let key = (
                    settlement.appid.as_str().to_owned(),
                    settlement.touser.clone(),
                    settlement.template_id.clone(),
                );
                steps.entry(key).or_insert((tenant, *step));
            }
        }
    }
    settle_ids(tx, ids).await?;
    step_all(tx, steps).await
}

fn fate_code(fate: IdFate) -> i64 {
    match fate {
        IdFate::Back => 0,
        IdFate::Spent => 1,
        IdFate::Refused => 2,
    }
}

fn step_code(step: LedgerStep) -> i64 {
    match step {
        LedgerStep::Zero => 0,
        LedgerStep::Debit => 1,
        LedgerStep::Back => 2,
    }
}

/// Changes only ids that the message still holds, so an earlier settlement stays. The condition on `held_by` is written
/// so that only the primary key can serve the query: SQLite would scan all held ids if the statistics say that there
/// are none.
async fn settle_ids(
    tx: &impl ConnectionTrait,
    ids: BTreeMap<(String, String), (Uuid, IdFate)>,
) -> Result<(), StoreError> {
    if ids.is_empty() {
        return Ok(());
    }
    let mut sql = Sql::new("WITH v(a, id, m, fate) AS (");
    sql.rows(ids.into_iter().map(|((appid, value), (message, fate))| {
        [
            appid.into(),
            value.into(),
            message.into(),
            fate_code(fate).into(),
        ]
    }));
    sql.push(&format!(
        ") {} CASE v.fate WHEN 1 THEN s.uses_left - 1 WHEN 2 THEN 0 ELSE s.uses_left END, NULL FROM ",
        pool::CHANGE
    ))
    .found_and_locked("form_id", pool::KEY)
    .push(" WHERE CASE WHEN s.held_by = v.m THEN 1 ELSE 0 END = 1")
    .push(pool::CHANGED);
    tx.execute_raw(sql.on(tx)).await?;
    Ok(())
}

/// Changes only ledger rows of the message's own tenant, because the app may have another owner by now.
async fn step_all(
    tx: &impl ConnectionTrait,
    steps: BTreeMap<ledger::LedgerKey, (Uuid, LedgerStep)>,
) -> Result<(), StoreError> {
    if steps.is_empty() {
        return Ok(());
    }
    let mut sql = Sql::new("WITH v(a, t, p, owner, step) AS (");
    sql.rows(
        steps
            .into_iter()
            .map(|((appid, openid, template_id), (tenant, step))| {
                [
                    appid.into(),
                    openid.into(),
                    template_id.into(),
                    tenant.into(),
                    step_code(step).into(),
                ]
            }),
    );
    sql.push(&format!(
        ") {} CASE WHEN v.step = 0 THEN 0 WHEN {} THEN s.remaining WHEN v.step = 2 THEN s.remaining + 1 \
         WHEN s.remaining > 0 THEN s.remaining - 1 ELSE 0 END FROM ",
        ledger::CHANGE,
        ledger::IS_LONG_TERM
    ))
    .found_and_locked("subscription", ledger::KEY)
    .push(" WHERE s.tenant_id = v.owner")
    .push(ledger::CHANGED);
    tx.execute_raw(sql.on(tx)).await?;
    Ok(())
}

/// Gives back all that a claim took, if the worker never got the claimed messages and so sent none of them. To be
/// called before the messages are made ready again. An id that a message held before the claim stays with that message.
pub(in crate::queue) async fn undo(
    tx: &impl ConnectionTrait,
    lease: i64,
) -> Result<(), StoreError> {
    let claimed = |columns: &str, permit: i64| {
        let mut sql = Sql::new(&format!(
            "SELECT {columns} FROM message WHERE phase = {IN_FLIGHT} AND (permit & {PERMIT}) = {permit} AND lease = "
        ));
        sql.bind(lease);
        sql
    };
    let mut ids = claimed("id", POOL);
    ids.push(&format!(" AND NOT {MAYBE_SENT}"));
    let messages = tx.query_all_raw(ids.on(tx)).await?;
    let messages = messages
        .iter()
        .map(|row| Ok(row.try_get("", "id")?))
        .collect::<Result<Vec<Uuid>, StoreError>>()?;
    let mut back = BTreeMap::new();
    if !messages.is_empty() {
        let mut held = Sql::new("SELECT appid, value, held_by FROM form_id WHERE held_by");
        held.one_of(&messages);
        for row in tx.query_all_raw(held.on(tx)).await? {
            let key = (row.try_get("", "appid")?, row.try_get("", "value")?);
            back.insert(key, (row.try_get("", "held_by")?, IdFate::Back));
        }
    }
    settle_ids(tx, back).await?;
    let mut steps = BTreeMap::new();
    let grants = claimed("appid, touser, template_id, tenant_id", RESERVED);
    for row in tx.query_all_raw(grants.on(tx)).await? {
        let key = (
            row.try_get("", "appid")?,
            row.try_get("", "touser")?,
            row.try_get("", "template_id")?,
        );
        steps.insert(key, (row.try_get("", "tenant_id")?, LedgerStep::Back));
    }
    step_all(tx, steps).await
}
