//! Collecting: one transaction for all grants of a request.

use std::collections::{BTreeSet, HashSet};

use chrono::{DateTime, Utc};
use domain::{
    app::AppId,
    grant::{Entry, NewGrant},
};
use sea_orm::ConnectionTrait;
use serde::{Deserialize, Serialize};

use super::{
    Grant, LedgerNews, Subscription, ledger,
    pool::{self, NewId},
};
use crate::{
    StoreError, TenantStore,
    messages::to_json,
    queue::{
        IdempotencyKey,
        admission::{self, app_of},
        keys::{self, Answer, Claim},
        sql::Sql,
    },
};

/// One item of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrantEntry {
    /// A grant.
    Grant(NewGrant),
    /// What is no grant, with the caller's words about it: a replay gives them back.
    Unfit(String),
}

/// What became of a [`GrantEntry`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Collected {
    /// It is new: as it is kept now.
    Added(Grant),
    /// The id was there already: nothing has changed.
    Known(Grant),
    /// The id was collected from another user.
    Foreign,
    /// It was no grant: the caller's words.
    Unfit(String),
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Collection {
    /// It is new: what became of each item, in order.
    Fresh(Vec<Collected>),
    /// Its key stands for this request already: what was answered then.
    Replayed(Vec<Collected>),
    /// Its key stands for another request.
    KeyReused,
}

impl TenantStore {
    /// Takes grants in, all in one transaction.
    ///
    /// Takes its locks as intake does: the app, the key, then ids and accounts.
    pub async fn collect(
        &self,
        appid: &AppId,
        items: &[GrantEntry],
        key: Option<&IdempotencyKey>,
        now: DateTime<Utc>,
    ) -> Result<Collection, StoreError> {
        let tx = self.store.begin().await?;
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
                }) => news.push(LedgerNews {
                    appid: appid.clone(),
                    openid: openid.clone(),
                    template_id: template_id.clone(),
                    entry: Entry::Reported {
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

    /// Claims the key. Where it is taken, says what it stands for.
    async fn recognise_collection(
        &self,
        tx: &impl ConnectionTrait,
        key: &IdempotencyKey,
        now: DateTime<Utc>,
    ) -> Result<Option<Collection>, StoreError> {
        let claim = Claim {
            tenant: self.tenant,
            key,
            answer: Answer::Grants(Vec::new()),
            at: now,
        };
        if !keys::claim(tx, vec![claim]).await?.is_empty() {
            return Ok(None);
        }
        let rows = keys::find(tx, vec![(self.tenant, key)]).await?;
        let answer = rows.first().map(|row| row.answer_to(key)).transpose()?;
        Ok(Some(match answer.flatten() {
            Some((_, Answer::Grants(results))) => Collection::Replayed(results),
            _ => Collection::KeyReused,
        }))
    }

    async fn write_answer(
        &self,
        tx: &impl ConnectionTrait,
        key: &IdempotencyKey,
        results: &[Collected],
    ) -> Result<(), StoreError> {
        let answer = Answer::Grants(results.to_vec());
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

/// Of an id that comes twice in a request the first is new.
fn id_result(id: super::PooledId, added: &mut HashSet<String>) -> Collected {
    if added.remove(&id.value) {
        Collected::Added(Grant::Id(id))
    } else {
        Collected::Known(Grant::Id(id))
    }
}
