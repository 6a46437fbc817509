//! Records the outcomes of attempts to deliver, and the health of endpoints.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use domain::webhook::DISABLE_AFTER;
use sea_orm::{ConnectionTrait, DbBackend, FromQueryResult};
use uuid::Uuid;

use super::{DeliveryNext, DeliveryOutcome, DisabledWebhook};
use crate::{
    NewAuditLine, PlatformStore, StoreError,
    queue::sql::{Sql, SqlValue},
    store::UnitOfWork,
    timestamp::{millis, time},
    webhooks::{DISABLED, ENABLED},
};

#[derive(FromQueryResult)]
struct FailingRow {
    id: Uuid,
    tenant_id: Uuid,
    status: String,
    failing_since: Option<i64>,
    failures: i64,
}

impl PlatformStore {
    /// Writes the outcomes of attempts. Returns the endpoints that these outcomes disable; each also gets an audit
    /// line.
    pub async fn record_deliveries(
        &self,
        outcomes: &[DeliveryOutcome],
        now: DateTime<Utc>,
    ) -> Result<Vec<DisabledWebhook>, StoreError> {
        if outcomes.is_empty() {
            return Ok(Vec::new());
        }
        let mut tx = self.store.begin_batch().await?;
        let ids: BTreeSet<Uuid> = outcomes.iter().map(|one| one.webhook.uuid()).collect();
        let ids: Vec<Uuid> = ids.into_iter().collect();
        let mut sql =
            Sql::new("SELECT id, tenant_id, status, failing_since, failures FROM webhook WHERE id");
        sql.one_of(&ids).push(" ORDER BY id");
        if tx.get_database_backend() == DbBackend::Postgres {
            sql.push(" FOR UPDATE");
        }
        let endpoints = FailingRow::find_by_statement(sql.on(&tx)).all(&tx).await?;
        write_outcomes(&tx, outcomes, now).await?;
        release_next(&tx, outcomes, now).await?;
        let mut disabled = Vec::new();
        for endpoint in endpoints {
            disabled.extend(note_health(&mut tx, endpoint, outcomes, now).await?);
        }
        tx.commit().await?;
        Ok(disabled)
    }
}

async fn write_outcomes(
    tx: &impl ConnectionTrait,
    outcomes: &[DeliveryOutcome],
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let mut sql =
        Sql::new("WITH v(w, e, claim, new_status, next_due, answered, excerpt, why, over) AS (");
    sql.rows(outcomes.iter().map(|one| -> [SqlValue; 9] {
        let (status, due_at) = match one.next {
            DeliveryNext::Delivered => ("delivered", None),
            DeliveryNext::Later(due_at) => ("pending", Some(millis(due_at))),
            DeliveryNext::Failed | DeliveryNext::Gone => ("failed", None),
        };
        [
            one.webhook.uuid().into(),
            one.event.uuid().into(),
            one.lease.into(),
            status.into(),
            due_at.into(),
            one.response_status.map(i64::from).into(),
            one.response_excerpt.clone().into(),
            one.error.clone().into(),
            due_at.is_none().then(|| millis(now)).into(),
        ]
    }));
    sql.push(
        ") UPDATE webhook_delivery SET status = v.new_status, due_at = COALESCE(v.next_due, due_at), lease = NULL, \
         response_status = v.answered, response_excerpt = v.excerpt, error = v.why, ended_at = v.over \
         FROM v WHERE webhook_id = v.w AND event_id = v.e AND lease = v.claim",
    );
    tx.execute_raw(sql.on(tx)).await?;
    Ok(())
}

/// Makes the deliveries due that were put behind deliveries that have ended.
async fn release_next(
    tx: &impl ConnectionTrait,
    outcomes: &[DeliveryOutcome],
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let ended: Vec<&DeliveryOutcome> = outcomes
        .iter()
        .filter(|one| !matches!(one.next, DeliveryNext::Later(_)))
        .collect();
    if ended.is_empty() {
        return Ok(());
    }
    let mut sql = Sql::new("WITH v(w, e) AS (");
    sql.rows(
        ended
            .iter()
            .map(|one| [one.webhook.uuid().into(), one.event.uuid().into()]),
    );
    sql.push(
        "), told AS (SELECT d.webhook_id AS w, d.message_id AS m FROM webhook_delivery d JOIN v ON d.webhook_id = v.w AND d.event_id = v.e \
         WHERE d.message_id IS NOT NULL) UPDATE webhook_delivery SET due_at = ",
    );
    sql.bind(millis(now))
        .push(
            " FROM told WHERE status = 'pending' AND webhook_id = told.w AND message_id = told.m \
             AND lease IS NULL AND attempt_count = 0 AND due_at > ",
        )
        .bind(millis(now));
    tx.execute_raw(sql.on(tx)).await?;
    Ok(())
}

/// Counts the consecutive failures of an endpoint. Disables the endpoint if all attempts have failed for [`DISABLE_AFTER`],
/// or if the endpoint asks for that by 410 Gone.
async fn note_health(
    tx: &mut UnitOfWork,
    endpoint: FailingRow,
    outcomes: &[DeliveryOutcome],
    now: DateTime<Utc>,
) -> Result<Option<DisabledWebhook>, StoreError> {
    let (mut since, mut failures) = (endpoint.failing_since.map(time), endpoint.failures);
    let mut reason = None;
    for outcome in outcomes
        .iter()
        .filter(|one| one.webhook.uuid() == endpoint.id)
    {
        match outcome.next {
            DeliveryNext::Delivered => (since, failures) = (None, 0),
            DeliveryNext::Later(_) | DeliveryNext::Failed | DeliveryNext::Gone => {
                failures += 1;
                let since = *since.get_or_insert(now);
                if outcome.next == DeliveryNext::Gone {
                    reason = Some("the endpoint answered 410 Gone".to_owned());
                } else if (now - since)
                    .to_std()
                    .is_ok_and(|time| time >= DISABLE_AFTER)
                {
                    reason = Some(format!(
                        "every attempt has failed for {} days; the last failure: {}",
                        DISABLE_AFTER.as_secs() / 86_400,
                        outcome.error.as_deref().unwrap_or("no detail")
                    ));
                }
            }
        }
    }
    let disable = reason.filter(|_| endpoint.status == ENABLED);
    if since == endpoint.failing_since.map(time)
        && failures == endpoint.failures
        && disable.is_none()
    {
        return Ok(None);
    }
    let mut sql = Sql::new("UPDATE webhook SET failing_since = ");
    sql.bind(since.map(millis))
        .push(", failures = ")
        .bind(failures);
    if let Some(reason) = &disable {
        sql.push(", status = ")
            .bind(DISABLED)
            .push(", updated_at = ")
            .bind(millis(now))
            .push(", disabled_reason = ")
            .bind(reason.as_str());
    }
    sql.push(" WHERE id = ").bind(endpoint.id);
    tx.execute_raw(sql.on(tx)).await?;
    let Some(reason) = disable else {
        return Ok(None);
    };
    let disabled = DisabledWebhook {
        tenant: endpoint.tenant_id.into(),
        webhook: endpoint.id.into(),
        reason,
    };
    tx.add_line(Some(disabled.tenant), disabled.line(), now);
    Ok(Some(disabled))
}

impl DisabledWebhook {
    /// The audit line that the gateway disabled the endpoint.
    fn line(&self) -> NewAuditLine {
        NewAuditLine {
            actor: "gateway".to_owned(),
            action: "webhook.disable".to_owned(),
            target: self.webhook.to_string(),
            outcome: "disabled".to_owned(),
            detail: Some(self.reason.clone()),
            request_id: None,
            address: None,
        }
    }
}
