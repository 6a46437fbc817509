//! Collects all grants of a request in one transaction.

use std::collections::{BTreeSet, HashSet};

use chrono::{DateTime, Utc};
use domain::{
    app::AppId,
    grant::{LedgerEntry, NewGrant},
};
use sea_orm::ConnectionTrait;
use serde::{Deserialize, Serialize};

use super::{
    Grant, LedgerChange, Subscription, ledger,
    pool::{self, NewId},
};
use crate::{
    StoreError, TenantStore,
    messages::to_json,
    queue::{
        IdempotencyKey,
        admission::{self, app_of},
        keys::{self, Claim, RecordedAnswer},
        sql::Sql,
    },
};

/// One item of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrantEntry {
    /// A grant.
    Grant(NewGrant),
    /// An item that is not a valid grant, with the text of the refusal, from the calling crate. A replay returns this
    /// text.
    Unfit(String),
}

/// The result of a [`GrantEntry`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Collected {
    /// The grant is new: the grant as stored now.
    Added(Grant),
    /// The id was in the pool already: nothing has changed.
    Known(Grant),
    /// The id was collected for another user.
    Foreign,
    /// The item was not a valid grant: the text of the refusal.
    Unfit(String),
}

/// The result of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Collection {
    /// The request is new: the result of each item, in order.
    Fresh(Vec<Collected>),
    /// The key already stands for the same request: the answer that was given then.
    Replayed(Vec<Collected>),
    /// The key stands for a different request.
    KeyReused,
}

impl TenantStore {
    /// Adds grants, all in one transaction.
    ///
    /// Locks in the same order as intake: the app, the key, then ids and ledger rows.
    pub async fn collect(
        &self,
        appid: &AppId,
        items: &[GrantEntry],
        key: Option<&IdempotencyKey>,
        now: DateTime<Utc>,
    ) -> Result<Collection, StoreError> {
        let tx = self.begin(now).await?;
        let apps = admission::apps(&tx, BTreeSet::from([appid.as_str()])).await?;
        if app_of(&apps, appid.as_str(), self.tenant).is_none() {
            return Err(StoreError::NotFound("app"));
        }
        if let Some(key) = key
            && let Some(answered) = self.recognise_collection(&tx, key, now).await?
        {
            return Ok(answered);
        }
        let results = self.take_in(&tx, appid, items).await?;
        if let Some(key) = key {
            self.write_answer(&tx, key, &results).await?;
        }
        tx.commit().await?;
        Ok(Collection::Fresh(results))
    }

    async fn take_in(
        &self,
        tx: &impl ConnectionTrait,
        appid: &AppId,
        items: &[GrantEntry],
    ) -> Result<Vec<Collected>, StoreError> {
        let (mut ids, mut news) = (Vec::new(), Vec::new());
        for item in items {
            match item {
                GrantEntry::Unfit(_) => {}
                GrantEntry::Grant(NewGrant::Id {
                    kind,
                    openid,
                    value,
                    collected_at,
                }) => ids.push(NewId {
                    kind: *kind,
                    openid,
                    value,
                    collected_at: *collected_at,
                }),
                GrantEntry::Grant(NewGrant::Subscription {
                    openid,
                    template_id,
                    count,
                    long_term,
                    accepted_at,
                }) => news.push(LedgerChange {
                    appid: appid.clone(),
                    openid: openid.clone(),
                    template_id: template_id.clone(),
                    entry: LedgerEntry::Reported {
                        count: *count,
                        long_term: *long_term,
                        at: *accepted_at,
                    },
                }),
            }
        }
        let (known, mut added) = pool::add(tx, self.tenant, appid, &ids).await?;
        let accounts = ledger::enter(tx, &news).await?;
        let results = items.iter().map(|item| match item {
            GrantEntry::Unfit(words) => Collected::Unfit(words.clone()),
            GrantEntry::Grant(NewGrant::Id { openid, value, .. }) => match known.get(value) {
                Some(id) if id.openid == *openid => id_result(id.clone(), &mut added),
                _ => Collected::Foreign,
            },
            GrantEntry::Grant(NewGrant::Subscription {
                openid,
                template_id,
                ..
            }) => {
                let key = (
                    appid.as_str().to_owned(),
                    openid.clone(),
                    template_id.clone(),
                );
                let balance = accounts.get(&key).cloned().unwrap_or_default();
                let subscription = Subscription::of(openid, template_id, &balance);
                Collected::Added(Grant::Subscription(subscription))
            }
        });
        Ok(results.collect())
    }

    /// Claims the key. If the key is taken, returns the result that the key stands for.
    async fn recognise_collection(
        &self,
        tx: &impl ConnectionTrait,
        key: &IdempotencyKey,
        now: DateTime<Utc>,
    ) -> Result<Option<Collection>, StoreError> {
        let claim = Claim {
            tenant: self.tenant,
            key,
            answer: RecordedAnswer::Grants(Vec::new()),
            at: now,
        };
        if !keys::claim(tx, vec![claim]).await?.is_empty() {
            return Ok(None);
        }
        let rows = keys::find(tx, vec![(self.tenant, key)]).await?;
        let answer = rows.first().map(|row| row.answer_to(key)).transpose()?;
        Ok(Some(match answer.flatten() {
            Some((_, RecordedAnswer::Grants(results))) => Collection::Replayed(results),
            _ => Collection::KeyReused,
        }))
    }

    async fn write_answer(
        &self,
        tx: &impl ConnectionTrait,
        key: &IdempotencyKey,
        results: &[Collected],
    ) -> Result<(), StoreError> {
        let answer = RecordedAnswer::Grants(results.to_vec());
        let mut sql = Sql::new("UPDATE idempotency SET answer = ");
        sql.bind(to_json(&answer, "idempotency.answer")?)
            .push(" WHERE tenant_id = ")
            .bind(self.tenant.uuid())
            .push(" AND key = ")
            .bind(key.key.as_str());
        tx.execute_raw(sql.on(tx)).await?;
        Ok(())
    }
}

/// The first of two equal ids in a request is new.
fn id_result(id: super::PooledId, added: &mut HashSet<String>) -> Collected {
    if added.remove(&id.value) {
        Collected::Added(Grant::Id(id))
    } else {
        Collected::Known(Grant::Id(id))
    }
}
