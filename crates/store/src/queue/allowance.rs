//! Allowance: the number of messages that a tenant with a daily limit may still submit today.
//!
//! Intake counts by the Beijing day, in the transaction that accepts the messages, so the count is exact over replicas.
//! Tenants without a limit have no row, and nothing is written for these tenants.
//!
//! Intake counts after the claim of the idempotency keys, so replays and refused messages do not count.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use domain::{id::TenantId, quota};
use sea_orm::ConnectionTrait;
use uuid::Uuid;

use super::{
    admission::{AdmittedApps, app_of},
    meter::day_number,
    sql::Sql,
    submission::{Received, Spent, Submission, Taken},
};
use crate::StoreError;

/// The number of messages that tenants have submitted today. Each row is locked until the end of the transaction.
pub(super) struct Allowances(BTreeMap<Uuid, Allowance>);

struct Allowance {
    limit: i64,
    used: i64,
    before: i64,
}

impl Allowances {
    /// Locks the rows of these tenants, in a fixed order, and reads the counts. A new day starts at zero.
    pub(super) async fn lock(
        tx: &impl ConnectionTrait,
        limits: BTreeMap<Uuid, i64>,
        now: DateTime<Utc>,
    ) -> Result<Self, StoreError> {
        if limits.is_empty() {
            return Ok(Self(BTreeMap::new()));
        }
        let mut sql = Sql::new("INSERT INTO tenant_usage (tenant_id, day, messages) VALUES ");
        for (index, tenant) in limits.keys().enumerate() {
            sql.push(if index == 0 { "(" } else { ", (" })
                .bind(*tenant)
                .push(", ")
                .bind(day_number(now))
                .push(", 0)");
        }
        // After midnight, a replica with a slow clock counts for the day that has begun.
        sql.push(
            " ON CONFLICT (tenant_id) DO UPDATE SET \
             messages = CASE WHEN tenant_usage.day < excluded.day THEN 0 ELSE tenant_usage.messages END, \
             day = CASE WHEN tenant_usage.day < excluded.day THEN excluded.day ELSE tenant_usage.day END \
             RETURNING tenant_id, messages",
        );
        let mut allowances = BTreeMap::new();
        for row in tx.query_all_raw(sql.on(tx)).await? {
            let tenant: Uuid = row.try_get("", "tenant_id")?;
            let used: i64 = row.try_get("", "messages")?;
            let allowance = Allowance {
                limit: limits.get(&tenant).copied().unwrap_or(i64::MAX),
                used,
                before: used,
            };
            allowances.insert(tenant, allowance);
        }
        Ok(Self(allowances))
    }

    /// Counts one message of the tenant. Returns an error if the limit of the day is used up.
    pub(super) fn charge(&mut self, tenant: TenantId, now: DateTime<Utc>) -> Result<(), Spent> {
        let Some(allowance) = self.0.get_mut(&tenant.uuid()) else {
            return Ok(());
        };
        if allowance.used >= allowance.limit {
            return Err(Spent::Tenant {
                limit: allowance.limit.unsigned_abs(),
                reset_at: quota::reset_at(now),
            });
        }
        allowance.used += 1;
        Ok(())
    }

    /// Writes the new counts.
    pub(super) async fn write(self, tx: &impl ConnectionTrait) -> Result<(), StoreError> {
        let news: Vec<_> = self
            .0
            .into_iter()
            .filter(|(_, allowance)| allowance.used != allowance.before)
            .collect();
        if news.is_empty() {
            return Ok(());
        }
        let mut sql = Sql::new("WITH v(owner, used) AS (");
        sql.rows(
            news.into_iter()
                .map(|(tenant, allowance)| [tenant.into(), allowance.used.into()]),
        );
        sql.push(") UPDATE tenant_usage SET messages = v.used FROM v WHERE tenant_id = v.owner");
        tx.execute_raw(sql.on(tx)).await?;
        Ok(())
    }
}

/// Counts the messages of a batch that go into the queue, in order. Refuses the messages over a tenant's limit. Returns
/// the indexes of the submissions with refused messages.
pub(super) async fn charge_all(
    tx: &impl ConnectionTrait,
    batch: &[Submission],
    apps: &AdmittedApps,
    taken: &mut [Taken],
    now: DateTime<Utc>,
) -> Result<Vec<usize>, StoreError> {
    let mut limits = BTreeMap::new();
    for (submission, taken) in batch.iter().zip(&*taken) {
        let app = app_of(apps, submission.appid.as_str(), submission.tenant);
        let limit = app.and_then(|app| app.messages_per_day);
        if let Some(limit) = limit
            && submission.stored(taken).next().is_some()
        {
            limits.insert(submission.tenant.uuid(), limit);
        }
    }
    let mut allowances = Allowances::lock(tx, limits, now).await?;
    let mut changed = Vec::new();
    for (index, submission) in batch.iter().enumerate() {
        let Taken::Fresh(received) = &mut taken[index] else {
            continue;
        };
        let mut refused = false;
        for (new, received) in submission.messages().zip(received.iter_mut()) {
            if *received != Received::Stored || new.draft.dry_run {
                continue;
            }
            if let Err(spent) = allowances.charge(submission.tenant, now) {
                *received = Received::Spent(spent);
                refused = true;
            }
        }
        if refused {
            changed.push(index);
        }
    }
    allowances.write(tx).await?;
    Ok(changed)
}
